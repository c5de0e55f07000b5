"""Bilinear interpolation with both conventions of PyTorch, as one small matrix per axis."""

import functools

import jax
import numpy as np

from aliasfree_jax.ops.operation import operation, spell
from aliasfree_jax.ops.resample import Precision, apply_matrices
from aliasfree_jax.ops.shapes import check_images


@functools.cache
def bilinear_weights(side: int, outputs: int, align_corners: bool) -> np.ndarray:
    """Returns the interpolation matrix `[outputs, side]` in float64."""
    if align_corners:
        places = np.linspace(0, side - 1, outputs)
    else:
        places = np.clip((np.arange(outputs) + 0.5) * side / outputs - 0.5, 0, side - 1)
    return np.maximum(0, 1 - np.abs(places[:, None] - np.arange(side)))


def bilinear_resize(
    x: jax.Array,
    shape: tuple[int, int],
    *,
    align_corners: bool = False,
    precision: Precision = "highest",
) -> jax.Array:
    """Resizes `[N, H, W, C]` to `shape` = (rows, columns) by bilinear interpolation.

    Args:
      align_corners: whether the first and last output samples coincide with the first and last input
        samples. Otherwise the borders of the outermost pixels coincide, and positions beyond the outermost
        samples take the values of those samples.

    Raises:
      ShapeError: `x` is not floating-point `[N, H, W, C]`.
    """
    check_images(x)
    rows, columns = (bilinear_weights(n, m, align_corners) for n, m in zip(x.shape[1:3], shape, strict=True))
    name = spell("bilinear_resize", aligned=(int(align_corners),))
    return operation(name, apply_matrices, x, rows, columns, precision=precision)

"""Maximum and average pooling, with the paddings of the originals."""

import functools
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.errors import ConfigError, ShapeError, unknown
from aliasfree_jax.ops.padding import pad, same_padding
from aliasfree_jax.ops.resample import apply_matrices

PoolPadding = Literal["none", "ignore", "circular", "zero", "reflect", "replicate"]


def _max_axis(x: jax.Array, axis: int, size: int, stride: int) -> jax.Array:
    """Maximum of strided slices: on a CPU several times faster than XLA's window reduction."""
    outputs = (x.shape[axis] - size) // stride + 1
    slices = (jax.lax.slice_in_dim(x, i, i + (outputs - 1) * stride + 1, stride, axis) for i in range(size))
    return functools.reduce(jnp.maximum, slices)


def max_pool(x: jax.Array, size: int, stride: int = 1, padding: PoolPadding = "none") -> jax.Array:
    """The largest value of each size x size window of [N, H, W, C].

    Args:
      padding: "none" takes full windows only, "ignore" leaves out what lies outside the map (PyTorch's
        padding of max pools), the others continue the map; all but "none" keep its size, but for the
        stride (even windows reach one sample further behind, as in APS and LPS).

    Raises:
      ShapeError: a map smaller than the window.
      ConfigError: unknown padding.
    """
    if padding not in ("none", "ignore", "circular", "zero", "reflect", "replicate"):
        raise ConfigError(unknown("pool padding", padding, ("none", "ignore", "circular", "zero")))
    amounts = same_padding(size), same_padding(size)
    if padding == "ignore":
        x = jnp.pad(x, ((0, 0), *amounts, (0, 0)), constant_values=-jnp.inf)
    elif padding != "none":
        x = pad(x, amounts, padding)
    if min(x.shape[1:3]) < size:
        raise ShapeError(f"a {size} x {size} max pool needs a larger map than {x.shape[1]} x {x.shape[2]}.")
    return _max_axis(_max_axis(x, 1, size, stride), 2, size, stride)


@functools.cache
def _bins(side: int, bins: int) -> np.ndarray:
    matrix = np.zeros((bins, side))
    for i in range(bins):
        first, last = i * side // bins, -(-(i + 1) * side // bins)
        matrix[i, first:last] = 1 / (last - first)
    return matrix


def adaptive_average_pool(x: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Averages [N, H, W, C] over `shape` = (rows, columns) bins: [N, rows, columns, C].

    Bin i covers samples floor(i H / rows) to ceil((i + 1) H / rows): bins overlap where `rows` does not
    divide H, and repeat samples where it is larger (PyTorch's AdaptiveAvgPool2d).
    """
    return apply_matrices(x, _bins(x.shape[1], shape[0]), _bins(x.shape[2], shape[1]))


def average_pool(x: jax.Array, size: int = 2) -> jax.Array:
    """The mean of each size x size block of [N, H, W, C]; incomplete blocks at the end are left out."""
    n, h, w, c = x.shape
    if min(h, w) < size:
        raise ShapeError(f"a {size} x {size} average pool needs a larger map than {h} x {w}.")
    whole = x[:, : h // size * size, : w // size * size]
    return whole.reshape(n, h // size, size, w // size, size, c).mean(axis=(2, 4))

"""Maximum and average pooling, with the padding of the originals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.ops.padding import WindowPadding, pad_windows
from aliasfree_jax.ops.resample import apply_matrices
from aliasfree_jax.ops.shapes import Pair, check_images, pair


def _max_axis(x: jax.Array, axis: int, size: int, stride: int) -> jax.Array:
    """Maximum of strided slices. On CPUs this is several times faster than XLA's window reduction."""
    outputs = (x.shape[axis] - size) // stride + 1
    slices = (jax.lax.slice_in_dim(x, i, i + (outputs - 1) * stride + 1, stride, axis) for i in range(size))
    return functools.reduce(jnp.maximum, slices)


def max_pool(
    x: jax.Array, window_shape: Pair, strides: Pair = 1, padding: WindowPadding = "VALID"
) -> jax.Array:
    """Returns the largest value of each window.

    Args:
      x: maps `[N, H, W, C]`.
      window_shape: size of the windows.
      strides: strides of the windows.
      padding: "VALID" uses full windows only. "SAME" and numbers of samples pad with minus infinity
        (PyTorch's padding). The four modes of `ops.padding.Padding` continue the map and keep its size at
        stride 1. Even windows reach one sample further after the map than before it, as in APS and LPS.

    Returns:
      `[N, H', W', C]`.

    Raises:
      ShapeError: `x` is not floating-point `[N, H, W, C]`, or the map is smaller than the window.
      ConfigError: unknown padding.

    Source: standard max pooling; the padding follows PyTorch, Chaman & Dokmanic 2021 (arXiv 2011.14214) and
    Rojas-Gomez et al. 2022 (arXiv 2210.08001).
    """
    window, steps = pair(window_shape, "window_shape"), pair(strides, "strides")
    check_images(x)
    x = pad_windows(x, window, steps, padding, fill=-jnp.inf)
    return _max_axis(_max_axis(x, 1, window[0], steps[0]), 2, window[1], steps[1])


def _bins(side: int, bins: int) -> list[slice]:
    """PyTorch's bins: from floor(i side / bins) to ceil((i + 1) side / bins)."""
    return [slice(i * side // bins, -(-(i + 1) * side // bins)) for i in range(bins)]


@functools.cache
def _means(side: int, bins: int) -> np.ndarray:
    matrix = np.zeros((bins, side))
    for row, samples in zip(matrix, _bins(side, bins), strict=True):
        row[samples] = 1 / (samples.stop - samples.start)
    return matrix


def adaptive_average_pool(x: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Averages a map over a fixed number of bins.

    Bin i covers the samples from floor(i H / rows) to ceil((i + 1) H / rows). Bins overlap if `rows` does
    not divide H. They repeat samples if `rows` is larger than H.

    Args:
      x: maps `[N, H, W, C]`.
      shape: numbers of bins (rows, columns).

    Returns:
      `[N, rows, columns, C]`.

    Source: PyTorch, `torch.nn.AdaptiveAvgPool2d`.
    """
    return apply_matrices(x, _means(x.shape[1], shape[0]), _means(x.shape[2], shape[1]))


def adaptive_max_pool(x: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Returns the largest value of each bin of `adaptive_average_pool`."""
    rows = jnp.stack([x[:, samples].max(axis=1) for samples in _bins(x.shape[1], shape[0])], axis=1)
    return jnp.stack([rows[:, :, samples].max(axis=2) for samples in _bins(x.shape[2], shape[1])], axis=2)


def average_pool(x: jax.Array, size: int = 2) -> jax.Array:
    """Returns the mean of each block of `size` x `size` samples; incomplete blocks are dropped.

    Args:
      x: maps `[N, H, W, C]`.
      size: side of the blocks.

    Returns:
      `[N, H // size, W // size, C]`.

    Raises:
      ShapeError: `x` is not floating-point `[N, H, W, C]`, or smaller than one block.

    Source: PyTorch, `torch.nn.AvgPool2d`, as in the transitions of DenseNet (Huang et al. 2017, arXiv
    1608.06993).
    """
    check_images(x, (size, size))
    n, h, w, c = x.shape
    whole = x[:, : h // size * size, : w // size * size]
    return whole.reshape(n, h // size, size, w // size, size, c).mean(axis=(2, 4))


def windows(x: jax.Array, side: int) -> jax.Array:
    """Flattens all square windows of `[N, H, W, C]`: `[N, H - side + 1, W - side + 1, side * side * C]`."""
    check_images(x, (side, side))
    n, h, w, c = x.shape
    rows, columns = h - side + 1, w - side + 1
    parts = [x[:, i : i + rows, j : j + columns] for i in range(side) for j in range(side)]
    return jnp.stack(parts, axis=3).reshape(n, rows, columns, side * side * c)

"""Maximum and average pooling, with the paddings of the originals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.ops.padding import WindowPadding, pad_windows
from aliasfree_jax.ops.resample import apply_matrices
from aliasfree_jax.ops.shapes import Pair, check_images, pair


def _max_axis(x: jax.Array, axis: int, size: int, stride: int) -> jax.Array:
    """Maximum of strided slices: on a CPU several times faster than XLA's window reduction."""
    outputs = (x.shape[axis] - size) // stride + 1
    slices = (jax.lax.slice_in_dim(x, i, i + (outputs - 1) * stride + 1, stride, axis) for i in range(size))
    return functools.reduce(jnp.maximum, slices)


def max_pool(
    x: jax.Array, window_shape: Pair, strides: Pair = 1, padding: WindowPadding = "VALID"
) -> jax.Array:
    """The largest value of each window of [N, H, W, C].

    Args:
      padding: as `nn.max_pool` has it: "VALID" takes full windows only; "SAME" and numbers of samples leave
        out what lies outside the map (PyTorch's padding). The modes continue the map and keep its size, but
        for the stride (even windows reach one sample further behind, as in APS and LPS).

    Raises:
      ShapeError: not floating-point [N, H, W, C], a map smaller than the window.
      ConfigError: unknown padding.
    """
    window, steps = pair(window_shape, "window_shape"), pair(strides, "strides")
    check_images(x)
    x = pad_windows(x, window, steps, padding, fill=-jnp.inf)
    return _max_axis(_max_axis(x, 1, window[0], steps[0]), 2, window[1], steps[1])


def _bins(side: int, bins: int) -> list[slice]:
    """PyTorch's: from floor(i side / bins) to ceil((i + 1) side / bins)."""
    return [slice(i * side // bins, -(-(i + 1) * side // bins)) for i in range(bins)]


@functools.cache
def _means(side: int, bins: int) -> np.ndarray:
    matrix = np.zeros((bins, side))
    for row, samples in zip(matrix, _bins(side, bins), strict=True):
        row[samples] = 1 / (samples.stop - samples.start)
    return matrix


def adaptive_average_pool(x: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Averages [N, H, W, C] over `shape` = (rows, columns) bins: [N, rows, columns, C].

    Bin i covers samples floor(i H / rows) to ceil((i + 1) H / rows): bins overlap where `rows` does not
    divide H, and repeat samples where it is larger (PyTorch's AdaptiveAvgPool2d).
    """
    return apply_matrices(x, _means(x.shape[1], shape[0]), _means(x.shape[2], shape[1]))


def adaptive_max_pool(x: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """The largest value of each of the bins of `adaptive_average_pool`."""
    rows = jnp.stack([x[:, samples].max(axis=1) for samples in _bins(x.shape[1], shape[0])], axis=1)
    return jnp.stack([rows[:, :, samples].max(axis=2) for samples in _bins(x.shape[2], shape[1])], axis=2)


def average_pool(x: jax.Array, size: int = 2) -> jax.Array:
    """The mean of each size x size block of [N, H, W, C]; incomplete blocks at the end are left out."""
    check_images(x, (size, size))
    n, h, w, c = x.shape
    whole = x[:, : h // size * size, : w // size * size]
    return whole.reshape(n, h // size, size, w // size, size, c).mean(axis=(2, 4))


def windows(x: jax.Array, side: int) -> jax.Array:
    """All square windows of [N, H, W, C], flattened: [N, H - side + 1, W - side + 1, side * side * C]."""
    check_images(x, (side, side))
    n, h, w, c = x.shape
    rows, columns = h - side + 1, w - side + 1
    parts = [x[:, i : i + rows, j : j + columns] for i in range(side) for j in range(side)]
    return jnp.stack(parts, axis=3).reshape(n, rows, columns, side * side * c)

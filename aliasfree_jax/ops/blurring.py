"""Blurs: fixed binomial filters (Zhang 2019, arXiv 1904.11486) and a separate filter for every position."""

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.ops.padding import Padding, WindowPadding, pad, pad_windows, same_padding
from aliasfree_jax.ops.shapes import Pair, check_images, pair

LARGEST_FILTER = 7


def binomial_taps(size: int) -> np.ndarray:
    """Returns the normalised binomial filter of `size` taps in float64.

    Size 2 is `[1, 1] / 2`, size 3 is `[1, 2, 1] / 4`.

    Raises:
      ConfigError: the size is outside 1 to 7, the range of the originals.
    """
    if not 1 <= size <= LARGEST_FILTER:
        raise ConfigError(f"blur filters have 1 to {LARGEST_FILTER} taps, got {size}.")
    taps = np.ones(1)
    for _ in range(size - 1):
        taps = np.convolve(taps, [1.0, 1.0])
    return taps / taps.sum()


def _blur_axis(x: jax.Array, axis: int, taps: np.ndarray, stride: int) -> jax.Array:
    """Weighted sum of strided slices along one padded axis (a correlation over full windows)."""
    outputs = (x.shape[axis] - len(taps)) // stride + 1
    slices = (
        float(tap) * jax.lax.slice_in_dim(x, i, i + (outputs - 1) * stride + 1, stride, axis)
        for i, tap in enumerate(taps)
    )
    return sum(slices, start=jnp.zeros((), x.dtype))


def blur(
    x: jax.Array, kernel_size: Pair = 3, strides: Pair = 1, padding: WindowPadding = "CIRCULAR"
) -> jax.Array:
    """Blurs each channel with a binomial filter and keeps every `strides`-th sample.

    Even filters are padded with one more sample after the map than before it, as in the originals. Size 1
    only subsamples.

    Args:
      x: maps `[N, H, W, C]`.
      kernel_size: taps of the filter, 1 to 7.
      strides: sampling strides.
      padding: see `ops.padding.WindowPadding`.

    Returns:
      `[N, ceil(H / stride), ceil(W / stride), C]`.

    Raises:
      ConfigError: unknown filter size or padding.
      ShapeError: `x` is not floating-point `[N, H, W, C]`, or the map is too small.

    Source: Zhang 2019 (arXiv 1904.11486), section 3.2 (BlurPool).
    """
    sizes, steps = pair(kernel_size, "kernel_size"), pair(strides, "strides")
    rows, columns = binomial_taps(sizes[0]), binomial_taps(sizes[1])
    check_images(x)
    padded = pad_windows(x, sizes, steps, padding)
    if sizes == (1, 1):
        return padded[:, :: steps[0], :: steps[1]]
    return _blur_axis(_blur_axis(padded, 1, rows, steps[0]), 2, columns, steps[1])


def adaptive_blur(x: jax.Array, weights: jax.Array, padding: Padding = "CIRCULAR") -> jax.Array:
    """Filters each position with its own weights.

    Args:
      x: maps `[N, H, W, C]`.
      weights: `[N, H, W, G, kh, kw]` with odd kh and kw. Channel c uses group c // (C / G).
      padding: how the map continues beyond its border.

    Returns:
      `[N, H, W, C]`: weighted sums over the neighbourhood of each position (cross-correlation).

    Raises:
      ShapeError: the groups do not divide the channels, a filter size is even, or the map is smaller than
        the padding.
      ConfigError: unknown padding.

    Source: DDAC, Zou et al. 2020 (arXiv 2008.09604).
    """
    n, h, w, c = x.shape
    groups, rows, columns = weights.shape[3:]
    if c % groups or not rows % 2 == columns % 2 == 1:
        raise ShapeError(
            "an adaptive blur needs odd filter sizes and a number of channels that is a multiple of the "
            f"groups, got a {rows} x {columns} filter, {c} channels and {groups} groups."
        )
    padded = pad(x, (same_padding(rows), same_padding(columns)), padding)
    padded = padded.reshape(n, *padded.shape[1:3], groups, c // groups)
    total = sum(
        padded[:, i : i + h, j : j + w] * weights[..., i, j, None]
        for i in range(rows)
        for j in range(columns)
    )
    return jnp.asarray(total).reshape(n, h, w, c)

"""Binomial low-pass filters (Zhang 2019, arXiv 1904.11486): antialiasing by a short blur."""

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.ops.padding import Padding, check_padding, pad, same_padding

LARGEST_FILTER = 7


def binomial_taps(size: int) -> np.ndarray:
    """The normalised binomial filter of 1 to 7 taps, float64: 2 is [1, 1] / 2, 3 is [1, 2, 1] / 4.

    Raises:
      ConfigError: size outside 1..7, the range of the originals.
    """
    if not 1 <= size <= LARGEST_FILTER:
        raise ConfigError(f"blur filters have 1 to {LARGEST_FILTER} taps, got {size}.")
    taps = np.ones(1)
    for _ in range(size - 1):
        taps = np.convolve(taps, [1.0, 1.0])
    return taps / taps.sum()


def blur_axis(x: jax.Array, axis: int, taps: np.ndarray, stride: int) -> jax.Array:
    """Weighted sum of strided slices along one padded axis (VALID correlation)."""
    outputs = (x.shape[axis] - len(taps)) // stride + 1
    slices = (
        float(tap) * jax.lax.slice_in_dim(x, i, i + (outputs - 1) * stride + 1, stride, axis)
        for i, tap in enumerate(taps)
    )
    return sum(slices, start=jnp.zeros((), x.dtype))


def blur(x: jax.Array, size: int, stride: int = 1, padding: Padding = "circular") -> jax.Array:
    """Blurs each channel with the binomial filter of `size` taps and keeps every `stride`-th sample.

    [N, H, W, C] to [N, ceil(H / stride), ceil(W / stride), C]. Even filters are padded by one sample
    more behind than before, as in the originals. Size 1 is plain subsampling.

    Raises:
      ConfigError: filter size or padding mode unknown.
      ShapeError: the map is too small for the padding.
    """
    taps = binomial_taps(size)
    check_padding(padding)
    if size == 1:
        return x[:, ::stride, ::stride]
    padded = pad(x, (same_padding(size), same_padding(size)), padding)
    return blur_axis(blur_axis(padded, 1, taps, stride), 2, taps, stride)


def blur_ref(x: np.ndarray, size: int, stride: int = 1) -> np.ndarray:
    """Twin of circular `blur` by definition: correlation with the outer product, one tap at a time."""
    taps = binomial_taps(size)
    before = (size - 1) // 2
    y = np.zeros_like(x)
    for i in range(size):
        for j in range(size):
            y += taps[i] * taps[j] * np.roll(x, (before - i, before - j), axis=(1, 2))
    return y[:, ::stride, ::stride]

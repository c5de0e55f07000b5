"""Degrades images, for networks that learn to restore them."""

from functools import lru_cache

import numpy as np

from aliasfree_jax.ops.spectrum import filter_matrix, resample_weights, uniform_positions


def degrade(image: np.ndarray, rng: np.random.Generator, noise: float, reduction: int) -> np.ndarray:
    """Makes the input of a restoring network from `image` `[H, W, C]`; float32, not clipped.

    Args:
      image: uint8, or float32 in [0, 1].
      rng: generator of the noise.
      noise: standard deviation of normal noise, relative to images in [0, 1]; added last.
      reduction: factor by which each side is reduced without aliasing, before ideal interpolation enlarges it
        again. Together this is an ideal low-pass filter.
    """
    if noise == 0 and reduction == 1:
        return image
    result = image.astype(np.float32) / (255 if image.dtype == np.uint8 else 1)
    if reduction > 1:
        rows, columns = (_lowpass(side, reduction) for side in image.shape[:2])
        result = np.einsum("ph,hwc,qw->pqc", rows, result, columns, optimize=True)
    return (result + noise * rng.standard_normal(result.shape, np.float32)).astype(np.float32)


@lru_cache
def _lowpass(side: int, reduction: int) -> np.ndarray:
    weights = resample_weights(side, max(1, round(side / reduction)))
    return filter_matrix(side, uniform_positions(side, side), weights).astype(np.float32)

"""Small classifiers and batches for the tests of evaluation."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

WEIGHTS = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)


def smooth_noise(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Random images `[count, side, side, 3]` with a decreasing spectrum."""
    white = np.random.default_rng(seed).normal(size=(count, side, side, 3))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))[None, :, :, None]
    return np.fft.ifft2(np.fft.fft2(white, axes=(1, 2)) / (0.1 + frequency), axes=(1, 2)).real.astype(
        np.float32
    )


@jax.jit
def strided(images: jax.Array) -> jax.Array:
    """Reads every fourth sample. It aliases, so every shift may change its output."""
    return jax.nn.gelu(images[:, ::4, ::4]).mean((1, 2)) @ WEIGHTS


@jax.jit
def alias_free(images: jax.Array) -> jax.Array:
    """Mean of squares: invariant to circular shifts up to rounding (without the Nyquist frequency)."""
    return jnp.square(images).mean((1, 2)) @ WEIGHTS


def labelled(predict: Callable[..., Any], images: np.ndarray, margin: int = 0) -> dict[str, np.ndarray]:
    """A batch with the classifier's predictions as labels (for the centre of images with a margin)."""
    side = images.shape[1]
    inner = images[:, margin : side - margin, margin : side - margin]
    label = np.asarray(predict(inner)).argmax(-1)
    return {"image": images, "label": label, "mask": np.ones(len(images))}

"""Small classifiers and batches that the tests of evaluation share."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

WEIGHTS = np.random.default_rng(1).normal(size=(3, 5)).astype(np.float32)


def smooth_noise(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Random images [count, side, side, 3] with a spectrum that falls."""
    white = np.random.default_rng(seed).normal(size=(count, side, side, 3))
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))[None, :, :, None]
    return np.fft.ifft2(np.fft.fft2(white, axes=(1, 2)) / (0.1 + frequency), axes=(1, 2)).real.astype(
        np.float32
    )


@jax.jit
def strided(images: jax.Array) -> jax.Array:
    """Reads every fourth sample: aliases, so no shift is safe."""
    return jax.nn.gelu(images[:, ::4, ::4]).mean((1, 2)) @ WEIGHTS


@jax.jit
def alias_free(images: jax.Array) -> jax.Array:
    """Mean of squares: exactly invariant to every circular shift (without Nyquist frequency), to rounding."""
    return jnp.square(images).mean((1, 2)) @ WEIGHTS


def labelled(predict: Callable[..., Any], images: np.ndarray, margin: int = 0) -> dict[str, np.ndarray]:
    """A batch whose labels are the classifier's own answers (for the centre of images with a margin)."""
    side = images.shape[1]
    inner = images[:, margin : side - margin, margin : side - margin]
    label = np.asarray(predict(inner)).argmax(-1)
    return {"image": images, "label": label, "mask": np.ones(len(images))}

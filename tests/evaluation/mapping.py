"""Tiny networks whose outputs are maps, with images and masks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from classifiers import smooth_noise

SIDE = 16
LEVELS = np.float32([-0.8, 0.0, 0.8])  # grey values of the three classes


@jax.jit
def smoothing(images: jax.Array) -> jax.Array:
    """A circular convolution along both axes: commutes with every shift."""
    for axis in (1, 2):
        images = (jnp.roll(images, 1, axis) + 2 * images + jnp.roll(images, -1, axis)) / 4
    return images


@jax.jit
def classes(images: jax.Array) -> jax.Array:
    """The nearest level of the smoothed grey value: logits of three classes; commutes with rolls."""
    return -jnp.square(smoothing(images)[..., :1] - LEVELS)


def strided(network: Callable[[jax.Array], jax.Array]) -> Callable[[jax.Array], jax.Array]:
    """The network on every third pixel, enlarged by repetition: every shift may change its output."""
    return jax.jit(lambda x: jnp.repeat(jnp.repeat(network(x)[:, ::3, ::3], 3, 1), 3, 2)[:, :SIDE, :SIDE])


def target_scenes(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images of blobs with two grey values on a noisy background, and masks with ignored (255) borders."""
    rng, label = np.random.default_rng(2), np.zeros((count, SIDE, SIDE), int)
    rows, columns = np.mgrid[:SIDE, :SIDE]
    for mask in label:
        for k in (1, 2):
            row, column = rng.integers(4, SIDE - 4, 2)
            distance = np.hypot(rows - row, columns - column)
            mask[distance < 4.2] = 255
            mask[distance < 3.2] = k
    known = np.where(label == 255, 0, label)
    images = LEVELS[known][..., None] + 0.4 * rng.normal(size=(count, SIDE, SIDE, 3))
    return images.astype(np.float32), label


def images_of(count: int, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """Normalised images; their values were in [0, 1] before."""
    noise = smooth_noise(count, SIDE)
    low, high = noise.min(), noise.max()
    return ((0.1 + 0.8 * (noise - low) / (high - low) - mean) / np.asarray(std)).astype(np.float32)

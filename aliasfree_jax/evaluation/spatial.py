"""Rotations, scalings and translations of the image, with a border of nothing: the spatial attack.

After Engstrom et al., *Exploring the landscape of spatial robustness* (ICML 2019), whose code the alias-free
paper's authors used.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.evaluation.shift_sets import Grid, product
from aliasfree_jax.evaluation.shifting import NOTHING, Fill, centre, check_size
from aliasfree_jax.ops.shift import bilinear_sample

# Largest translation of the original, as a share of the side, at constraint c: (c / 10) / 28.
_TRANSLATION = 1 / 280


@dataclass(frozen=True)
class Warp:
    """Rotates about the centre, scales and moves, in one bilinear interpolation; `fill` lies outside.

    Parameters of an image: (down, right) in pixels, rotation in degrees (clockwise as seen on the screen),
    natural logarithm of the enlargement.

    Attributes:
      fill: what lies outside; for black, (0 - mean) / std of the normalisation.
      stretched: sample positions as the original has them, which enlarge the image by N / (N - 1) and so
        resample it even where nothing moves; else (0, 0, 0, 0) changes no bit.
    """

    fill: Fill = NOTHING
    stretched: bool = False
    margin: int = 0
    parameters: int = 4

    def move(self, images: jax.Array, where: jax.Array) -> jax.Array:
        """See `Shifting.move`."""
        images = centre(images, self.margin)
        height, width = images.shape[1:3]
        down, right, degrees, log_scale = (where[:, k, None, None] for k in range(4))
        rows, columns = (self._positions(side) for side in (height, width))
        y, x = rows[None, :, None] - down, columns[None, None, :] - right
        angle, shrink = jnp.deg2rad(degrees), jnp.exp(-log_scale)
        source_y = shrink * (jnp.cos(angle) * y - jnp.sin(angle) * x) + (height - 1) / 2
        source_x = shrink * (jnp.sin(angle) * y + jnp.cos(angle) * x) + (width - 1) / 2
        outside = jnp.asarray(self.fill, images.dtype)
        return bilinear_sample(images - outside, source_y, source_x) + outside

    def _positions(self, side: int) -> np.ndarray:
        """Where the samples of a side lie, from its centre, in pixels."""
        positions = np.arange(side, dtype=np.float32) - (side - 1) / 2
        return positions * np.float32(side / (side - 1)) if self.stretched else positions

    def check(self, shape: tuple[int, ...], where: np.ndarray) -> None:
        """See `Shifting.check`."""
        side = min(shape[1:3]) - 2 * self.margin
        check_size(where[..., :2], side, f"nothing is left of a side of {side}")


@dataclass(frozen=True)
class Space:
    """What the attack may do, each way.

    Attributes:
      translation: pixels.
      rotation: degrees.
      log_scale: natural logarithm of the enlargement.
    """

    translation: float
    rotation: float = 0.0
    log_scale: float = 0.0

    @property
    def high(self) -> tuple[float, float, float, float]:
        """The corner of the box of parameters; the other one is its negative."""
        return self.translation, self.translation, self.rotation, self.log_scale

    def grid(self, translations: int, rotations: int = 1, scales: int = 1) -> Grid:
        """Evenly spaced parameters, both ends included: so many of each (both axes are moved)."""
        moved, turned, scaled = (
            np.linspace(-most, most, number) if number > 1 else np.zeros(1)
            for most, number in (
                (self.translation, translations),
                (self.rotation, rotations),
                (self.log_scale, scales),
            )
        )
        return Grid(product(moved, moved, turned, scaled).astype(np.float32))


def original_space(side: int, constraint: float, *, rotation: bool) -> Space:
    """The original's space at a `constraint` c: translation by c / 280 of the side, rotation by c degrees."""
    return Space(side * constraint * _TRANSLATION, constraint if rotation else 0.0)

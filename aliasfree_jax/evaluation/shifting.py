"""How an image is moved: the first of an evaluation's three choices.

All ways have one interface, `Shifting`. Parameters are one row an image, in pixels (down, right), of the
content: a window moves the other way. Ways with a margin take images that are wider than the network's input
by so many pixels on each side and cut the input out of them; the unshifted view is then the centre.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.ops.shift import bilinear_sample, fractional_shift, integer_shift

Fill = tuple[float, ...]  # what lies outside an image: one number, or one a channel
NOTHING: Fill = (0.0,)


def centre(images: Any, margin: int) -> Any:
    """Images [N, H, W, C] without the `margin` on each side.

    Raises:
      ShapeError: images smaller than their margins.
    """
    if images.ndim != 4 or min(images.shape[1:3]) <= 2 * margin:
        raise ShapeError(
            f"expected images [N, H, W, C] of more than {2 * margin} pixels a side (the input, and a margin "
            f"of {margin} on each side), got {list(images.shape)}."
        )
    if not margin:
        return images
    return images[:, margin:-margin, margin:-margin]


@dataclass(frozen=True)
class Shifting:
    """A way to move images; hashable, so that one compiled function serves all calls.

    Attributes:
      margin: pixels on each side of the images that are no part of the unshifted view.
      parameters: numbers that say where one image goes.
      whole: takes whole pixels only.
    """

    margin: int = 0
    parameters: ClassVar[int] = 2
    whole: ClassVar[bool] = False

    @property
    def view(self) -> Hashable:
        """The same for all ways with the same unshifted view."""
        return self.margin

    def unshifted(self, images: Any) -> Any:
        """The view of images [N, H, W, C] where nothing moves."""
        return centre(images, self.margin)

    def move(self, images: jax.Array, where: jax.Array) -> jax.Array:
        """[N, H, W, C] moved by `where` [N, parameters]; of the shape of `unshifted`."""
        raise NotImplementedError

    def along(self, maps: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Moves output maps as their images are moved; by -where, those of moved images back.

        Args:
          maps: [N, H, W, K], of the size of the unshifted views.
          where: [N, parameters].

        Returns:
          The moved maps, and where [N, H, W] they are known: True if it did not come from outside.

        Raises:
          ConfigError: this way cannot be undone.
        """
        raise ConfigError(
            f"maps cannot be moved back after {type(self).__name__}: measure circular shifts, zero-filled "
            "shifts, or windows at whole pixels (crop)."
        )

    def limit(self, side: int) -> tuple[float, str]:
        """The largest shift of an unshifted view with this shorter side, in pixels, and why."""
        raise NotImplementedError

    def check(self, shape: tuple[int, ...], where: np.ndarray) -> None:
        """Raises `ConfigError` if images [N, H, W, C] of this shape cannot be moved by `where`."""
        if self.whole and not np.issubdtype(where.dtype, np.integer):
            name = type(self).__name__
            raise ConfigError(
                f"{name} moves by whole pixels only, got {where.dtype}; Bilinear takes fractions."
            )
        limit, meaning = self.limit(min(shape[1:3]) - 2 * self.margin)
        largest = float(np.abs(where[..., :2]).max(initial=0))
        if largest > limit:
            raise ConfigError(f"a shift of {largest:g} pixels is too large: {meaning}.")


@dataclass(frozen=True)
class Circular(Shifting):
    """Round the circle: integers move samples and change no bit, real numbers interpolate ideally."""

    def move(self, images: jax.Array, where: jax.Array) -> jax.Array:
        """See `Shifting.move`."""
        return self.along(self.unshifted(images), where)[0]

    def along(self, maps: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See `Shifting.along`."""
        move = integer_shift if jnp.issubdtype(where.dtype, jnp.integer) else fractional_shift
        return move(maps, where), jnp.ones(maps.shape[:3], bool)

    def limit(self, side: int) -> tuple[float, str]:
        """See `Shifting.limit`."""
        return side, f"the shorter side of the images is {side}, once round the circle"


def _overlapping(maps: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
    """`maps` [N, H, W, K] rolled, and True where nothing came round the circle, [N, H, W]."""
    height, width = maps.shape[1:3]
    row = jnp.arange(height) - where[:, :1]  # [N, H]: where a row comes from
    column = jnp.arange(width) - where[:, 1:]
    inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None]
    return integer_shift(maps, where), inside


@dataclass(frozen=True)
class ZeroFilled(Shifting):
    """By whole pixels; what is behind the border is `fill`, and what leaves is lost."""

    fill: Fill = NOTHING
    whole: ClassVar[bool] = True

    def move(self, images: jax.Array, where: jax.Array) -> jax.Array:
        """See `Shifting.move`."""
        images = self.unshifted(images)
        moved, inside = self.along(images, where)
        return jnp.where(inside[..., None], moved, jnp.asarray(self.fill, images.dtype))

    def along(self, maps: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See `Shifting.along`."""
        return _overlapping(maps, where)

    def limit(self, side: int) -> tuple[float, str]:
        """See `Shifting.limit`."""
        return side - 1, f"nothing of an image with a side of {side} would be left"


@dataclass(frozen=True)
class Crop(Shifting):
    """The window of the network's input in a larger image: new content comes in at the border."""

    whole: ClassVar[bool] = True

    def move(self, images: jax.Array, where: jax.Array) -> jax.Array:
        """See `Shifting.move`."""
        height, width = self.unshifted(images).shape[1:3]
        start = self.margin - where

        def window(image: jax.Array, at: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice(image, (at[0], at[1], 0), (height, width, image.shape[2]))

        return jax.vmap(window)(images, start)

    def along(self, maps: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See `Shifting.along`."""
        return _overlapping(maps, where)

    def limit(self, side: int) -> tuple[float, str]:
        """See `Shifting.limit`."""
        return self.margin, f"the images reach {self.margin} pixels beyond the window"


@dataclass(frozen=True)
class Bilinear(Shifting):
    """By fractions of a pixel with bilinear interpolation.

    With a margin, a window in a larger image; without, what is behind the border is `fill`.
    """

    fill: Fill = NOTHING

    def move(self, images: jax.Array, where: jax.Array) -> jax.Array:
        """See `Shifting.move`."""
        height, width = self.unshifted(images).shape[1:3]
        shape = (images.shape[0], height, width)
        where = where.astype(jnp.float32)
        rows = self.margin + jnp.arange(height)[None, :, None] - where[:, 0, None, None]
        columns = self.margin + jnp.arange(width)[None, None, :] - where[:, 1, None, None]
        outside = jnp.asarray(self.fill, images.dtype)
        positions = jnp.broadcast_to(rows, shape), jnp.broadcast_to(columns, shape)
        return bilinear_sample(images - outside, *positions) + outside

    def limit(self, side: int) -> tuple[float, str]:
        """See `Shifting.limit`."""
        return Crop(self.margin).limit(side) if self.margin else (side, ZeroFilled().limit(side)[1])


@dataclass(frozen=True)
class Warp(Shifting):
    """Rotates about the centre, scales and moves, in one bilinear interpolation; `fill` lies outside.

    After Engstrom et al., *Exploring the landscape of spatial robustness* (ICML 2019). Parameters of an
    image: (down, right) in pixels, rotation in degrees (clockwise as seen on the screen), natural logarithm
    of the enlargement. The content is turned and scaled first, then moved.

    Attributes:
      fill: what lies outside; for black, (0 - mean) / std of the normalisation.
      border: pixels of `fill` that are put around the images; a part of the unshifted view.
      stretched: sample positions as the alias-free authors' code has them, N / (N - 1) apart, which shrink
        the image and so resample it even where nothing moves; else (0, 0, 0, 0) changes no bit.
    """

    fill: Fill = NOTHING
    border: int = 0
    stretched: bool = False
    parameters: ClassVar[int] = 4

    @property
    def view(self) -> Hashable:
        """See `Shifting.view`."""
        return (self.margin, self.border, self.fill) if self.border else self.margin

    def unshifted(self, images: Any) -> Any:
        """See `Shifting.unshifted`."""
        images = centre(images, self.margin)
        if not self.border:
            return images
        around, outside = (self.border, self.border), jnp.asarray(self.fill, images.dtype)
        return jnp.pad(images - outside, ((0, 0), around, around, (0, 0))) + outside

    def move(self, images: jax.Array, where: jax.Array) -> jax.Array:
        """See `Shifting.move`."""
        images = self.unshifted(images)
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

    def limit(self, side: int) -> tuple[float, str]:
        """See `Shifting.limit`."""
        side += 2 * self.border
        return side, f"nothing is left of a side of {side}"

"""Kinds of shifts: the first of an evaluation's three choices.

All kinds have the interface `Shifting`. The parameters have one row per image. They move the content down and
right, in pixels; a window moves in the opposite direction. Kinds with a margin need images that are larger
than the network's input on each side, and cut the input out of them. The unshifted view is the centre.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.ops.shift import bilinear_sample, fractional_shift, integer_shift

Fill = tuple[float, ...]  # value outside an image: one number, or one per channel
NOTHING: Fill = (0.0,)


def centre(images: Any, margin: int) -> Any:
    """Removes a margin on each side of images.

    Args:
      images: `[N, H, W, C]`.
      margin: Width of the margin in pixels.

    Raises:
      ShapeError: The images are smaller than their margins.
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
    """Base class of all kinds of shifts.

    Instances are hashable, so that all calls share one compiled function.

    Attributes:
      margin: Pixels on each side of the images outside the unshifted view.
      parameters: Numbers per shift.
      whole: Only whole pixels are possible.
    """

    margin: int = 0
    parameters: ClassVar[int] = 2
    whole: ClassVar[bool] = False

    @property
    def view(self) -> Hashable:
        """Identifies the unshifted view: equal for all kinds of shifts with the same unshifted view."""
        return self.margin

    def unshifted(self, images: Any) -> Any:
        """Returns the unshifted view of images `[N, H, W, C]`."""
        return centre(images, self.margin)

    def move(self, images: jax.Array, where: jax.Array) -> jax.Array:
        """Moves images.

        Args:
          images: `[N, H, W, C]` with their margins.
          where: Shift of each image, `[N, parameters]`.

        Returns:
          Images with the shape of the unshifted view.
        """
        raise NotImplementedError

    def along(self, maps: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Moves output maps in the same way as images. With -where, it moves the maps of moved images back.

        Args:
          maps: `[N, H, W, K]`, with the size of the unshifted views.
          where: Shift of each map, `[N, parameters]`.

        Returns:
          The moved maps, and which pixels are known, `[N, H, W]`: False for pixels from outside the map.

        Raises:
          ConfigError: This kind of shifts cannot be undone.
        """
        raise ConfigError(
            f"maps cannot be moved back after {type(self).__name__}: measure circular shifts, zero-filled "
            "shifts, or windows at whole pixels (crop)."
        )

    def limit(self, side: int) -> tuple[float, str]:
        """Largest possible shift in pixels for a view with this shorter side, and the reason in words."""
        raise NotImplementedError

    def check(self, shape: tuple[int, ...], where: np.ndarray) -> None:
        """Raises `ConfigError` if images of this shape `[N, H, W, C]` cannot be moved by `where`."""
        if self.whole and not np.issubdtype(where.dtype, np.integer):
            name = type(self).__name__
            raise ConfigError(
                f"{name} needs whole pixels, got {where.dtype}: use Bilinear for fractions of a pixel."
            )
        limit, meaning = self.limit(min(shape[1:3]) - 2 * self.margin)
        largest = float(np.abs(where[..., :2]).max(initial=0))
        if largest > limit:
            raise ConfigError(f"a shift of {largest:g} pixels is too large: {meaning}.")


@dataclass(frozen=True)
class Circular(Shifting):
    """Circular shifts. Integer shifts move samples exactly; real-valued shifts use ideal interpolation.

    Source: Chaman and Dokmanic 2021 (arXiv 2011.14214) for whole pixels, Michaeli et al. 2023 (arXiv
    2303.08085) for fractions.
    """

    def move(self, images: jax.Array, where: jax.Array) -> jax.Array:
        """See `Shifting.move`."""
        return self.along(self.unshifted(images), where)[0]

    def along(self, maps: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
        """See `Shifting.along`."""
        move = integer_shift if jnp.issubdtype(where.dtype, jnp.integer) else fractional_shift
        return move(maps, where), jnp.ones(maps.shape[:3], bool)

    def limit(self, side: int) -> tuple[float, str]:
        """See `Shifting.limit`."""
        return (
            side,
            f"the shorter side of the images has {side} pixels, and a circular shift by it changes nothing",
        )


def _overlapping(maps: jax.Array, where: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rolls maps `[N, H, W, K]`, and marks pixels that did not wrap around with True, `[N, H, W]`."""
    height, width = maps.shape[1:3]
    row = jnp.arange(height) - where[:, :1]  # [N, H]: the source of each row
    column = jnp.arange(width) - where[:, 1:]
    inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None]
    return integer_shift(maps, where), inside


@dataclass(frozen=True)
class ZeroFilled(Shifting):
    """Shifts by whole pixels. `fill` enters at one border; content that leaves at the other is lost.

    Source: this package.

    Attributes:
      fill: Value outside the image.
    """

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
        return side - 1, f"nothing of an image with a side of {side} pixels would be left"


@dataclass(frozen=True)
class Crop(Shifting):
    """Windows of the input's size in a larger image: new content enters at the border.

    Source: Zhang 2019 (arXiv 1904.11486), consistency.
    """

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
        return self.margin, f"the images extend {self.margin} pixels beyond the window"


@dataclass(frozen=True)
class Bilinear(Shifting):
    """Shifts by fractions of a pixel with bilinear interpolation.

    With a margin, the result is a window of a larger image. Without one, `fill` enters at the border.

    Source: Michaeli and Soudry 2025 (arXiv 2510.22673), the metrics of AFT.

    Attributes:
      fill: Value outside the image.
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
    """Rotates about the centre, scales and shifts, with one bilinear interpolation.

    The parameters of an image are: down and right in pixels, rotation in degrees (clockwise on the screen),
    natural logarithm of the enlargement. The content is rotated and scaled first, then shifted.

    Source: Engstrom et al. 2019 (arXiv 1712.02779).

    Attributes:
      fill: Value outside the image; for black: (0 - mean) / std of the normalisation.
      border: Pixels of `fill` that are added around the images. They belong to the unshifted view.
      stretched: Sample positions as in the code of the alias-free authors, N / (N - 1) apart. They shrink the
        image, so that it is resampled even without a shift. False: (0, 0, 0, 0) changes no bit.
      parameters: See `Shifting`.
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
        """Positions of the samples along a side, from its centre, in pixels."""
        positions = np.arange(side, dtype=np.float32) - (side - 1) / 2
        return positions * np.float32(side / (side - 1)) if self.stretched else positions

    def limit(self, side: int) -> tuple[float, str]:
        """See `Shifting.limit`."""
        side += 2 * self.border
        return side, f"nothing of an image with a side of {side} pixels would be left"

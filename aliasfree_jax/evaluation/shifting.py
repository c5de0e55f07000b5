"""How an image is moved: the first of an evaluation's three choices.

All ways have one interface, `Shifting`. Parameters are one row an image, in pixels (down, right), of the
content: a window moves the other way. Ways with a margin take images that are wider than the network's input
by so many pixels on each side and cut the input out of them; the unshifted view is then the centre.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.evaluation.placement import divided
from aliasfree_jax.ops.shift import bilinear_sample, fractional_shift, integer_shift

Fill = tuple[float, ...]  # what lies outside an image: one number, or one a channel
NOTHING: Fill = (0.0,)


class Shifting(Hashable, Protocol):
    """A way to move images; hashable, so that one compiled function serves all calls.

    Attributes:
      margin: pixels on each side of the images that are no part of the unshifted view.
      parameters: numbers that say where one image goes.
    """

    @property
    def margin(self) -> int:
        """Pixels on each side of the images that are no part of the unshifted view."""

    @property
    def parameters(self) -> int:
        """Numbers that say where one image goes."""

    def move(self, images: jax.Array, where: jax.Array) -> jax.Array:
        """[N, H, W, C] moved by `where` [N, parameters]: [N, H - 2 margin, W - 2 margin, C]."""

    def check(self, shape: tuple[int, ...], where: np.ndarray) -> None:
        """Raises `ConfigError` if images [N, H, W, C] of this shape cannot be moved by `where`."""


def centre(images: Any, margin: int) -> Any:
    """The unshifted view of images [N, H, W, C].

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


def check_size(where: np.ndarray, limit: float, meaning: str) -> None:
    """Raises `ConfigError`, with what `limit` means, if a shift in `where` is larger; pixels."""
    largest = float(np.abs(where).max(initial=0))
    if largest > limit:
        raise ConfigError(f"a shift of {largest:g} pixels is too large: {meaning}.")


def _check_whole(where: np.ndarray, name: str) -> None:
    if not np.issubdtype(where.dtype, np.integer):
        raise ConfigError(f"{name} moves by whole pixels only, got {where.dtype}; Bilinear takes fractions.")


@dataclass(frozen=True)
class Circular:
    """Round the circle: integers move samples and change no bit, real numbers interpolate ideally."""

    margin: int = 0
    parameters: int = 2

    def move(self, images: jax.Array, where: jax.Array) -> jax.Array:
        """See `Shifting.move`."""
        images = centre(images, self.margin)
        if jnp.issubdtype(where.dtype, jnp.integer):
            return integer_shift(images, where)
        return fractional_shift(images, where)

    def check(self, shape: tuple[int, ...], where: np.ndarray) -> None:
        """See `Shifting.check`."""
        side = min(shape[1:3]) - 2 * self.margin
        check_size(where, side, f"the shorter side of the images is {side}, once round the circle")


@dataclass(frozen=True)
class ZeroFilled:
    """By whole pixels; what is behind the border is `fill`, and what leaves is lost."""

    fill: Fill = NOTHING
    margin: int = 0
    parameters: int = 2

    def move(self, images: jax.Array, where: jax.Array) -> jax.Array:
        """See `Shifting.move`."""
        images = centre(images, self.margin)
        height, width = images.shape[1:3]
        row = jnp.arange(height) - where[:, :1]  # [N, H]: where a row comes from
        column = jnp.arange(width) - where[:, 1:]
        inside = ((row >= 0) & (row < height))[:, :, None] & ((column >= 0) & (column < width))[:, None]
        moved = integer_shift(images, where)
        return jnp.where(inside[..., None], moved, jnp.asarray(self.fill, images.dtype))

    def check(self, shape: tuple[int, ...], where: np.ndarray) -> None:
        """See `Shifting.check`."""
        _check_whole(where, "ZeroFilled")
        side = min(shape[1:3]) - 2 * self.margin
        check_size(where, side - 1, f"nothing of an image with a side of {side} would be left")


@dataclass(frozen=True)
class Crop:
    """The window of the network's input in a larger image: new content comes in at the border."""

    margin: int
    parameters: int = 2

    def move(self, images: jax.Array, where: jax.Array) -> jax.Array:
        """See `Shifting.move`."""
        height, width = centre(images, self.margin).shape[1:3]
        start = self.margin - where

        def window(image: jax.Array, at: jax.Array) -> jax.Array:
            return jax.lax.dynamic_slice(image, (at[0], at[1], 0), (height, width, image.shape[2]))

        return jax.vmap(window)(images, start)

    def check(self, shape: tuple[int, ...], where: np.ndarray) -> None:
        """See `Shifting.check`."""
        _check_whole(where, "Crop")
        check_size(where, self.margin, f"the images reach {self.margin} pixels beyond the window")


@dataclass(frozen=True)
class Bilinear:
    """By fractions of a pixel with bilinear interpolation.

    With a margin, a window in a larger image; without, what is behind the border is `fill`.
    """

    margin: int = 0
    fill: Fill = NOTHING
    parameters: int = 2

    def move(self, images: jax.Array, where: jax.Array) -> jax.Array:
        """See `Shifting.move`."""
        height, width = centre(images, self.margin).shape[1:3]
        shape = (images.shape[0], height, width)
        where = where.astype(jnp.float32)
        rows = self.margin + jnp.arange(height)[None, :, None] - where[:, 0, None, None]
        columns = self.margin + jnp.arange(width)[None, None, :] - where[:, 1, None, None]
        outside = jnp.asarray(self.fill, images.dtype)
        positions = jnp.broadcast_to(rows, shape), jnp.broadcast_to(columns, shape)
        return bilinear_sample(images - outside, *positions) + outside

    def check(self, shape: tuple[int, ...], where: np.ndarray) -> None:
        """See `Shifting.check`."""
        if self.margin:
            check_size(where, self.margin, f"the images reach {self.margin} pixels beyond the window")
        else:
            side = min(shape[1:3])
            check_size(where, side, f"nothing of an image with a side of {side} would be left")


@partial(jax.jit, static_argnums=(0, 1))
def moved_rows(
    shifting: Shifting, mesh: Mesh | None, images: jax.Array, rows: jax.Array, where: jax.Array
) -> jax.Array:
    """Those of `images` [B, H, W, C] that `rows` [N] names, each moved by its own `where` [N, parameters].

    The work is divided over the devices of `mesh`, see `placement.mesh_of`.
    """
    return divided(shifting.move(images[rows], where), mesh)

"""Which shifts an image undergoes: the second of an evaluation's three choices.

A set hands out, for a batch of images, `count` shifts each. `Grid` is the same list for all; `square`,
`fractions` and others make such lists. The random sets draw for every image from the key and the image's
place in the data set, so that results do not depend on the batch size; a `Stream` draws for every batch, as
some of the originals do.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.errors import ConfigError


class ShiftSet(Protocol):
    """Shifts for every image of a batch."""

    @property
    def count(self) -> int:
        """Shifts an image."""

    def draw(self, numbers: np.ndarray) -> np.ndarray:
        """The shifts [count, B, parameters] of the images with these `numbers` [B] in the data set."""


@dataclass(frozen=True, eq=False)
class Grid:
    """The same shifts for all images: `points` [K, parameters], integers for whole pixels."""

    points: np.ndarray

    def __post_init__(self) -> None:
        points = np.asarray(self.points)
        if points.ndim != 2 or not len(points):
            raise ConfigError(f"expected a list of shifts [K, parameters], K > 0, got {list(points.shape)}.")
        kind = np.int32 if np.issubdtype(points.dtype, np.integer) else np.float32
        object.__setattr__(self, "points", points.astype(kind))

    @property
    def count(self) -> int:
        """Shifts an image."""
        return len(self.points)

    def draw(self, numbers: np.ndarray) -> np.ndarray:
        """See `ShiftSet.draw`."""
        return np.broadcast_to(self.points[:, None], (self.count, len(numbers), self.points.shape[1]))

    def scattered(self) -> "Grid":
        """The same shifts in a fixed random order: neighbours fail together, and far ones are seen sooner."""
        return Grid(self.points[np.random.default_rng(0).permutation(self.count)])


def product(*axes: np.ndarray) -> np.ndarray:
    """All combinations of the numbers on the axes, [K, len(axes)], the last one fastest."""
    return np.stack([grid.ravel() for grid in np.meshgrid(*axes, indexing="ij")], axis=-1)


def _rings(radius: int, side: int | None) -> np.ndarray:
    """All pairs of whole numbers from -radius to radius, or of a circle of `side` numbers, (0, 0) first."""
    reach = np.arange(-radius, radius + 1)
    if side is not None and len(reach) > side:
        reach = np.arange(-(side // 2), side - side // 2)
    points = product(reach, reach)
    return points[np.argsort(np.abs(points).max(axis=1), kind="stable")]


def square(radius: int, side: int | None = None) -> Grid:
    """Every whole-pixel shift of up to `radius` each way but (0, 0), in rings from the inside out.

    Args:
      radius: pixels, at least 1.
      side: of the images, where shifts go round the circle: each roll then comes once.
    """
    _check_radius(radius)
    return Grid(_rings(radius, side)[1:])


def halves(radius: int, side: int | None = None) -> Grid:
    """Every multiple of half a pixel of up to `radius` each way, but whole pixels; as `square`."""
    _check_radius(radius)
    steps = _rings(2 * radius, None if side is None else 2 * side)
    return Grid(steps[(steps % 2).any(axis=1)] / 2)


def fractions(n: int) -> Grid:
    """All (p, q) / n of a pixel with p and q in 0 ... n - 1, not both 0."""
    if n < 2:
        raise ConfigError(f"fractions of a pixel are multiples of 1/n with n >= 2, got {n}.")
    return Grid(product(np.arange(n), np.arange(n))[1:] / n)


def _check_radius(radius: int) -> None:
    if radius < 1:
        raise ConfigError(f"the radius of a set of shifts is at least 1 pixel, got {radius}.")


def _nonzero_pairs(key: jax.Array, count: int, side: jax.Array | int, zero: jax.Array | int) -> jax.Array:
    """`count` pairs, uniform over the side x side grid 0 ... side - 1 without the cell number `zero`."""
    cell = jax.random.randint(key, (count,), 0, side * side - 1)
    cell = cell + (cell >= zero)
    return jnp.stack([cell // side, cell % side], axis=-1)


def _integer(key: jax.Array, count: int, max_shift: jax.Array) -> jax.Array:
    side = 2 * max_shift + 1
    return _nonzero_pairs(key, count, side, side * side // 2) - max_shift


def _on_grid(key: jax.Array, count: int, max_shift: jax.Array, grid: jax.Array) -> jax.Array:
    whole_key, part_key = jax.random.split(key)
    whole = jax.random.randint(whole_key, (count, 2), -max_shift, max_shift + 1)
    return whole + _nonzero_pairs(part_key, count, grid, 0) / grid


def _in_box(key: jax.Array, count: int, low: jax.Array, high: jax.Array) -> jax.Array:
    return jax.random.uniform(key, (count, low.shape[0]), minval=low, maxval=high)


@partial(jax.jit, static_argnums=(0, 2))
def _for_each_image(
    draw: Callable[..., jax.Array], key: jax.Array, count: int, numbers: jax.Array, arguments: tuple
) -> jax.Array:
    keys = jax.vmap(partial(jax.random.fold_in, key))(numbers)
    return jax.vmap(lambda image_key: draw(image_key, count, *arguments), out_axes=1)(keys)


@dataclass(frozen=True, eq=False)
class Drawn:
    """`count` random shifts an image; made by `random_integer`, `random_fraction`, `random_in_box`."""

    count: int
    key: jax.Array
    distribution: Callable[..., jax.Array]
    arguments: tuple

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"shifts must be at least 1 an image, got {self.count}.")

    def draw(self, numbers: np.ndarray) -> np.ndarray:
        """See `ShiftSet.draw`."""
        places = jnp.asarray(numbers, jnp.int32)
        return np.asarray(_for_each_image(self.distribution, self.key, self.count, places, self.arguments))


def random_integer(count: int, max_shift: int, key: jax.Array) -> Drawn:
    """Uniform whole-pixel shifts, both axes in [-max_shift, max_shift], never (0, 0).

    Raises:
      ConfigError: count or max_shift below 1.
    """
    if max_shift < 1:
        raise ConfigError(f"integer shifts need max_shift of at least 1 pixel, got {max_shift}.")
    return Drawn(count, key, _integer, (max_shift,))


def random_fraction(count: int, max_shift: int, grid: int | None, key: jax.Array) -> Drawn:
    """Shifts by fractions of a pixel: both axes in [-max_shift, max_shift + 1).

    With a `grid` n, a uniform whole part in [-max_shift, max_shift] plus (p, q) / n, uniform over the
    n * n - 1 pairs of p, q in 0 ... n - 1 that are not both 0 (one axis may be shifted by whole
    pixels). Without, both axes are uniform real numbers.

    Raises:
      ConfigError: negative max_shift, or a grid coarser than half pixels.
    """
    if max_shift < 0 or (grid is not None and grid < 2):
        raise ConfigError(f"fractional shifts need max_shift >= 0 and grid >= 2, got {max_shift} and {grid}.")
    if grid is None:
        return random_in_box(count, (-max_shift, -max_shift), (max_shift + 1, max_shift + 1), key)
    return Drawn(count, key, _on_grid, (max_shift, grid))


def random_in_box(count: int, low: tuple[float, ...], high: tuple[float, ...], key: jax.Array) -> Drawn:
    """Uniform real numbers between `low` and `high`, one of each a parameter."""
    return Drawn(count, key, _in_box, (np.asarray(low, np.float32), np.asarray(high, np.float32)))


@dataclass(frozen=True, eq=False)
class Stream:
    """Shifts that a batch shares, from a generator of the caller's own, which goes on from batch to batch.

    Serves the originals' `np.random.randint`; two measurements may share a generator, and then draw in turn.
    """

    count: int
    next_shifts: Callable[[], np.ndarray]  # [count, parameters]

    def draw(self, numbers: np.ndarray) -> np.ndarray:
        """See `ShiftSet.draw`."""
        return Grid(self.next_shifts()).draw(numbers)

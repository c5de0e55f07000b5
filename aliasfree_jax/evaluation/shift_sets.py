"""Sets of shifts: the second of an evaluation's three choices.

A set returns `count` shifts for each image of a batch. A `Grid` has the same shifts for all images; `square`,
`fractions` and others make grids. Random sets draw shifts for each image from a key and the image's index in
the data set, so that results do not depend on the batch size. A `Stream` draws shifts for each batch, like
some of the original programs.
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
    """Interface of all sets of shifts."""

    @property
    def count(self) -> int:
        """Number of shifts per image."""

    def draw(self, numbers: np.ndarray) -> np.ndarray:
        """Returns the shifts of a batch.

        Args:
          numbers: Index of each image in the data set, `[B]`.

        Returns:
          The shifts `[count, B, parameters]`.
        """


@dataclass(frozen=True, eq=False)
class Grid:
    """The same shifts for all images.

    Source: this package.

    Attributes:
      points: The shifts `[K, parameters]`. Whole pixels are integers.

    Raises:
      ConfigError: `points` has another shape or is empty.
    """

    points: np.ndarray

    def __post_init__(self) -> None:
        points = np.asarray(self.points)
        if points.ndim != 2 or not len(points):
            raise ConfigError(f"expected a list of shifts [K, parameters], K > 0, got {list(points.shape)}.")
        kind = np.int32 if np.issubdtype(points.dtype, np.integer) else np.float32
        object.__setattr__(self, "points", points.astype(kind))

    @property
    def count(self) -> int:
        """Number of shifts per image."""
        return len(self.points)

    def draw(self, numbers: np.ndarray) -> np.ndarray:
        """See `ShiftSet.draw`."""
        return np.broadcast_to(self.points[:, None], (self.count, len(numbers), self.points.shape[1]))

    def scattered(self) -> "Grid":
        """The same shifts in a fixed random order.

        Neighbouring shifts often fail together, so that a random order finds a wrong class sooner.
        """
        return Grid(self.points[np.random.default_rng(0).permutation(self.count)])


def product(*axes: np.ndarray) -> np.ndarray:
    """All combinations of the numbers on the axes, `[K, len(axes)]`; the last axis changes fastest."""
    return np.stack([grid.ravel() for grid in np.meshgrid(*axes, indexing="ij")], axis=-1)


def _rings(radius: int, side: int | None) -> np.ndarray:
    """All pairs of whole numbers from -radius to radius, beginning with (0, 0); modulo `side` if given."""
    reach = np.arange(-radius, radius + 1)
    if side is not None and len(reach) > side:
        reach = np.arange(-(side // 2), side - side // 2)
    points = product(reach, reach)
    return points[np.argsort(np.abs(points).max(axis=1), kind="stable")]


def square(radius: int, side: int | None = None) -> Grid:
    """All whole-pixel shifts up to `radius` along each axis, except (0, 0), in rings from the inside out.

    Source: this package.

    Args:
      radius: Largest shift in pixels, at least 1.
      side: Side of the images, for circular shifts: each different roll then occurs once.

    Raises:
      ConfigError: `radius` is below 1.
    """
    _check_radius(radius)
    return Grid(_rings(radius, side)[1:])


def halves(radius: int, side: int | None = None) -> Grid:
    """All shifts by multiples of half a pixel up to `radius`, except whole pixels, in rings like `square`.

    Source: this package.

    Args:
      radius: Largest shift in pixels, at least 1.
      side: Side of the images, for circular shifts: each different shift then occurs once.

    Raises:
      ConfigError: `radius` is below 1.
    """
    _check_radius(radius)
    steps = _rings(2 * radius, None if side is None else 2 * side)
    return Grid(steps[(steps % 2).any(axis=1)] / 2)


def fractions(n: int) -> Grid:
    """All shifts (p, q) / n of a pixel with p and q in 0 ... n - 1, except (0, 0).

    Source: this package.

    Args:
      n: The denominator, at least 2.

    Raises:
      ConfigError: `n` is below 2.
    """
    if n < 2:
        raise ConfigError(f"fractions of a pixel are multiples of 1/n with n >= 2, got n = {n}.")
    return Grid(product(np.arange(n), np.arange(n))[1:] / n)


def _check_radius(radius: int) -> None:
    if radius < 1:
        raise ConfigError(f"the radius of a set of shifts must be at least 1 pixel, got {radius}.")


def _nonzero_pairs(key: jax.Array, count: int, side: jax.Array | int, zero: jax.Array | int) -> jax.Array:
    """`count` random pairs, uniform over a grid of side x side cells without the cell number `zero`."""
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
    """Random shifts of each image; made by `random_integer`, `random_fraction` and `random_in_box`.

    Source: this package.

    Attributes:
      count: Number of shifts per image.
      key: Random key; it is combined with the image's index in the data set.
      distribution: Function (key, count, *arguments) -> shifts `[count, parameters]`.
      arguments: Further arguments of the distribution.

    Raises:
      ConfigError: `count` is below 1.
    """

    count: int
    key: jax.Array
    distribution: Callable[..., jax.Array]
    arguments: tuple

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigError(f"shifts must be at least 1 per image, got {self.count}.")

    def draw(self, numbers: np.ndarray) -> np.ndarray:
        """See `ShiftSet.draw`."""
        places = jnp.asarray(numbers, jnp.int32)
        return np.asarray(_for_each_image(self.distribution, self.key, self.count, places, self.arguments))


def random_integer(count: int, max_shift: int, key: jax.Array) -> Drawn:
    """Random whole-pixel shifts, uniform on [-max_shift, max_shift] for both axes, except (0, 0).

    Source: this package.

    Args:
      count: Number of shifts per image.
      max_shift: Largest shift in pixels.
      key: Random key.

    Raises:
      ConfigError: `count` or `max_shift` is below 1.
    """
    if max_shift < 1:
        raise ConfigError(f"integer shifts need max_shift of at least 1 pixel, got {max_shift}.")
    return Drawn(count, key, _integer, (max_shift,))


def random_fraction(count: int, max_shift: int, grid: int | None, key: jax.Array) -> Drawn:
    """Random shifts by fractions of a pixel, in [-max_shift, max_shift + 1) for both axes.

    With a `grid` n, the shift is a whole part in [-max_shift, max_shift] plus (p, q) / n. Both are uniform; p
    and q are in 0 ... n - 1 and not both 0, so one axis may be shifted by whole pixels. Without a `grid`,
    both axes are uniform real numbers.

    Source: this package.

    Args:
      count: Number of shifts per image.
      max_shift: Largest whole part in pixels.
      grid: The denominator n, at least 2; None: real numbers.
      key: Random key.

    Raises:
      ConfigError: `max_shift` is negative, or `grid` is below 2.
    """
    if max_shift < 0 or (grid is not None and grid < 2):
        raise ConfigError(f"fractional shifts need max_shift >= 0 and grid >= 2, got {max_shift} and {grid}.")
    if grid is None:
        return random_in_box(count, (-max_shift, -max_shift), (max_shift + 1, max_shift + 1), key)
    return Drawn(count, key, _on_grid, (max_shift, grid))


def random_in_box(count: int, low: tuple[float, ...], high: tuple[float, ...], key: jax.Array) -> Drawn:
    """Random shifts, uniform in a box.

    Source: this package.

    Args:
      count: Number of shifts per image.
      low: Lower bound of each parameter.
      high: Upper bound of each parameter.
      key: Random key.

    Raises:
      ConfigError: `count` is below 1.
    """
    return Drawn(count, key, _in_box, (np.asarray(low, np.float32), np.asarray(high, np.float32)))


@dataclass(frozen=True, eq=False)
class Stream:
    """Random shifts that all images of a batch share.

    The shifts come from a generator of the caller, which continues from batch to batch. This reproduces the
    draws of the original programs (`np.random.randint`). Two measurements may share a generator; they then
    draw in turn.

    Source: this package.

    Attributes:
      count: Number of shifts per image.
      next_shifts: Returns the shifts of the next batch, `[count, parameters]`.
    """

    count: int
    next_shifts: Callable[[], np.ndarray]

    def draw(self, numbers: np.ndarray) -> np.ndarray:
        """See `ShiftSet.draw`."""
        return Grid(self.next_shifts()).draw(numbers)

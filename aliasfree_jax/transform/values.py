"""The interpreter's values: maps, plain arrays, and functions of maps that are not evaluated yet."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aliasfree_jax.transform.bands import Band
from aliasfree_jax.transform.lines import Place
from aliasfree_jax.transform.maps import Map


@dataclasses.dataclass(frozen=True, eq=False)
class Plain:
    """An array that is not a map.

    Attributes:
      thin: The array, with length 1 along the axes where the program has broadcast it.
      shape: The shape that the program sees.
      from_maps: Whether it was computed from maps. Known only in reports.
      refused: Whether it was computed from the result of a refused operation. Known only in reports.
    """

    thin: jax.Array
    shape: tuple[int, ...]
    from_maps: bool = False
    refused: bool = False

    @property
    def dtype(self) -> Any:
        """The array's type."""
        return self.thin.dtype

    def full(self) -> jax.Array:
        """The array as the program sees it."""
        return self.thin if self.thin.shape == self.shape else jnp.broadcast_to(self.thin, self.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Pointwise:
    """An elementwise function of maps that is not evaluated yet. The activations decide on which grid it is.

    Attributes:
      roots: The maps, of one layout and on one grid.
      compute: Computes the array from the arrays of the roots and of other functions, by their `id`.
      degree: Degree of the polynomial. Infinite for any other function.
      origin: Its first operation that is not affine.
      dtype: Type of the result.
      held: Its map, after it was evaluated.
      band: Its frequency band, if it is tracked.
      place: The place of its first operation that is not affine, if the band is tracked.
    """

    roots: tuple[Map, ...]
    compute: Callable[[dict[int, jax.Array]], jax.Array]
    degree: float
    origin: Any
    dtype: Any
    held: list[Map] = dataclasses.field(default_factory=list)
    band: Band | None = None
    place: Place | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the program sees."""
        return self.roots[0].shape

    def at(self, known: dict[int, jax.Array]) -> jax.Array:
        """Its array, given the arrays of the roots."""
        if id(self) not in known:
            known[id(self)] = self.compute(known)
        return known[id(self)]


Held = Map | Plain
Value = Map | Plain | Pointwise


def plain(array: Any) -> Plain:
    """An array as a plain value."""
    array = array if hasattr(array, "dtype") else jnp.asarray(array)
    return Plain(array, tuple(array.shape))


def on_maps(of: Callable[[Map], Map], values: Sequence[Held]) -> list[Held]:
    """Applies `of` to the maps among the values."""
    return [of(value) if isinstance(value, Map) else value for value in values]


def first_map(values: Sequence[Value]) -> Map:
    """The first map among the values."""
    return next(value for value in values if isinstance(value, Map))


def varies(value: Plain, by: Map) -> bool:
    """Whether `value`, which the program combines with the map `by`, differs between its positions."""
    return any(by.spatial(dim) and length > 1 for dim, length in enumerate(value.thin.shape))


def laid_out(value: Held, by: Map) -> jax.Array:
    """`value` with the base axes of `by`, of length 1 along axes where it is constant.

    If a plain array varies over space, `by` must be settled, whole and begin at 0. A map must have the same
    visible window as `by`.
    """
    array = value.merged() if isinstance(value, Map) else value.thin
    if array.size == 1:
        return array.reshape((1,) * by.array.ndim)
    sizes: list[int] = []
    for length, group in zip(array.shape, by.groups, strict=True):
        bases = [by.array.shape[axis] for axis in group]
        sizes += bases if math.prod(bases) == length else [length, *[1] * (len(group) - 1)]
    return array.reshape(sizes)

"""What the interpreter computes with: maps, plain arrays, and functions of maps still to be evaluated."""

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
    """An array that is no map.

    Attributes:
      thin: of length 1 along the axes where the program has broadcast it: it is constant there.
      shape: as the program sees it.
      from_maps, refused: whether it was computed from maps, and behind a refused operation; where that is
        asked for.
    """

    thin: jax.Array
    shape: tuple[int, ...]
    from_maps: bool = False
    refused: bool = False

    @property
    def dtype(self) -> Any:
        """Of the array."""
        return self.thin.dtype

    def full(self) -> jax.Array:
        """The array as the program sees it."""
        return self.thin if self.thin.shape == self.shape else jnp.broadcast_to(self.thin, self.shape)


@dataclasses.dataclass(frozen=True, eq=False)
class Pointwise:
    """A function of each element of maps that is not evaluated yet: on which grid, the activations decide.

    Attributes:
      roots: the maps, of one layout, on one grid.
      compute: gives the array from those of the roots and of other functions of them, by identity.
      degree: as a polynomial; infinite for any other function.
      origin: the first operation of it that is not affine.
      dtype: of the result.
      held: its map, once it was evaluated.
      band, place: its frequencies and where it begins, where they are asked for.
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
        """As the program sees it."""
        return self.roots[0].shape

    def at(self, known: dict[int, jax.Array]) -> jax.Array:
        """Its array, where the arrays of the roots are known."""
        if id(self) not in known:
            known[id(self)] = self.compute(known)
        return known[id(self)]


Held = Map | Plain
Value = Map | Plain | Pointwise


def plain(array: Any) -> Plain:
    """A plain value that is constant along no axis."""
    array = array if hasattr(array, "dtype") else jnp.asarray(array)
    return Plain(array, tuple(array.shape))


def on_maps(of: Callable[[Map], Map], values: Sequence[Held]) -> list[Held]:
    """The values, with `of` done to the maps among them."""
    return [of(value) if isinstance(value, Map) else value for value in values]


def first_map(values: Sequence[Value]) -> Map:
    """The first map among the values."""
    return next(value for value in values if isinstance(value, Map))


def varies(value: Plain, by: Map) -> bool:
    """Whether `value`, which the program combines with the map `by`, differs from place to place of it."""
    return any(by.spatial(dim) and length > 1 for dim, length in enumerate(value.thin.shape))


def laid_out(value: Held, by: Map) -> jax.Array:
    """`value` along the base axes of `by`, of length 1 where it is constant.

    Where a plain array varies over space, `by` is settled, whole, and begins at 0; a map is seen as `by` is.
    """
    array = value.merged() if isinstance(value, Map) else value.thin
    if array.size == 1:
        return array.reshape((1,) * by.array.ndim)
    sizes: list[int] = []
    for length, group in zip(array.shape, by.groups, strict=True):
        bases = [by.array.shape[axis] for axis in group]
        sizes += bases if math.prod(bases) == length else [length, *[1] * (len(group) - 1)]
    return array.reshape(sizes)

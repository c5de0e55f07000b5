"""Arrays with rows and columns, as they are kept and as the program sees them."""

import dataclasses
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aliasfree_jax.transform.bands import Band
from aliasfree_jax.transform.grids import ONE, Grid, Strides

Group = tuple[int, ...]


def both(of: Callable[..., int], *pairs: Sequence[Any]) -> tuple[int, int]:
    """`of` what the pairs have for rows, and of what they have for columns."""
    rows, columns = map(of, *pairs)
    return rows, columns


def every(side: int, step: int) -> int:
    """How many of `side` places remain of every `step`-th."""
    return -(-side // step)


def exchanged(pair: tuple[int, int], place: int, value: int) -> tuple[int, int]:
    """The pair with another value for rows (`place` 0) or columns."""
    return (value, pair[1]) if place == 0 else (pair[0], value)


@dataclasses.dataclass(frozen=True, eq=False)
class Map:
    """An array with two spatial axes, as it is kept and as the program sees it.

    Attributes:
      array: all positions of its grid, whatever is pending; its axes are called base axes.
      groups: for each axis that the program sees, the base axes that are merged in it, one behind the other.
      space: the base axes that are rows and columns.
      batch: the base axes of the images; none where the function takes a single image.
      grid: what the array is sampled on.
      stride: the pending one: the program sees every so many-th row and column.
      first: the first row and column that the program sees. They lie on a circle, so it may be before 0.
      seen_sides: how many the program sees from there on; they may go round the circle more than once.
      trimmed: how many rows and columns fewer the program sees because windows without padding left out the
        border. On the circle they are there, and are used like the others.
      blocks: the base axes that count rows and columns within a block, as long as the stride from block to
        block is pending.
      band: its frequencies, where they are asked for.
    """

    array: jax.Array
    groups: tuple[Group, ...]
    space: tuple[int, int]
    batch: Group
    grid: Grid
    stride: Strides = ONE
    first: tuple[int, int] = (0, 0)
    seen_sides: tuple[int, int] = (0, 0)
    trimmed: tuple[int, int] = (0, 0)
    blocks: Group = ()
    band: Band | None = None

    @property
    def dtype(self) -> Any:
        """Of the array."""
        return self.array.dtype

    @property
    def sides(self) -> tuple[int, int]:
        """Rows and columns of the array."""
        return self.array.shape[self.space[0]], self.array.shape[self.space[1]]

    @property
    def settled(self) -> bool:
        """Whether nothing is pending."""
        return self.stride == ONE

    @property
    def circle(self) -> tuple[int, int]:
        """Rows and columns that there are for the program: those of the array, sampled."""
        return both(every, self.sides, self.stride)

    @property
    def cut_off(self) -> tuple[int, int]:
        """Rows and columns of the circle that the program left out on purpose."""
        return both(lambda n, seen, less: max(n - seen - less, 0), self.circle, self.seen_sides, self.trimmed)

    @property
    def whole(self) -> bool:
        """Whether the program uses the whole circle, once."""
        return self.cut_off == (0, 0) and not any(both(operator.gt, self.seen_sides, self.circle))

    def counted(self, sums: jax.Array) -> jax.Array:
        """Sums over all places, scaled to as many places as the program sees."""
        share = math.prod(self.seen_sides) / math.prod(self.sides)
        return sums if share == 1 else sums * share

    def sizes(self) -> list[int]:
        """Lengths of the base axes as the program counts them."""
        seen = dict(zip(self.space, self.seen_sides, strict=True))
        return [seen.get(axis, length) for axis, length in enumerate(self.array.shape)]

    @property
    def shape(self) -> tuple[int, ...]:
        """As the program sees it."""
        sizes = self.sizes()
        return tuple(math.prod(sizes[axis] for axis in group) for group in self.groups)

    @property
    def ndim(self) -> int:
        """Number of axes that the program sees."""
        return len(self.groups)

    def spatial(self, dim: int) -> bool:
        """Whether the program's axis `dim` contains rows or columns."""
        return bool(set(self.groups[dim]) & set(self.space))

    def counts_components(self, dim: int) -> bool:
        """Whether the program's axis `dim` counts polyphase components, as they are split."""
        return dim == 1 and self.ndim == 5 and self.grid.kind == "components"

    def space_dims(self) -> list[int | None]:
        """The program's axes that are rows and columns and nothing else; None where there is none."""
        return [self.groups.index((axis,)) if (axis,) in self.groups else None for axis in self.space]

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """The program's axis that contains rows, and which of the spatial ones in it they are; columns."""
        spatial = [[axis for axis in group if axis in self.space] for group in self.groups]
        found = {axis: (dim, i) for dim, axes in enumerate(spatial) for i, axis in enumerate(axes)}
        return found[self.space[0]], found[self.space[1]]

    def merged(self) -> jax.Array:
        """All positions, with the axes that the program sees."""
        return self.array.reshape([math.prod(self.array.shape[axis] for axis in g) for g in self.groups])

    def images(self) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
        """All positions as [images, rows, columns, all else], and what lays such an array out as here."""
        first = [*self.batch, *self.space]
        order = first + [axis for axis in range(self.array.ndim) if axis not in first]
        array, lead = self.array.transpose(order), len(self.batch)
        rest = array.shape[lead + 2 :]

        def back(images: jax.Array) -> jax.Array:
            split = images.reshape(*array.shape[:lead], *images.shape[1:3], *rest)
            return split.transpose([order.index(axis) for axis in range(len(order))])

        return array.reshape(math.prod(array.shape[:lead]), *self.sides, math.prod(rest)), back

    def first_of_blocks(self) -> "Map":
        """The map of the first row and column of every block."""
        array = self.array
        for axis in self.blocks:
            array = jax.lax.slice_in_dim(array, 0, 1, axis=axis)
        return self.like(array)

    def like(self, array: jax.Array) -> "Map":
        """`array`, of the same base axes, seen alike."""
        return dataclasses.replace(self, array=array)

    def all_seen(self) -> "Map":
        """The same map, of which the program sees every row and column."""
        return dataclasses.replace(self, first=(0, 0), seen_sides=self.circle)

    def begun_at(self, first: tuple[int, int]) -> "Map":
        """The same map, turned on its circle so that the program sees the same from `first` on."""
        by = both(operator.sub, first, self.first)
        if not any(by):
            return self
        return dataclasses.replace(self, array=jnp.roll(self.array, by, self.space), first=first)

    def subsampled(self) -> "Map":
        """The map with every so many-th sample and nothing else, as the program has it."""
        array = self.array
        for axis, step in zip(self.space, self.stride, strict=True):
            array = jax.lax.slice_in_dim(array, 0, None, step, axis)
        grid = self.grid.sampled(self.stride)
        return dataclasses.replace(self, array=array, grid=grid, stride=ONE, blocks=())

    def windowed(self, place: int, first: int, seen: int, step: int = 1) -> "Map":
        """The map of which the program sees other rows (`place` 0) or columns, and every `step`-th."""
        return dataclasses.replace(
            self,
            first=exchanged(self.first, place, first),
            seen_sides=exchanged(self.seen_sides, place, seen),
            stride=exchanged(self.stride, place, self.stride[place] * step),
        )

    def rebuilt(self, array: jax.Array, sources: Sequence[Group] | None = None, **changes: Any) -> "Map":
        """The map whose array, with axes as the program is to see them, is `array`.

        Args:
          sources: for each axis of `array`, the base axes of this map that it holds merged, or of which it is
            a part; () for a new one. By default the axes are those of this map.
          changes: of the map's other fields.
        """
        pieces: list[int] = []
        groups: list[Group] = []
        where: dict[int, list[int]] = {}
        others = {*range(self.array.ndim)} - {*self.space, *self.batch, *self.blocks}
        for length, source in zip(array.shape, self.groups if sources is None else sources, strict=True):
            sizes = [self.array.shape[base] for base in source]
            apart = math.prod(sizes) == length and not others.issuperset(source)
            if not apart:  # merged axes that are no longer told apart
                sizes, source = [length], source if len(source) == 1 else ()
            for i, base in enumerate(source):
                where.setdefault(base, []).append(len(pieces) + i)
            groups.append(tuple(range(len(pieces), len(pieces) + len(sizes))))
            pieces += sizes
        batch, blocks = (
            tuple(axis for base in bases for axis in where.get(base, ()))
            for bases in (self.batch, self.blocks)
        )
        fields: dict[str, Any] = {
            "array": array.reshape(pieces),
            "groups": tuple(groups),
            "space": (where[self.space[0]][0], where[self.space[1]][0]),
            "batch": batch,
            "blocks": blocks,
        }
        return dataclasses.replace(self, **(fields | changes))


def map_of(array: jax.Array, space: tuple[int, int], batch: Group, grid: Grid) -> Map:
    """A map whose axes are those that the program sees, and of which it sees all."""
    return Map(array, tuple((axis,) for axis in range(array.ndim)), space, batch, grid).all_seen()

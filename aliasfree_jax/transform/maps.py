"""Arrays with rows and columns, as they are kept and as the program sees them."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aliasfree_jax.transform.bands import Band
from aliasfree_jax.transform.grids import ONE, Grid, Strides

Group = tuple[int, ...]
Window = tuple[int, int]


@dataclasses.dataclass(frozen=True, eq=False)
class Map:
    """An array with two spatial axes, as it is kept and as the program sees it.

    Attributes:
      array: all positions of its grid, whatever is pending; its axes are called base axes.
      groups: for each axis that the program sees, the base axes that are merged in it: none for an axis of
        length 1 that was inserted. Every base axis is in one group.
      space: the base axes that are rows and columns.
      batch: the base axes of the images; none where the function takes a single image.
      blocks: the base axes that count rows and columns within a block, as long as the stride from block to
        block is pending.
      grid: what the array is sampled on.
      stride: the pending one: the program sees every so many-th row and column.
      window: the first row that the program sees and how many from there on, before the stride; alike for
        columns. Rows and columns lie on a circle, so a window may begin before 0 and be longer than it.
      trimmed: how many rows and columns fewer the program sees because windows without padding left out the
        border. On the circle they are there, and are used like the others.
      band: its frequencies, where they are asked for.
    """

    array: jax.Array
    groups: tuple[Group, ...]
    space: tuple[int, int]
    batch: Group
    grid: Grid
    stride: Strides = ONE
    window: tuple[Window, Window] = ((0, 0), (0, 0))
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
        rows, columns = (-(-side // step) for side, step in zip(self.sides, self.stride, strict=True))
        return rows, columns

    @property
    def cut_off(self) -> tuple[int, int]:
        """Rows and columns of the circle that the program left out on purpose."""
        rows, columns = (
            max(n - seen - trimmed, 0)
            for n, seen, trimmed in zip(self.circle, self.seen_sides, self.trimmed, strict=True)
        )
        return rows, columns

    @property
    def whole(self) -> bool:
        """Whether the program uses the whole circle, once."""
        repeats = any(seen > n for n, seen in zip(self.circle, self.seen_sides, strict=True))
        return self.cut_off == (0, 0) and not repeats

    @property
    def seen_sides(self) -> tuple[int, int]:
        """Rows and columns as the program counts them."""
        rows, columns = (
            -(-length // step) for (_, length), step in zip(self.window, self.stride, strict=True)
        )
        return rows, columns

    @property
    def share(self) -> float:
        """How many places the program sees, of those that there are: what scales sums to the program's."""
        return math.prod(self.seen_sides) / math.prod(self.sides)

    def sizes(self) -> list[int]:
        """Lengths of the base axes as the program counts them."""
        sizes = list(self.array.shape)
        for axis, side in zip(self.space, self.seen_sides, strict=True):
            sizes[axis] = side
        return sizes

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
        order = [axis for group in self.groups for axis in group]
        array = self.array if order == sorted(order) else self.array.transpose(order)
        shape = [math.prod(self.array.shape[axis] for axis in group) for group in self.groups]
        return array.reshape(shape)

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
        rows, columns = self.sides
        return dataclasses.replace(self, window=((0, rows), (0, columns)))

    def begun_at(self, starts: tuple[int, int]) -> "Map":
        """The same map, turned on its circle so that its window begins there."""
        return self.turned(tuple(s - first for (first, _), s in zip(self.window, starts, strict=True)))

    def turned(self, by: Sequence[int]) -> "Map":
        """The same map with rows and columns turned round the circle; the program sees the same."""
        if not any(by):
            return self
        rows, columns = ((first + b, n) for (first, n), b in zip(self.window, by, strict=True))
        return dataclasses.replace(self, array=jnp.roll(self.array, by, self.space), window=(rows, columns))

    @property
    def own_axes(self) -> list[Group | None]:
        """The base axes of each of the program's axes; None where several that are not spatial are merged."""
        return [g if self.spatial(dim) or len(g) == 1 else None for dim, g in enumerate(self.groups)]

    def rebuilt(
        self, array: jax.Array, sources: Sequence[Group | None] | None = None, **changes: Any
    ) -> "Map":
        """The map whose array, with axes as the program is to see them, is `array`.

        Args:
          sources: for each axis of `array`, the base axes of this map that it holds merged; () for an axis
            of length 1, None for a new one. By default the axes are those of this map.
          changes: of the map's other fields.
        """
        sources = self.own_axes if sources is None else sources
        pieces: list[int] = []
        groups: list[Group] = []
        where: dict[int, int] = {}
        for length, source in zip(array.shape, sources, strict=True):
            sizes = [self.array.shape[base] for base in source or ()]
            if source is None or len(source) == 1:
                sizes = [length]
            where.update({base: len(pieces) + i for i, base in enumerate(source or ())})
            groups.append(tuple(range(len(pieces), len(pieces) + len(sizes))))
            pieces += sizes
        space = (where[self.space[0]], where[self.space[1]])
        batch, blocks = (
            tuple(where[base] for base in bases if base in where) for bases in (self.batch, self.blocks)
        )
        fields: dict[str, Any] = {
            "array": array.reshape(pieces),
            "groups": tuple(groups),
            "space": space,
            "batch": batch,
            "blocks": blocks,
        }
        return dataclasses.replace(self, **(fields | changes))


def map_of(array: jax.Array, space: tuple[int, int], batch: Group, grid: Grid) -> Map:
    """A map whose axes are those that the program sees, and of which it sees all."""
    groups = tuple((axis,) for axis in range(array.ndim))
    window = ((0, array.shape[space[0]]), (0, array.shape[space[1]]))
    return Map(array, groups, space, batch, grid, window=window)


def regrouped(value: Map, shape: Sequence[int]) -> tuple[Group, ...] | None:
    """The groups of the same base axes that give `shape`; None where an axis would have to be cut."""
    sizes = value.sizes()
    parts = [
        part
        for group in value.groups
        for part in ([(axis, sizes[axis]) for axis in group] if group else [(None, 1)])
    ]
    groups: list[Group] = []
    position = 0
    for length in shape:
        first, product = position, 1
        if length == 1 and position < len(parts) and parts[position][1] == 1:
            position += 1
        while product != length and product <= max(length, 1) and position < len(parts):
            product *= parts[position][1]
            position += 1
        if product != length:
            return None
        groups.append(tuple(axis for axis, _ in parts[first:position] if axis is not None))
    rest = tuple(axis for axis, _ in parts[position:] if axis is not None)  # of length 1: with the last
    if any(size != 1 for _, size in parts[position:]) or (rest and not groups):
        return None
    return (*groups[:-1], (*groups[-1], *rest)) if rest else tuple(groups)

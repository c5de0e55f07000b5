"""Feature maps: how they are stored, and how the program sees them."""

import dataclasses
import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.transform.bands import Band
from aliasfree_jax.transform.grids import ONE, Grid, Strides

Group = tuple[int, ...]


def both(of: Callable[..., int], *pairs: Sequence[Any]) -> tuple[int, int]:
    """Applies `of` to the row entries of the pairs, and to their column entries."""
    rows, columns = map(of, *pairs)
    return rows, columns


def every(side: int, step: int) -> int:
    """The number of positions when every `step`-th of `side` is kept."""
    return -(-side // step)


def exchanged(pair: tuple[int, int], direction: int, value: int) -> tuple[int, int]:
    """The pair with a new value for rows (`direction` 0) or columns (`direction` 1)."""
    return (value, pair[1]) if direction == 0 else (pair[0], value)


@dataclasses.dataclass(frozen=True, eq=False)
class Map:
    """An array with two spatial axes, and the window of it that the program sees.

    Attributes:
      array: All positions of its grid. A pending stride is not applied yet. Its axes are the base axes.
      groups: For each axis that the program sees: the base axes that are merged in it, in order.
      space: The base axes of rows and columns.
      batch: The base axes of the batch. Empty if the function's input is a single image.
      grid: The grid on which the array is sampled.
      stride: The pending stride. The program sees the map after this stride.
      first: The first row and column that the program sees. It may be negative, because maps are circular.
      seen_sides: The number of rows and columns that the program sees. They may exceed the array's.
      trimmed: The number of rows and columns that the program lost because windows without padding left out
        the border. The circular map still has them, and uses them.
      blocks: The base axes of rows and columns within a block, while the stride between blocks is pending.
      band: The frequency band, if it is tracked.
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
        """The array's type."""
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
        """Rows and columns of the array after the pending stride."""
        return both(every, self.sides, self.stride)

    @property
    def cut_off(self) -> tuple[int, int]:
        """Numbers of rows and columns that the program cut off by slicing."""
        return both(lambda n, seen, less: max(n - seen - less, 0), self.circle, self.seen_sides, self.trimmed)

    @property
    def whole(self) -> bool:
        """Whether the program uses every row and column exactly once."""
        return self.cut_off == (0, 0) and not any(both(operator.gt, self.seen_sides, self.circle))

    def counted(self, sums: jax.Array) -> jax.Array:
        """Sums over all positions, scaled to the number of positions that the program sees."""
        share = math.prod(self.seen_sides) / math.prod(self.sides)
        return sums if share == 1 else sums * share

    def sizes(self) -> list[int]:
        """Lengths of the base axes as the program counts them."""
        seen = dict(zip(self.space, self.seen_sides, strict=True))
        return [seen.get(axis, length) for axis, length in enumerate(self.array.shape)]

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the program sees."""
        sizes = self.sizes()
        return tuple(math.prod(sizes[axis] for axis in group) for group in self.groups)

    @property
    def ndim(self) -> int:
        """Number of axes that the program sees."""
        return len(self.groups)

    def spatial(self, dim: int) -> bool:
        """Whether the program's axis `dim` contains rows or columns."""
        return bool(set(self.groups[dim]) & set(self.space))

    def of_images(self, dim: int) -> bool:
        """Whether the program's axis `dim` has several images."""
        return any(self.array.shape[axis] > 1 for axis in set(self.groups[dim]) & set(self.batch))

    def order_of_images(self) -> tuple[int, ...]:
        """The shape of the batch in the axes that the program sees, and the number of each image in it."""
        lengths = [n if axis in self.batch else 1 for axis, n in enumerate(self.array.shape)]
        numbers = np.arange(math.prod(lengths)).reshape([lengths[axis] for axis in self.batch])
        in_base_order = numbers.transpose(np.argsort(self.batch)) if self.batch else numbers
        seen = [math.prod(lengths[axis] for axis in group) for group in self.groups]
        return (*seen, *in_base_order.reshape(seen).ravel().tolist())

    def counts_components(self, dim: int) -> bool:
        """Whether the program's axis `dim` is the axis of polyphase components."""
        return dim == 1 and self.ndim == 5 and self.grid.kind == "components"

    def space_dims(self) -> list[int | None]:
        """The program's axes of rows and of columns. None if they are merged with other axes."""
        return [self.groups.index((axis,)) if (axis,) in self.groups else None for axis in self.space]

    @property
    def places(self) -> tuple[tuple[int, int], ...]:
        """For rows and columns: the program's axis with them, and their index among its spatial axes."""
        spatial = [[axis for axis in group if axis in self.space] for group in self.groups]
        found = {axis: (dim, i) for dim, axes in enumerate(spatial) for i, axis in enumerate(axes)}
        return found[self.space[0]], found[self.space[1]]

    def merged(self) -> jax.Array:
        """The whole array, with the axes that the program sees."""
        return self.array.reshape([math.prod(self.array.shape[axis] for axis in g) for g in self.groups])

    def images(self) -> tuple[jax.Array, Callable[[jax.Array], jax.Array]]:
        """The whole array as `[images, rows, columns, rest]`, and a function that restores the layout."""
        first = [*self.batch, *self.space]
        order = first + [axis for axis in range(self.array.ndim) if axis not in first]
        array, lead = self.array.transpose(order), len(self.batch)
        rest = array.shape[lead + 2 :]

        def back(images: jax.Array) -> jax.Array:
            split = images.reshape(*array.shape[:lead], *images.shape[1:3], *rest)
            return split.transpose([order.index(axis) for axis in range(len(order))])

        return array.reshape(math.prod(array.shape[:lead]), *self.sides, math.prod(rest)), back

    def first_of_blocks(self) -> "Map":
        """The map of the first row and column of each block."""
        array = self.array
        for axis in self.blocks:
            array = jax.lax.slice_in_dim(array, 0, 1, axis=axis)
        return self.like(array)

    def like(self, array: jax.Array) -> "Map":
        """The map with another array of the same base axes."""
        return dataclasses.replace(self, array=array)

    def all_seen(self) -> "Map":
        """The map with every row and column visible to the program."""
        return dataclasses.replace(self, first=(0, 0), seen_sides=self.circle)

    def begun_at(self, first: tuple[int, int]) -> "Map":
        """The map rolled so that its first visible position is `first`. The program sees no change."""
        by = both(operator.sub, first, self.first)
        if not any(by):
            return self
        return dataclasses.replace(self, array=jnp.roll(self.array, by, self.space), first=first)

    def subsampled(self) -> "Map":
        """The map after plain subsampling by its pending stride, as in the program."""
        array = self.array
        for axis, step in zip(self.space, self.stride, strict=True):
            array = jax.lax.slice_in_dim(array, 0, None, step, axis)
        grid = self.grid.sampled(self.stride)
        return dataclasses.replace(self, array=array, grid=grid, stride=ONE, blocks=())

    def windowed(self, direction: int, first: int, seen: int, step: int = 1) -> "Map":
        """The map with another visible window along rows (`direction` 0) or columns, and a further stride."""
        return dataclasses.replace(
            self,
            first=exchanged(self.first, direction, first),
            seen_sides=exchanged(self.seen_sides, direction, seen),
            stride=exchanged(self.stride, direction, self.stride[direction] * step),
        )

    def rebuilt(self, array: jax.Array, sources: Sequence[Group] | None = None, **changes: Any) -> "Map":
        """The map with the array `array`, whose axes are those that the program sees.

        Args:
          array: The new array.
          sources: For each axis of `array`: the base axes of this map that it merges or is a part of, and ()
            for a new axis. By default the axes are those of this map.
          **changes: New values of other fields.
        """
        pieces: list[int] = []
        groups: list[Group] = []
        where: dict[int, list[int]] = {}
        others = {*range(self.array.ndim)} - {*self.space, *self.batch, *self.blocks}
        for length, source in zip(array.shape, self.groups if sources is None else sources, strict=True):
            sizes = [self.array.shape[base] for base in source]
            apart = math.prod(sizes) == length and not others.issuperset(source)
            if not apart:  # the merged axes can no longer be separated
                images = tuple(base for base in source if base in self.batch)[:1]
                sizes, source = [length], source if len(source) == 1 else images
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
    """A map without merged axes, fully visible to the program."""
    return Map(array, tuple((axis,) for axis in range(array.ndim)), space, batch, grid).all_seen()

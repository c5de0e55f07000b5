"""Rules of reshaping and reordering."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from aliasfree_jax.transform.grids import ONE, Grid
from aliasfree_jax.transform.interpreter import Transformation, TransformError, one_image, rebound, rule
from aliasfree_jax.transform.maps import Group, Map, every, exchanged
from aliasfree_jax.transform.upsampling import interleaved
from aliasfree_jax.transform.values import Held, Value, plain

Piece = tuple[int, int]  # its length and its base axis
NEW = -1


@rule("transpose")
def transpose(how: Transformation, eqn: Any, value: Map) -> list[Value]:
    """Permutes the axes."""
    sources = [value.groups[axis] for axis in eqn.params["permutation"]]
    return [value.rebuilt(rebound(eqn, value.merged())[0], sources)]


@rule("reshape", "squeeze")
def reshape(how: Transformation, eqn: Any, value: Map, *_: Held) -> Sequence[Value]:
    """Merges and cuts axes. Cutting rows into blocks is a stride. A single row merges with the next axis."""
    shape, dimensions = tuple(eqn.outvars[0].aval.shape), eqn.params.get("dimensions") or ()
    squeezed = dimensions if eqn.primitive.name == "squeeze" else ()
    if dimensions and not squeezed:  # `lax.reshape` permutes the axes first
        value = value.rebuilt(value.merged().transpose(dimensions), [value.groups[dim] for dim in dimensions])
    one = value.settled and value.sides == (1, 1) and (not squeezed or any(map(value.spatial, squeezed)))
    if 0 in shape:
        return [plain(jnp.zeros(shape, value.dtype))]
    parts = _parts(_sizes(value, squeezed), shape, value.space) if shape else None
    finer = [] if squeezed or parts is None else _finer(value, parts)
    kept = parts is not None and not squeezed and not any(_mixed(part, value.space) for part in parts)
    if not shape or (one and not finer and not kept):  # no position is left that could move
        return [plain(how.seen(eqn, value).merged().reshape(shape))]
    if parts is None:
        raise TransformError(
            eqn, "cuts an axis across the axes merged in it", "Keep rows and columns as separate axes"
        )
    for direction, axis in enumerate(value.space):
        _first, *within = [length for part in parts for length, base in part if base == axis]
        if within:
            return reshape(how, eqn, _blocks(how, eqn, value, direction, math.prod(within)))
    if finer:
        value = how.settle(eqn, value)
        parts = [
            [part[0], (math.prod(n for n, _ in part[1:]), NEW)] if i in finer else part
            for i, part in enumerate(parts)
        ]
    flat = [piece for part in parts for piece in part]
    lengths = [value.array.shape[axis] if axis in value.space else length for length, axis in flat]
    apart = value.rebuilt(value.array.reshape(lengths), [() if axis == NEW else (axis,) for _, axis in flat])
    for direction in (0, 1) if finer else ():
        if any(part[0][1] == value.space[direction] for i, part in enumerate(parts) if i in finer):
            apart = interleaved(how, eqn, apart, direction)
    ends = list(itertools.accumulate(1 if i in finer else len(part) for i, part in enumerate(parts)))
    groups = tuple(tuple(range(*each)) for each in zip([0, *ends], ends, strict=False))
    result = dataclasses.replace(apart, groups=groups)
    result = result.rebuilt(result.merged())
    if squeezed or finer:
        return [result]
    single = _single(eqn, value, parts)
    return [result if single is None else _row_repeated(how, eqn, result, single)]


def _mixed(part: Sequence[Piece], space: Group) -> bool:
    """Whether it merges rows or columns with other axes."""
    spatial = [axis in space for length, axis in part if axis in space or length > 1]
    return any(spatial) and not all(spatial)


def _finer(value: Map, parts: Sequence[Sequence[Piece]]) -> list[int]:
    """The new axes that hold rows or columns of a finer grid (copies, depth to space).

    The list is empty if no axis is left for channels: the map is then flattened, before a linear layer.
    """
    alone, found = False, []
    for i, part in enumerate(parts):
        bases = [axis for length, axis in part if length > 1 or axis in value.space]
        alone |= not {axis for _, axis in part} & {*value.space, *value.batch}
        spatial = [axis in value.space for axis in bases]
        once = value.sides[value.space.index(bases[0])] if sum(spatial) == 1 and spatial[0] else 0
        seen = value.seen_sides[value.space.index(bases[0])] if once else 0
        if once and len(bases) > 1 and (seen > 1 or once == 1) and not {*bases} & {*value.batch}:
            found.append(i)
    return found if alone and "refused" not in value.grid.kinds else []


def _single(eqn: Any, value: Map, parts: Sequence[Sequence[Piece]]) -> int | None:
    """0 if a single row is merged with later axes, 1 if a single column is. Otherwise None.

    Raises:
      TransformError: Several rows or columns are merged with other axes.
    """
    for part in parts:
        axes = [axis for length, axis in part if axis in value.space or length > 1]
        spatial = [axis in value.space for axis in axes]
        if sum(spatial) and not all(spatial[spatial.index(True) :]):
            direction = value.space.index(axes[spatial.index(True)])
            if sum(spatial) == 1 and value.seen_sides[direction] == 1:
                return direction
            raise TransformError(
                eqn,
                "flattens rows or columns together with other axes, so each position has its own weights",
                "Take the mean over rows and columns first (or convolve and take the mean). To upsample, use "
                "layers.IdealUpsample or PolyphaseUpsample",
            )
    return None


def _sizes(value: Map, squeezed: Sequence[int]) -> dict[int, int]:
    """Lengths of the base axes as the program counts them, without droppable axes of length 1."""
    gone = {axis for dim in squeezed for axis in value.groups[dim]}
    stay = {*value.space, *(axis for axis in value.batch if axis not in gone)}
    return {axis: length for axis, length in enumerate(value.sizes()) if length != 1 or axis in stay}


def _parts(sizes: Mapping[int, int], shape: Sequence[int], space: Group) -> list[list[Piece]] | None:
    """The pieces of base axes that each axis of `shape` merges. None if an axis is cut across its parts.

    Rows or columns of length 1 join the next axis, or the last one.
    """
    rest: list[Piece] = [(length, axis) for axis, length in sizes.items()]
    parts: list[list[Piece]] = []
    for length in shape:
        part: list[Piece] = []
        if length == 1:
            part.append(rest.pop(0) if rest and rest[0][0] == 1 else (1, NEW))
        while length > 1 and rest:
            whole, axis = rest.pop(0)
            piece = math.gcd(whole, length)
            if piece < min(whole, length):
                return None
            part += [(piece, axis)] if piece > 1 or axis in space else []
            rest = [(whole // piece, axis), *rest] if piece < whole else rest
            length //= piece
        if length > 1:
            return None
        parts.append(part)
    parts[-1] += [(length, axis) for length, axis in rest if axis in space]
    return parts if all(length == 1 for length, _ in rest) else None


def _row_repeated(how: Transformation, eqn: Any, value: Map, direction: int) -> Map:
    """A single row or column, repeated by the axes merged in it. On the circle it can only pad."""
    value = how.settle(eqn, value)
    if how.circular:
        return dataclasses.replace(value, grid=Grid(value.grid, "mirrored"))
    sources = list(value.groups)
    sources[value.places[direction][0]] = (value.space[direction],)
    return value.rebuilt(value.merged(), sources).all_seen()


def _blocks(how: Transformation, eqn: Any, value: Map, direction: int, size: int) -> Map:
    """Cuts rows or columns into blocks: a pending stride, and a new axis for the position in the block."""
    value = how.from_start(eqn, value if value.stride[direction] == 1 else how.settle(eqn, value))
    value = how.strided(eqn, value, exchanged(ONE, direction, size), "a split into blocks")
    axis, bases = value.space[direction], [(base,) for base in range(value.array.ndim)]
    array = jnp.stack([jnp.roll(value.array, -i, axis) for i in range(size)], axis + 1)
    value = value.rebuilt(array, [*bases[: axis + 1], (), *bases[axis + 1 :]])
    value = value.windowed(direction, value.first[direction], every(value.seen_sides[direction], size), size)
    value = dataclasses.replace(value, blocks=(*value.blocks, axis + 1))
    return how.settle(eqn, value) if how.subsamples else value


def of_other_axes(eqn: Any, value: Map, *others: Any, **changes: Any) -> list[Map]:
    """Applies an operation that does not touch rows, columns or the order of axes, at full size."""
    return [value.rebuilt(y) for y in rebound(eqn, value.merged(), *others, **changes)]


@rule("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "sort", "top_k")
def along_channels(how: Transformation, eqn: Any, value: Map, *others: Held) -> Sequence[Value]:
    """Allowed along channels, where it runs at full size."""
    axis = eqn.params.get("axis", eqn.params.get("dimension", value.ndim - 1))
    one_image(eqn, value, [axis])
    if others or value.spatial(axis):
        raise TransformError(
            eqn,
            "runs along rows or columns",
            "The result depends on where the map begins: run it along channels",
        )
    if eqn.primitive.name != "cumsum":
        value = how.not_pointwise(eqn, value, "compares or multiplies channels,")
    return of_other_axes(eqn, value)

"""Reshaping, reordering and joining maps."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from aliasfree_jax.transform.bands import joined
from aliasfree_jax.transform.elementwise import aligned, side_by_side
from aliasfree_jax.transform.grids import Grid
from aliasfree_jax.transform.interpreter import Transformation, TransformError, rebound, rule
from aliasfree_jax.transform.maps import Group, Map, regrouped
from aliasfree_jax.transform.values import Held, Value, plain


@rule("transpose")
def transpose(how: Transformation, eqn: Any, value: Map) -> list[Value]:
    """The program sees the axes in another order; the array stays."""
    return [_seen_as(value, [value.groups[axis] for axis in eqn.params["permutation"]])]


def _seen_as(value: Map, groups: Sequence[Group]) -> Map:
    return dataclasses.replace(value, groups=tuple(groups))


@rule("squeeze")
def squeeze(how: Transformation, eqn: Any, value: Map) -> list[Value]:
    """Axes of length 1 go; rows or columns of length 1 are merged in the next axis."""
    value = _without_ones(value)
    groups: list[Group] = []
    gone: Group = ()
    for dim, group in enumerate(value.groups):
        gone += group
        if dim not in eqn.params["dimensions"]:
            groups.append(gone)
            gone = ()
    if not groups:
        return [plain(how.seen(eqn, value).merged().reshape(()))]
    groups[-1] += gone
    return [_without_ones(_seen_as(value, groups))]


@rule("reshape")
def reshape(how: Transformation, eqn: Any, value: Map, *_: Held) -> list[Value]:
    """Axes are merged and cut; rows are cut into blocks by a stride."""
    shape = tuple(eqn.outvars[0].aval.shape)
    if value.settled and value.sides == (1, 1):  # one place: nothing is left that could move
        return [plain(how.seen(eqn, value).merged().reshape(shape))]
    value = _without_ones(value)
    groups = regrouped(value, shape)
    if groups is None:
        value = _cut(how, eqn, value, shape)
        groups = regrouped(value, shape)
    for place, axis in enumerate(value.space):
        if value.sizes()[axis] == 1 and groups and _mixes(_group_of(axis, groups), value.space):
            return [_row_repeated(how, eqn, value, groups, place)]
    if groups is None or any(_mixes(group, value.space) for group in groups):
        raise TransformError(
            eqn,
            "flattens rows or columns together with other axes, so that a place has weights of its own",
            "Take the mean over rows and columns first (or convolve and take the mean); upsample by "
            "layers.IdealUpsample or PolyphaseUpsample",
        )
    return [_without_ones(_seen_as(value, groups))]


def _without_ones(value: Map) -> Map:
    """The map without base axes of length 1, which may be merged anywhere but with rows or columns.

    Rows and columns stay, and images unless they are merged with those.
    """
    kept = {axis for axis, n in enumerate(value.array.shape) if n != 1} | {*value.space}
    kept |= {axis for group in value.groups if not set(group) & set(value.space) for axis in group} & set(
        value.batch
    )
    if len(kept) == value.array.ndim:
        return value
    return value.rebuilt(value.merged(), [tuple(a for a in group if a in kept) for group in value.groups])


def _group_of(axis: int, groups: Sequence[Group]) -> Group:
    return next(group for group in groups if axis in group)


def _row_repeated(how: Transformation, eqn: Any, value: Map, groups: Sequence[Group], place: int) -> Map:
    """One row (or column), repeated by the axes that are merged in it. On the circle it can only pad."""
    value = how.settle(eqn, _seen_as(value, groups))
    dim = value.places[place][0]
    times, y = value.shape[dim], value.merged()
    if how.circular:  # of padding, only the length counts
        y = jnp.zeros((*y.shape[:dim], value.sides[place], *y.shape[dim + 1 :]), y.dtype)
    sources = value.own_axes
    sources[dim] = (value.space[place],)
    result = value.rebuilt(y, sources)
    if not how.circular:
        return result.all_seen()
    window = [(0, times) if p == place else w for p, w in enumerate(value.window)]
    return dataclasses.replace(result, grid=Grid(value.grid, "mirrored"), window=(window[0], window[1]))


def _mixes(group: Group, space: tuple[int, int]) -> bool:
    """Whether the axis has another one behind its rows or columns."""
    spatial = [axis in space for axis in group]
    return any(spatial) and not all(spatial[spatial.index(True) :])


def _cut(how: Transformation, eqn: Any, value: Map, shape: tuple[int, ...]) -> Map:
    """The map with base axes that `shape` is made of by merging alone."""
    base = [axis for group in value.groups for axis in group]
    pieces = _pieces([value.sizes()[axis] for axis in base], shape)
    if pieces is None:
        raise TransformError(
            eqn, "cuts an axis where its parts are no axes of their own", "Keep rows and columns apart"
        )
    parts = dict(zip(base, pieces, strict=True))
    for place, axis in enumerate(value.space):
        if len(parts[axis]) > 1:
            value = _blocks(how, eqn, value, place, math.prod(parts[axis][1:]))
            parts[axis], parts[value.array.ndim - 1] = parts[axis][:1], parts[axis][1:]
            base.insert(base.index(axis) + 1, value.array.ndim - 1)
            value = _seen_as(value, [(b,) for b in base])
    sizes: list[int] = []
    where: dict[int, Group] = {}
    for axis, length in enumerate(value.array.shape):
        lengths = parts[axis] if len(parts[axis]) > 1 else [length]
        where[axis] = tuple(range(len(sizes), len(sizes) + len(lengths)))
        sizes += lengths
    space = (where[value.space[0]][0], where[value.space[1]][0])
    batch, blocks = (
        tuple(piece for axis in axes for piece in where[axis]) for axes in (value.batch, value.blocks)
    )
    groups = tuple((piece,) for axis in base for piece in where[axis])
    array = value.array.reshape(sizes)
    changes: dict[str, Any] = {
        "array": array,
        "groups": groups,
        "space": space,
        "batch": batch,
        "blocks": blocks,
    }
    return dataclasses.replace(value, **changes)


def _pieces(sizes: Sequence[int], shape: Sequence[int]) -> list[list[int]] | None:
    """How each of `sizes` is cut, so that merging gives `shape`; None where a cut goes across."""
    pieces: list[list[int]] = [[] for _ in sizes]
    position, left = 0, list(sizes)
    for length in shape:
        while length > 1:
            while position < len(left) and left[position] == 1:
                position += 1
            if position == len(left):
                return None
            step = length if left[position] % length == 0 else left[position]
            if length % step:
                return None
            pieces[position].append(step)
            left[position], length = left[position] // step, length // step
    return [piece or [1] for piece in pieces] if all(n == 1 for n in left) else None


def _blocks(how: Transformation, eqn: Any, value: Map, place: int, size: int) -> Map:
    """Rows or columns cut into blocks: every `size`-th, and a last axis that counts within."""
    strides = (size, 1) if place == 0 else (1, size)
    value = how.from_start(eqn, value if value.stride[place] == 1 else how.settle(eqn, value))
    axis, array = value.space[place], value.array
    value = how.strided(eqn, value, strides, "a split into blocks")
    window = list(value.window)
    if how.subsamples:
        if value.sides != value.seen_sides:
            raise TransformError(
                eqn, "splits a map whose border was left out", "Pad the windows before it circularly"
            )
        length = array.shape[axis] // size
        cut = array.reshape(*array.shape[:axis], length, size, *array.shape[axis + 1 :])
        array, grid = jnp.moveaxis(cut, axis + 1, -1), value.grid.sampled(strides)
        window[place], strides = (0, length), value.stride
    else:
        array, grid = jnp.stack([jnp.roll(array, -i, axis) for i in range(size)], -1), value.grid
        strides = (value.stride[0] * strides[0], value.stride[1] * strides[1])
    within = array.ndim - 1
    value = dataclasses.replace(value, array=array, groups=(*value.groups, (within,)), grid=grid)
    blocks = value.blocks if how.subsamples else (*value.blocks, within)
    return dataclasses.replace(value, stride=strides, window=(window[0], window[1]), blocks=blocks)


@rule("stack")
def stack(how: Transformation, eqn: Any, *values: Held) -> list[Value]:
    """Maps side by side along a new axis."""
    axis = eqn.params["axis"]
    arrays, first = aligned(how, eqn, side_by_side(how, eqn, values))
    shape = jnp.broadcast_shapes(*(array.shape for array in arrays))
    array = jnp.stack([jnp.broadcast_to(array, shape) for array in arrays], -1)
    groups = [*first.groups[:axis], (array.ndim - 1,), *first.groups[axis:]]
    band = joined(value.band for value in values if isinstance(value, Map))
    return [dataclasses.replace(first, array=array, groups=tuple(groups), band=band)]


def of_other_axes(eqn: Any, value: Map) -> list[Value]:
    """An operation that leaves rows and columns alone, done at full size; axes stay where they are."""
    return [value.rebuilt(y) for y in rebound(eqn, value.merged())]


@rule("cumsum", "cumprod", "cummax", "cummin", "cumlogsumexp", "sort", "top_k")
def along_channels(how: Transformation, eqn: Any, value: Map, *others: Held) -> list[Value]:
    """Kept at full size where it runs along channels."""
    axis = eqn.params.get("axis", eqn.params.get("dimension", value.ndim - 1))
    if others or value.spatial(axis):
        raise TransformError(
            eqn,
            "runs along rows or columns",
            "It depends on where the map begins: let it run along channels",
        )
    if eqn.primitive.name != "cumsum":
        value = how.not_pointwise(eqn, value, "compares or multiplies channels,")
    return of_other_axes(eqn, value)

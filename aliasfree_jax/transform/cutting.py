"""Rules of padding, slicing and joining. Along rows and columns they move a window round the circle."""

import dataclasses
import itertools
from collections.abc import Hashable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aliasfree_jax.transform.bands import joined
from aliasfree_jax.transform.elementwise import side_by_side
from aliasfree_jax.transform.grids import ONE, Grid
from aliasfree_jax.transform.interpreter import Transformation, TransformError, rebound, rule
from aliasfree_jax.transform.maps import Group, Map, every, exchanged
from aliasfree_jax.transform.reporting import WHOLE
from aliasfree_jax.transform.shapes import of_other_axes
from aliasfree_jax.transform.upsampling import upsampled
from aliasfree_jax.transform.values import Held, Plain, Value, first_map, varies


def _direction(eqn: Any, value: Map, dim: int) -> int:
    """0 for the program's axis of rows, 1 for that of columns."""
    dims = value.space_dims()
    if dim not in dims:
        raise TransformError(
            eqn,
            "cuts an axis in which rows or columns are merged with other axes",
            "Keep rows and columns as separate axes",
        )
    return dims.index(dim)


@rule("pad")
def pad(how: Transformation, eqn: Any, value: Held, fill: Held) -> list[Value]:
    """Rows and columns continue round the circle. The program's padding value is ignored there."""
    if not isinstance(value, Map) or not isinstance(fill, Plain):
        raise TransformError(eqn, "pads by values of a map", "Pad by a constant")
    config = list(eqn.params["padding_config"])
    spatial = [dim for dim in range(value.ndim) if value.spatial(dim) and any(config[dim])]
    value = how.settle(eqn, value) if spatial else value
    directions = [_direction(eqn, value, dim) for dim in spatial]
    for direction, dim in zip(directions, spatial, strict=True) if how.circular else ():
        low, high, zeros = config[dim]
        if zeros:
            value = upsampled(how, eqn, value, exchanged(ONE, direction, zeros + 1))
        how.padded(eqn, (low - zeros, high - zeros))
        seen = value.seen_sides[direction] - zeros + low + high
        value = value.windowed(direction, value.first[direction] - low, seen)
        config[dim] = (0, 0, 0)
    if not any(map(any, config)):
        return [value]
    (padded,) = of_other_axes(eqn, value, fill.full(), padding_config=tuple(config))
    padded = _other_images(padded, [dim for dim in range(value.ndim) if any(config[dim])])
    return [padded if how.circular else padded.all_seen()]


@rule("slice")
def cut(how: Transformation, eqn: Any, value: Map) -> list[Value]:
    """Moves the window of rows or columns. A stride samples them."""
    p = eqn.params
    strides = p["strides"] or (1,) * value.ndim
    return [_sliced(how, eqn, value, list(zip(p["start_indices"], p["limit_indices"], strides, strict=True)))]


@rule("split")
def split(how: Transformation, eqn: Any, value: Map) -> list[Value]:
    """Adjacent slices along one axis."""
    parts, results = [(0, length, 1) for length in value.shape], []
    for size, end in zip(eqn.params["sizes"], itertools.accumulate(eqn.params["sizes"]), strict=True):
        parts[eqn.params["axis"]] = (int(end - size), int(end), 1)
        results.append(_sliced(how, eqn, value, parts))
    return list(results)


def _sliced(how: Transformation, eqn: Any, value: Map, parts: Sequence[tuple[int, int, int]]) -> Map:
    """The slice (start, limit, stride) of a map along each of the program's axes."""
    whole = [(0, length, 1) for length in value.shape]
    changed = [dim for dim in range(value.ndim) if parts[dim] != whole[dim]]
    others = [dim for dim in changed if not value.spatial(dim)]
    for dim in filter(value.spatial, changed):
        value = _sampled(how, eqn, value, _direction(eqn, value, dim), *parts[dim])
    if any(value.counts_components(dim) and parts[dim][0] + 1 == parts[dim][1] for dim in others):
        how.found(
            eqn,
            WHOLE,
            "selects the same polyphase component for all images, which aliases",
            "Select it by the content of the components (layers.AdaptivePolyphase)",
        )
    if not others:
        return value
    array = value.merged()
    some = tuple((dim, value.shape[dim], *parts[dim]) for dim in others if value.of_images(dim))
    for dim in others:
        array = jax.lax.slice_in_dim(array, *parts[dim], dim)
    return _other_images(value, others, some).rebuilt(array)


def _sampled(
    how: Transformation, eqn: Any, value: Map, direction: int, start: int, limit: int, step: int
) -> Map:
    """Every `step`-th row (`direction` 0) or column from `start` to `limit`."""
    if value.stride[direction] != 1:
        value = how.settle(eqn, value)
    value = how.strided(eqn, value, exchanged(ONE, direction, step), "a strided slice")
    first, seen = value.first[direction] + start, every(limit - start, step)
    if how.circular and how.subsamples and step != 1 and seen != every(value.sides[direction], step):
        raise TransformError(eqn, "samples a part of the map", "Sample all of it, or pad it first")
    if not how.circular:  # keep up to the end of the last step
        stop = min(value.sides[direction], start + seen * step)
        first, array = 0, jax.lax.slice_in_dim(value.array, start, stop, 1, value.space[direction])
        value = value.like(array)
    value = value.windowed(direction, first, seen, step)
    return how.settle(eqn, value) if how.subsamples and value.whole else value


_PARTS = {
    "dynamic_slice": ("selects a part of the rows or columns", "Use the whole map"),
    "gather": ("gathers single rows or columns", "Pad with jnp.pad, resize with a filter, or slice"),
}


@rule(*_PARTS)
def part(how: Transformation, eqn: Any, value: Held, *at: Held) -> list[Value]:
    """Allowed if it selects all rows and columns, at indices that do not depend on a map."""
    if not isinstance(value, Map) or not all(isinstance(each, Plain) for each in at):
        raise TransformError(
            eqn, "selects a part at an index that depends on a map", "Use an index that does not"
        )
    sizes, numbers = list(eqn.params["slice_sizes"]), eqn.params.get("dimension_numbers")
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims) if numbers else ()
    chosen = (*gone, *numbers.start_index_map) if numbers else ()
    array = value.merged()
    for dim in filter(value.spatial, range(value.ndim)):
        if dim in chosen or sizes[dim] != value.shape[dim]:
            raise TransformError(eqn, *_PARTS[eqn.primitive.name])
        sizes[dim] = array.shape[dim]
    places = [each.full() for each in at if isinstance(each, Plain)]
    y = rebound(eqn, array, *places, slice_sizes=tuple(sizes))[0]
    paired = numbers.operand_batching_dims if numbers else ()  # each image has an index of its own
    others = [dim for dim in range(value.ndim) if dim in chosen or sizes[dim] != array.shape[dim]]
    value = _other_images(value, [dim for dim in others if dim not in paired])
    kept = [group for dim, group in enumerate(value.groups) if dim not in gone]
    sources: list[Group] = [()] * y.ndim
    for out, group in zip(numbers.offset_dims if numbers else range(y.ndim), kept, strict=True):
        sources[out] = group
    if numbers:
        sources = _indexed(value, numbers, sources)
    return [value.rebuilt(y, sources)]


def _indexed(value: Map, numbers: Any, sources: Sequence[Group]) -> list[Group]:
    """The base axes of a gathered array, with those of images that were selected by their numbers."""
    found, of_indices = list(sources), [out for out in range(len(sources)) if out not in numbers.offset_dims]
    for dim, place in zip(numbers.operand_batching_dims, numbers.start_indices_batching_dims, strict=True):
        found[of_indices[place]] = value.groups[dim]
    images = [value.groups[dim] for dim in numbers.collapsed_slice_dims if value.of_images(dim)]
    others = [out for out in of_indices if not found[out]]
    if len(images) == len(others) == 1:
        found[others[0]] = images[0]
    return found


@rule("rev")
def rev(how: Transformation, eqn: Any, value: Map) -> Sequence[Value]:
    """Reversed rows and columns can only pad a map (padding "reflect")."""
    along = any(map(value.spatial, eqn.params["dimensions"]))
    value = how.settle(eqn, value) if along else value
    if along and how.circular:
        return [dataclasses.replace(value, grid=Grid(value.grid, "mirrored"))]
    (reversed_,) = of_other_axes(eqn, value)
    return [_other_images(reversed_, eqn.params["dimensions"])]


def _other_images(value: Map, dims: Sequence[int], part: Hashable = None) -> Map:
    """The map on the grid of other images, if one of the axes `dims`, which an operation changes, has images.

    Grids are equal if both have the same `part`.
    """
    if not any(map(value.of_images, dims)):
        return value
    return dataclasses.replace(value, grid=value.grid.of_part(part or object()))


@rule("concatenate")
def concatenate(how: Transformation, eqn: Any, *values: Held) -> list[Value]:
    """Joins maps along channels. Along rows or columns, joining is padding."""
    dim = eqn.params["dimension"]
    # `jnp.pad` also joins empty arrays, for padding by 0.
    values = tuple(value for value in values if value.shape[dim]) or values[:1]
    along = any(isinstance(value, Map) and value.spatial(dim) for value in values)
    return [(_joined_places if along else _joined_channels)(how, eqn, dim, values)]


@rule("stack")
def stack(how: Transformation, eqn: Any, *values: Held) -> list[Value]:
    """Joins maps along a new axis."""
    axis = eqn.params["axis"]
    apart: list[Held] = []
    for value in values:
        array = jnp.expand_dims(value.merged() if isinstance(value, Map) else value.thin, axis)
        if isinstance(value, Map):
            apart.append(value.rebuilt(array, [*value.groups[:axis], (), *value.groups[axis:]]))
        else:
            apart.append(Plain(array, (*value.shape[:axis], 1, *value.shape[axis:])))
    return [_joined_channels(how, eqn, axis, apart)]


def _joined_places(how: Transformation, eqn: Any, dim: int, values: Sequence[Held]) -> Map:
    """Adjacent windows become one window. Constants and mirror images beside a whole map are padding."""
    values = how.settled(eqn, values)
    whole = max(
        (value for value in values if isinstance(value, Map)),
        key=lambda value: value.shape[dim] - 10**9 * value.grid.mirrored,
    )
    direction = _direction(eqn, whole, dim)
    if not how.circular:
        arrays = [value.merged() if isinstance(value, Map) else value.full() for value in values]
        return whole.rebuilt(jax.lax.concatenate(arrays, dim)).all_seen()
    first = end = whole.first[direction] - sum(value.shape[dim] for value in values[: values.index(whole)])
    padding = 0
    for value in values:
        goes_on = (
            isinstance(value, Map)
            and value.array is whole.array
            and not value.grid.mirrored
            and (value.first[direction] - end) % whole.sides[direction] == 0
        )
        if not goes_on and whole.cut_off[direction]:
            reason = "continues a map from which rows or columns were cut off"
            raise TransformError(eqn, reason, "Use the whole map: pad the windows before it, cut nothing off")
        if not (goes_on or _pads(value, whole, dim)):
            raise TransformError(
                eqn,
                "joins different maps along rows or columns, or parts of one in another order",
                "Join them along channels, or use the map unchanged",
            )
        padding += 0 if goes_on else value.shape[dim]
        end += value.shape[dim]
    how.padded(eqn, (padding,))
    return whole.windowed(direction, first, end - first)


def _pads(value: Held, whole: Map, dim: int) -> bool:
    """Whether `value` beside the map is padding: constant along the axis, a mirror image, or a single row."""
    if isinstance(value, Plain):
        return not varies(value, whole)
    return value.grid.mirrored or (value.grid == whole.grid and 1 == value.shape[dim] < whole.shape[dim])


def _together(dim: int, values: Sequence[Held]) -> Sequence[Held]:
    """The values on the grid of the whole batch, if they are all its parts in their order."""
    maps = [value for value in values if isinstance(value, Map) and value.grid.kind == "some images"]
    if len(maps) < len(values) or len({(value.grid.source, value.grid.factor) for value in maps}) > 1:
        return values
    lengths = [value.shape[dim] for value in maps]
    parts = [
        ((dim, sum(lengths), end - length, end, 1),)
        for length, end in zip(lengths, itertools.accumulate(lengths), strict=True)
    ]
    if [value.grid.choice for value in maps] != parts:
        return values
    grid = maps[0].grid.source.sampled(maps[0].grid.factor)
    return [dataclasses.replace(value, grid=grid) for value in maps]


def _joined_channels(how: Transformation, eqn: Any, dim: int, values: Sequence[Held]) -> Map:
    """Joins maps on one grid along an axis that is not spatial."""
    whole = _together(dim, values)
    complete, values = whole is not values, side_by_side(how, eqn, whole)
    first = first_map(values)
    shape, arrays = list(first.merged().shape), []
    for value in values:
        shape[dim] = value.shape[dim]
        arrays.append(jnp.broadcast_to(value.merged() if isinstance(value, Map) else value.thin, shape))
    band = joined(value.band for value in values if isinstance(value, Map))
    joint = first.rebuilt(jax.lax.concatenate(arrays, dim), band=band)
    return joint if complete else _other_images(joint, [dim])

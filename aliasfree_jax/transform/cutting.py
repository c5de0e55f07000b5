"""Padding, slicing and joining: along rows and columns they are a window that moves on the circle."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aliasfree_jax.transform.bands import joined
from aliasfree_jax.transform.elementwise import side_by_side
from aliasfree_jax.transform.grids import Grid
from aliasfree_jax.transform.interpreter import Transformation, TransformError, rebound, rule
from aliasfree_jax.transform.maps import Map, Window
from aliasfree_jax.transform.reporting import WHOLE
from aliasfree_jax.transform.shapes import of_other_axes
from aliasfree_jax.transform.values import Held, Plain, Value

_NOT_ALONE = "Keep rows and columns as axes of their own"


def _place(eqn: Any, value: Map, dim: int) -> int:
    """0 for the program's axis of rows, 1 for that of columns."""
    dims = value.space_dims()
    if dim not in dims:
        raise TransformError(eqn, "cuts an axis in which rows or columns are merged with others", _NOT_ALONE)
    return dims.index(dim)


def _with_window(value: Map, place: int, window: Window, step: int = 1) -> Map:
    windows, strides = list(value.window), list(value.stride)
    windows[place], strides[place] = window, strides[place] * step
    return dataclasses.replace(value, window=(windows[0], windows[1]), stride=(strides[0], strides[1]))


def _literally(eqn: Any, how: Transformation, value: Map, **changes: Any) -> Map:
    """The operation as the program has it, of a settled map that lies on no circle."""
    value = how.settle(eqn, value)
    y = rebound(eqn, value.merged(), **changes)[0]
    return value.rebuilt(y).all_seen()


@rule("pad")
def pad(how: Transformation, eqn: Any, value: Map, fill: Held) -> list[Value]:
    """Rows and columns continue round the circle, whatever the program pads them by."""
    if not isinstance(value, Map) or not isinstance(fill, Plain):
        raise TransformError(eqn, "pads by values of a map", "Pad by a constant")
    config = eqn.params["padding_config"]
    spatial = [dim for dim in range(value.ndim) if value.spatial(dim) and any(config[dim])]
    if not spatial or not how.circular:
        value = how.settle(eqn, value) if spatial else value
        y = rebound(eqn, value.merged(), fill.full())[0]
        padded = value.rebuilt(y)
        return [padded.all_seen() if spatial else padded]
    value = how.settle(eqn, value)
    for dim in spatial:
        low, high, between = config[dim]
        if between:
            raise TransformError(
                eqn, "puts zeros between places", "Upsample by layers.IdealUpsample or PolyphaseUpsample"
            )
        how.padded(eqn, (low, high))
        place = _place(eqn, value, dim)
        first, length = value.window[place]
        value = _with_window(value, place, (first - low, length + low + high))
    rest = [(0, 0, 0) if dim in spatial else tuple(c) for dim, c in enumerate(config)]
    if not any(map(any, rest)):
        return [value]
    return [value.rebuilt(rebound(eqn, value.merged(), fill.full(), padding_config=tuple(rest))[0])]


@rule("slice")
def cut(how: Transformation, eqn: Any, value: Map) -> list[Value]:
    """A window of rows or columns; a stride samples them."""
    starts, limits = eqn.params["start_indices"], eqn.params["limit_indices"]
    strides = eqn.params["strides"] or (1,) * value.ndim
    return [sliced(how, eqn, value, starts, limits, strides)]


def sliced(
    how: Transformation,
    eqn: Any,
    value: Map,
    starts: Sequence[int],
    limits: Sequence[int],
    strides: Sequence[int],
) -> Map:
    """The map from `starts` to `limits` along the program's axes."""
    full = value.shape
    spatial = [
        dim
        for dim in range(value.ndim)
        if value.spatial(dim) and (starts[dim], limits[dim], strides[dim]) != (0, full[dim], 1)
    ]
    for dim in spatial:
        place = _place(eqn, value, dim)
        value = _sliced_place(how, eqn, value, place, starts[dim], limits[dim], strides[dim])
    others = [dim for dim in range(value.ndim) if not value.spatial(dim)]
    if all((starts[dim], limits[dim], strides[dim]) == (0, full[dim], 1) for dim in others):
        return value
    array = value.merged()
    if any(value.counts_components(dim) and starts[dim] + 1 == limits[dim] for dim in others):
        how.found(
            eqn,
            WHOLE,
            "takes the same polyphase component of all images, which aliases",
            "Choose it by what the components hold (layers.AdaptivePolyphase)",
        )
    for dim in others:
        array = jax.lax.slice_in_dim(array, starts[dim], limits[dim], strides[dim], dim)
    return value.rebuilt(array)


def _sliced_place(
    how: Transformation, eqn: Any, value: Map, place: int, start: int, limit: int, step: int
) -> Map:
    """Rows (`place` 0) or columns from `start` to `limit`, every `step`-th."""
    if value.stride[place] != 1:
        value = how.settle(eqn, value)
    strides = (step, 1) if place == 0 else (1, step)
    (first, length), axis, array = value.window[place], value.space[place], value.array
    value = how.strided(eqn, value, strides, "a strided slice")
    if how.circular and (step == 1 or not how.subsamples):
        return _with_window(value, place, (first + start, limit - start), step)
    count = -(-(limit - start) // step)
    if how.circular:
        side = value.sides[place]
        if count != -(-side // step):
            raise TransformError(eqn, "samples a part of the map", "Sample all of it, or pad it first")
        array, start, limit = jnp.roll(array, -(first + start), axis), 0, side
    elif not how.subsamples:
        limit = min(length, start + count * step)
    array = jax.lax.slice_in_dim(array, start, limit, step if how.subsamples else 1, axis)
    grid = value.grid.sampled(strides) if how.subsamples else value.grid
    value = dataclasses.replace(value, array=array, grid=grid)
    return _with_window(value, place, (0, array.shape[axis]), 1 if how.subsamples else step)


@rule("split")
def split(how: Transformation, eqn: Any, value: Map) -> list[Value]:
    """Slices side by side."""
    axis, results, start = eqn.params["axis"], [], 0
    for size in map(int, eqn.params["sizes"]):
        starts, limits = [0] * value.ndim, list(value.shape)
        starts[axis], limits[axis] = start, start + size
        results.append(sliced(how, eqn, value, starts, limits, (1,) * value.ndim))
        start += size
    return list(results)


@rule("dynamic_slice")
def dynamic_slice(how: Transformation, eqn: Any, value: Held, *starts: Held) -> list[Value]:
    """Kept where it takes all rows and columns."""
    sizes = list(eqn.params["slice_sizes"])
    if not isinstance(value, Map) or not all(isinstance(start, Plain) for start in starts):
        raise TransformError(eqn, "takes a part at a place that depends on a map", "Choose it by a constant")
    if any(value.spatial(dim) and sizes[dim] != value.shape[dim] for dim in range(value.ndim)):
        raise TransformError(eqn, "takes a part of the rows or columns", "Use the whole map")
    array = value.merged()
    sizes = [array.shape[d] if value.spatial(d) else size for d, size in enumerate(sizes)]
    y = jax.lax.dynamic_slice(array, [s.full() for s in starts if isinstance(s, Plain)], sizes)
    return [value.rebuilt(y)]


@rule("gather")
def gather(how: Transformation, eqn: Any, value: Held, indices: Held) -> list[Value]:
    """Kept where it takes all rows and columns, of channels that do not depend on a map."""
    numbers, sizes = eqn.params["dimension_numbers"], list(eqn.params["slice_sizes"])
    if not isinstance(value, Map) or not isinstance(indices, Plain):
        raise TransformError(eqn, "gathers at places that depend on a map", "Choose them by a constant")
    spatial = [dim for dim in range(value.ndim) if value.spatial(dim)]
    gone = (*numbers.collapsed_slice_dims, *numbers.operand_batching_dims)
    touched = {*numbers.start_index_map, *gone}
    if touched & set(spatial) or any(sizes[dim] != value.shape[dim] for dim in spatial):
        raise TransformError(
            eqn, "gathers rows or columns one by one", "Pad by jnp.pad, resize by a filter, or slice"
        )
    array = value.merged()
    sizes = [array.shape[d] if d in spatial else size for d, size in enumerate(sizes)]
    y = rebound(eqn, array, indices.full(), slice_sizes=tuple(sizes))[0]
    kept = [dim for dim in range(value.ndim) if dim not in gone]
    sources: list[Any] = [None] * y.ndim
    for out, dim in zip(numbers.offset_dims, kept, strict=True):
        sources[out] = value.groups[dim] if dim in spatial or len(value.groups[dim]) == 1 else None
    return [value.rebuilt(y, sources)]


@rule("rev")
def rev(how: Transformation, eqn: Any, value: Map) -> list[Value]:
    """Rows and columns that run backwards can pad a map ("reflect"), nothing else."""
    if not any(value.spatial(dim) for dim in eqn.params["dimensions"]):
        return of_other_axes(eqn, value)
    if not how.circular:
        return [_literally(eqn, how, value)]
    return [dataclasses.replace(how.settle(eqn, value), grid=Grid(value.grid, "mirrored"))]


@rule("concatenate")
def concatenate(how: Transformation, eqn: Any, *values: Held) -> list[Value]:
    """Maps one behind the other along channels; along rows or columns it is padding."""
    dim = eqn.params["dimension"]
    values = tuple(value for value in values if value.shape[dim]) or values[:1]  # numpy pads by nothing, too
    along = any(isinstance(value, Map) and value.spatial(dim) for value in values)
    return [(_joined_places if along else _joined_channels)(how, eqn, dim, values)]


def _joined_places(how: Transformation, eqn: Any, dim: int, values: Sequence[Held]) -> Map:
    """Windows side by side are one window; constants and mirror images beside a whole map are padding."""
    values = [how.settle(eqn, value) if isinstance(value, Map) else value for value in values]
    maps = [value for value in values if isinstance(value, Map)]
    whole = max(maps, key=lambda value: value.shape[dim] - 10**9 * (value.grid.kind == "mirrored"))
    if not how.circular:
        arrays = [value.merged() if isinstance(value, Map) else value.full() for value in values]
        joined = jax.lax.concatenate(arrays, dim)
        return whole.rebuilt(joined).all_seen()
    place = _place(eqn, whole, dim)
    side = whole.sides[place]
    before = sum(value.shape[dim] for value in values[: values.index(whole)])
    first = end = whole.window[place][0] - before
    padding = 0
    for value in values:
        part = value if isinstance(value, Map) and value.array is whole.array else None
        part = None if part and part.grid.kind == "mirrored" else part
        if part and (part.window[place][0] - end) % side == 0:
            pass  # it goes on round the circle
        elif not whole.cut_off[place] and (_pads(value, whole, dim) or (part and value.shape[dim] == 1)):
            padding += value.shape[dim]
        elif part and whole.cut_off[place]:
            reason = "continues a map of which rows or columns are left out"
            raise TransformError(eqn, reason, "Use the whole map (pad windows before it, cut nothing off)")
        elif part:
            raise TransformError(eqn, "joins parts of a map in another order", "Use the map as it is")
        else:
            raise TransformError(eqn, "joins different maps along rows or columns", "Join along channels")
        end += value.shape[dim]
    how.padded(eqn, (padding,))
    return _with_window(whole, place, (first, end - first))


def _pads(value: Held, whole: Map, dim: int) -> bool:
    """Whether `value` beside the map is padding: a mirror image of a map, or constant along the axis."""
    if isinstance(value, Map):
        return value.grid.kind == "mirrored"
    return isinstance(value, Plain) and not any(
        value.thin.shape[d] > 1 for d in range(whole.ndim) if whole.spatial(d)
    )


def _joined_channels(how: Transformation, eqn: Any, dim: int, values: Sequence[Held]) -> Map:
    """Maps on one grid one behind the other, along an axis that is not spatial."""
    values = side_by_side(how, eqn, values)
    first = next(value for value in values if isinstance(value, Map))
    if any(isinstance(v, Plain) and not _pads(v, first, dim) for v in values):
        how.found(
            eqn,
            WHOLE,
            "joins a map with values that differ from place to place",
            "Leave the coordinates out",
        )
        values = [how.seen(eqn, value) if isinstance(value, Map) else value for value in values]
        first = next(value for value in values if isinstance(value, Map))
    starts = (first.window[0][0], first.window[1][0])
    shape, arrays = list(first.merged().shape), []
    for value in values:
        if isinstance(value, Map):
            arrays.append((value.begun_at(starts) if how.circular else value).merged())
        elif isinstance(value, Plain):
            arrays.append(jnp.broadcast_to(value.thin, [*shape[:dim], value.shape[dim], *shape[dim + 1 :]]))
    sources = [g if d != dim or len(g) == 1 else None for d, g in enumerate(first.groups)]
    band = joined(value.band for value in values if isinstance(value, Map))
    return first.rebuilt(jax.lax.concatenate(arrays, dim), sources, band=band)

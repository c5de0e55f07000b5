"""Convolutions and pools: at stride 1 on the circle, with their stride pending."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aliasfree_jax.transform.grids import ONE, Strides
from aliasfree_jax.transform.interpreter import SHORTCUT, Transformation, TransformError, rebound, rule
from aliasfree_jax.transform.maps import Map
from aliasfree_jax.transform.reporting import WHOLE
from aliasfree_jax.transform.values import Held, Plain, Value, plain

Amounts = Sequence[tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Windows:
    """How windows lie on a map.

    Attributes:
      dims: the program's axes of rows and columns.
      sizes: of the windows, dilation included.
      padding, strides: of rows and columns as the program has them.
    """

    dims: tuple[int, int]
    sizes: tuple[int, int]
    padding: Amounts
    strides: Strides

    def outputs(self, seen: Strides) -> Strides:
        """At how many places there is a full window."""
        rows, columns = (
            (side + sum(amount) - size) // stride + 1
            for side, amount, size, stride in zip(seen, self.padding, self.sizes, self.strides, strict=True)
        )
        return rows, columns


def space_of(eqn: Any, value: Map) -> tuple[int, int]:
    """The program's axes of rows and columns."""
    rows, columns = value.space_dims()
    if rows is None or columns is None:
        raise TransformError(
            eqn, "has windows over an axis in which rows or columns are merged", "Keep them apart"
        )
    return rows, columns


def laid(
    how: Transformation, eqn: Any, value: Map, windows: Windows, what: str
) -> tuple[jax.Array, Amounts, Strides, dict[str, Any]]:
    """The array, padding and strides to compute with, and what changes in the map.

    Raises:
      TransformError: windows that leave places out.
    """
    outputs = windows.outputs(value.seen_sides)
    value = how.strided(eqn, value, windows.strides, what)
    if not how.circular:
        return _literal(how, value, windows, outputs)
    circle = [-(-side // stride) for side, stride in zip(value.sides, windows.strides, strict=True)]
    if any(n > c and stride > 1 for n, c, stride in zip(outputs, circle, windows.strides, strict=True)):
        raise TransformError(
            eqn,
            f"samples {outputs[0]} x {outputs[1]} places of a circle that has {circle[0]} x {circle[1]}",
            "Pad by less, so that the map's size is divided by the stride",
        )
    cut = [-(-n // stride) for n, stride in zip(value.cut_off, windows.strides, strict=True)]
    trimmed = [max(c - n - less, 0) for n, c, less in zip(outputs, circle, cut, strict=True)]
    if any(trimmed):
        how.found(
            eqn,
            WHOLE,
            f"windows of {windows.sizes[0]} x {windows.sizes[1]} leave out the border",
            'Pad circularly (padding="CIRCULAR"), or transform by shift_invariant',
        )
    how.padded(eqn, [amount for both in windows.padding for amount in both])
    if how.subsamples:
        how.uneven(eqn, value.sides, windows.strides)
    strides, pending = (windows.strides, ONE) if how.subsamples else (ONE, windows.strides)
    counts = circle if how.subsamples else value.sides
    array = value.merged()
    for dim, side, size, (low, _), (first, _), n, stride in zip(
        windows.dims, value.sides, windows.sizes, windows.padding, value.window, counts, strides, strict=True
    ):
        array = _round_the_circle(array, dim, low - first, (n - 1) * stride + size - side - (low - first))
    rows, columns = ((n - 1) * left + 1 for n, left in zip(outputs, pending, strict=True))
    changes = {
        "stride": pending,
        "window": ((0, rows), (0, columns)),
        "trimmed": (trimmed[0], trimmed[1]),
        "band": value.band,
        "grid": value.grid.sampled(windows.strides) if how.subsamples else value.grid,
    }
    return array, ((0, 0), (0, 0)), strides, changes


def _round_the_circle(array: jax.Array, dim: int, low: int, high: int) -> jax.Array:
    """`array` with its last `low` places before it and its first `high` behind; negative ones are cut off."""
    side = array.shape[dim]
    if low < 0 or high < 0:
        array, low, high = jnp.roll(array, low, dim), 0, low + high
    if high < 0:
        return jax.lax.slice_in_dim(array, 0, side + high, 1, dim)
    if not low and not high:
        return array
    widths = [(0, 0)] * array.ndim
    widths[dim] = (low, high)
    return jnp.pad(array, widths, mode="wrap")


def _literal(
    how: Transformation, value: Map, windows: Windows, outputs: Strides
) -> tuple[jax.Array, Amounts, Strides, dict[str, Any]]:
    """As the program has it; a stride that stays pending needs places up to the last block's end."""
    if how.subsamples:
        return (
            value.merged(),
            windows.padding,
            windows.strides,
            {"grid": value.grid.sampled(windows.strides), "stride": ONE},
        )
    padding = []
    for side, (low, high), size, stride, n in zip(
        value.sides, windows.padding, windows.sizes, windows.strides, outputs, strict=True
    ):
        full = side if -(-side // stride) == n else n * stride
        padding.append((low, high if stride == 1 else full - 1 + size - side - low))
    return value.merged(), padding, ONE, {"stride": windows.strides}


def placed(value: Map, y: jax.Array, sources: Sequence[Any], changes: dict[str, Any]) -> Map:
    """The map of a result: with the window that `changes` has, or all of it."""
    result = value.rebuilt(y, sources, **changes)
    return result if "window" in changes else result.all_seen()


@rule("conv_general_dilated")
def convolution(how: Transformation, eqn: Any, value: Held, kernel: Held) -> list[Value]:
    """On the circle, with its stride pending."""
    if not isinstance(value, Map) or not isinstance(kernel, Plain):
        raise TransformError(eqn, "convolves by a map", "Convolve by a kernel that is no map of places")
    return [_convolved(how, eqn, how.settle(eqn, value), kernel, eqn.params["window_strides"])]


@rule(SHORTCUT)
def shortcut(how: Transformation, eqn: Any, value: Map, kernel: Plain) -> Sequence[Value]:
    """Sampled first and convolved then, which costs less, where the two commute."""
    value = how.settle(eqn, value)
    numbers = eqn.params["dimension_numbers"].lhs_spec[2:]
    rows, columns = (eqn.params["window_strides"][numbers.index(dim)] for dim in space_of(eqn, value))
    if not how.commutes(value.grid, (rows, columns)):
        return convolution(how, eqn, value, kernel)
    coarse = how.settle(eqn, dataclasses.replace(value, stride=(rows, columns)))
    return [_convolved(how, eqn, coarse, kernel, ONE)]


def _convolved(how: Transformation, eqn: Any, value: Map, kernel: Plain, by: Sequence[int]) -> Map:
    """The convolution by strides `by`, in the order of the equation."""
    p = eqn.params
    numbers = p["dimension_numbers"]
    if value.space_dims() == [None, None] and _taps(value) == tuple(p["window_strides"]):
        return _of_taps(eqn, value, kernel)
    dims = space_of(eqn, value)
    if set(numbers.lhs_spec[2:]) != set(dims) or p["batch_group_count"] != 1:
        raise TransformError(eqn, "is no convolution over rows and columns", "Convolve over both")
    if any(d != 1 for d in p["lhs_dilation"]):
        raise TransformError(
            eqn,
            "is a transposed convolution",
            "Upsample by layers.IdealUpsample or PolyphaseUpsample, then convolve",
        )
    first, second = (numbers.lhs_spec[2:].index(dim) for dim in dims)  # where the equation has rows, columns
    sizes = [
        (kernel.shape[axis] - 1) * dilation + 1
        for axis, dilation in zip(numbers.rhs_spec[2:], p["rhs_dilation"], strict=True)
    ]
    pads = p["padding"]
    windows = Windows(
        dims, (sizes[first], sizes[second]), (pads[first], pads[second]), (by[first], by[second])
    )
    array, padding, strides, changes = laid(how, eqn, value, windows, "a strided convolution")
    back = (strides[first], strides[second]), (padding[first], padding[second])  # a swap undoes itself
    y = rebound(eqn, array, kernel.full(), window_strides=back[0], padding=back[1])[0]
    sources: list[Any] = [None] * y.ndim
    sources[numbers.out_spec[0]] = value.groups[numbers.lhs_spec[0]]
    sources[numbers.out_spec[2:][first]] = (value.space[0],)
    sources[numbers.out_spec[2:][second]] = (value.space[1],)
    return placed(value, y, sources, changes)


def _taps(value: Map) -> tuple[int, ...]:
    """How many samples stand side by side for each row and each column (`own.ideal_strided_taps`)."""
    return tuple(
        math.prod(value.array.shape[axis] for axis in group[1:])
        for space in value.space
        for group in value.groups
        if group[:1] == (space,)
    )


def _of_taps(eqn: Any, value: Map, kernel: Plain) -> Map:
    """Windows of the samples that stand side by side: one for each place."""
    numbers, p = eqn.params["dimension_numbers"], eqn.params
    sizes = tuple(kernel.shape[axis] for axis in numbers.rhs_spec[2:])
    if sizes != tuple(p["window_strides"]) or any(map(any, p["padding"])) or set(p["rhs_dilation"]) != {1}:
        raise TransformError(eqn, "has windows across places and their taps", "Convolve by the taps' number")
    y = rebound(eqn, value.merged(), kernel.full())[0]
    sources: list[Any] = [None] * y.ndim
    sources[numbers.out_spec[0]] = value.groups[numbers.lhs_spec[0]]
    for dim, out in zip(numbers.lhs_spec[2:], numbers.out_spec[2:], strict=True):
        sources[out] = value.groups[dim][:1]
    return placed(value, y, sources, {})


@rule("reduce_window_max", "reduce_window_min", "reduce_window_sum")
def pool(how: Transformation, eqn: Any, value: Map) -> list[Value]:
    """On the circle, with its stride pending; one window over all places is invariant."""
    value, p = how.settle(eqn, value), eqn.params
    sizes, strides, padding = p["window_dimensions"], p["window_strides"], p["padding"]
    others = [d for d in range(value.ndim) if value.spatial(d) is False and (sizes[d], strides[d]) != (1, 1)]
    dims = space_of(eqn, value)
    if others or any(d != 1 for d in (*p["base_dilation"], *(p["window_dilation"][d] for d in dims))):
        raise TransformError(eqn, "pools over channels or with gaps", "Pool over rows and columns")
    pick = lambda each: (each[dims[0]], each[dims[1]])  # noqa: E731
    windows = Windows(dims, pick(sizes), pick(padding), pick(strides))
    if windows.sizes == value.seen_sides and windows.outputs(value.seen_sides) == ONE:
        return [_over_all(how, eqn, value, dims)]
    name = eqn.primitive.name.removeprefix("reduce_window_")
    if name != "sum":
        value = how.not_pointwise(eqn, value, f"is a {name} pool,")
    array, padding, now, changes = laid(how, eqn, value, windows, f"a strided {name} pool")
    full = lambda few, one: tuple(few[dims.index(d)] if d in dims else one for d in range(value.ndim))  # noqa: E731
    y = rebound(eqn, array, window_strides=full(now, 1), padding=full(padding, (0, 0)))[0]
    return [placed(value, y, value.groups, changes)]


def _over_all(how: Transformation, eqn: Any, value: Map, dims: tuple[int, int]) -> Plain:
    """One window over the whole map: invariant. Sums count the places that the program counts."""
    array, sizes = how.seen(eqn, value).merged(), list(eqn.params["window_dimensions"])
    for dim, side in zip(dims, value.sides, strict=True):
        sizes[dim] = side
    y = rebound(eqn, array, window_dimensions=tuple(sizes))[0]
    return plain(y * value.share if eqn.primitive.name == "reduce_window_sum" and value.share != 1 else y)


@rule("depthwise_shifted_sum")
def depthwise(how: Transformation, eqn: Any, value: Held, kernel: Held) -> list[Value]:
    """This package's own depthwise convolution of [..., H, W, C]."""
    if not isinstance(value, Map) or not isinstance(kernel, Plain):
        raise TransformError(eqn, "convolves by a map", "Convolve by a kernel that is no map of places")
    value = how.settle(eqn, value)
    dims = space_of(eqn, value)
    amounts, mode = eqn.params["amounts"], eqn.params["padding"]
    if not how.circular or (mode == "CIRCULAR" and value.whole):
        value = how.from_start(eqn, value)
        y = rebound(eqn, value.merged(), kernel.full())[0]
        return [placed(value, y, value.groups, {} if not how.circular else {"window": value.window})]
    if mode == "CIRCULAR":
        raise TransformError(eqn, "pads a part of a map round a circle of its own", "Use the whole map")
    windows = Windows(dims, (kernel.shape[0], kernel.shape[1]), amounts, ONE)
    array, padding, _, changes = laid(how, eqn, value, windows, "a depthwise convolution")
    y = rebound(eqn, array, kernel.full(), amounts=padding)[0]
    return [placed(value, y, value.groups, changes)]

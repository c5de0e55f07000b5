"""Rules of convolutions and pools: they run at stride 1 on the circle, and their stride becomes pending."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aliasfree_jax.transform.grids import ONE
from aliasfree_jax.transform.interpreter import (
    SHORTCUT,
    Transformation,
    TransformError,
    one_image,
    rebound,
    rule,
)
from aliasfree_jax.transform.maps import Group, Map, both, every
from aliasfree_jax.transform.reporting import WHOLE
from aliasfree_jax.transform.upsampling import upsampled
from aliasfree_jax.transform.values import Held, Plain, Value, plain


@dataclasses.dataclass(frozen=True)
class Window:
    """The windows along one axis.

    Attributes:
      size: Length of a window, including dilation.
      padding: Positions added before and after the axis.
      stride: Step between windows.
      zeros: Number of zeros between the positions of the input (a transposed convolution).
    """

    size: int
    padding: tuple[int, int]
    stride: int
    zeros: int = 0


Windows = Mapping[int, Window]  # by the program's axes


def windowed(
    how: Transformation, eqn: Any, value: Map, windows: Windows, what: str, *others: jax.Array, **changes: Any
) -> Map:
    """Runs an operation on windows of a settled map.

    Args:
      how: The transformation.
      eqn: The operation.
      value: The map.
      windows: The windows along each axis of the operation, in its order.
      what: Name of the operation, for findings.
      *others: Its other operands.
      **changes: Arguments of `Map.rebuilt`.

    Returns:
      The map, with its stride pending.

    Raises:
      TransformError: The strided windows do not fit on the circle.
    """
    dims = _space_of(eqn, value)
    along = [windows[dim] for dim in dims]
    strides = both(lambda window: window.stride, along)
    seen = both(lambda n, w: (n + sum(w.padding) - w.size) // w.stride + 1, value.seen_sides, along)
    value = how.strided(eqn, value, strides, what)
    trimmed = _left_out(how, eqn, value, along, seen) if how.circular else (0, 0)
    now, pending = (strides, ONE) if how.subsamples else (ONE, strides)
    array, bound = value.merged(), dict(windows)
    for dim, side, first, n, step in zip(dims, value.sides, value.first, seen, now, strict=True):
        low, size, stride = windows[dim].padding[0] - first, windows[dim].size, windows[dim].stride
        whole = how.circular or every(side, stride) == n
        places = every(side, step) if whole else n * stride  # a pending stride needs the whole last block
        amounts = low, (places - 1) * step + size - side - low
        if how.circular:
            array, amounts = _round_the_circle(array, dim, *amounts), (0, 0)
        elif step == stride:
            amounts = windows[dim].padding
        bound[dim] = Window(size, amounts, step)
    padding = tuple(window.padding for window in bound.values())
    laid: dict[str, Any] = {"amounts": padding}
    if "window_strides" in eqn.params:
        laid = {"padding": padding, "window_strides": tuple(window.stride for window in bound.values())}
    laid |= {"lhs_dilation": ONE} if "lhs_dilation" in eqn.params else {}
    changes |= {"first": (0, 0), "seen_sides": seen, "stride": pending, "trimmed": trimmed}
    y = rebound(eqn, array, *others, **laid)[0]
    return value.rebuilt(y, grid=value.grid.sampled(now), **changes)


def _space_of(eqn: Any, value: Map) -> tuple[int, int]:
    """The program's axes of rows and columns."""
    rows, columns = value.space_dims()
    if rows is None or columns is None:
        raise TransformError(
            eqn,
            "has windows over an axis in which rows or columns are merged with other axes",
            "Keep rows and columns as separate axes",
        )
    return rows, columns


def _left_out(
    how: Transformation, eqn: Any, value: Map, along: Sequence[Window], seen: tuple[int, int]
) -> tuple[int, int]:
    """The number of positions that have no window in the program. Reports effects of the border."""
    strides = both(lambda window: window.stride, along)
    circle = both(every, value.sides, strides)
    if any(n > c and stride > 1 for n, c, stride in zip(seen, circle, strides, strict=True)):
        raise TransformError(
            eqn,
            f"samples {seen[0]} x {seen[1]} positions of a circle that has {circle[0]} x {circle[1]}",
            "Pad less, so that the output size is the map's size divided by the stride",
        )
    cut_off = both(every, value.cut_off, strides)
    trimmed = both(lambda c, n, cut: max(c - n - cut, 0), circle, seen, cut_off)
    if any(trimmed):
        how.found(
            eqn,
            WHOLE,
            f"windows of {along[0].size} x {along[1].size} leave out the border",
            'Pad circularly (padding="CIRCULAR"), or transform the network by shift_invariant',
        )
    how.padded(eqn, [amount for w in along for amount in (w.padding[0] - w.zeros, w.padding[1])])
    if how.subsamples:
        how.uneven(eqn, value.sides, strides)
    return trimmed


def _round_the_circle(array: jax.Array, dim: int, low: int, high: int) -> jax.Array:
    """Pads circularly by `low` positions before and `high` after. Negative amounts cut positions off."""
    if low < 0 or high < 0:
        array, low, high = jnp.roll(array, low, dim), 0, low + high
    if high < 0:
        return jax.lax.slice_in_dim(array, 0, array.shape[dim] + high, 1, dim)
    return jnp.pad(array, [(low, high) if d == dim else (0, 0) for d in range(array.ndim)], mode="wrap")


@rule("conv_general_dilated")
def convolution(how: Transformation, eqn: Any, value: Held, kernel: Held) -> list[Value]:
    """Runs on the circle, and its stride becomes pending."""
    value, kernel = _operands(how, eqn, value, kernel)
    return [_convolved(how, eqn, value, kernel, eqn.params["window_strides"])]


def _operands(how: Transformation, eqn: Any, value: Held, kernel: Held) -> tuple[Map, Plain]:
    if not isinstance(value, Map) or not isinstance(kernel, Plain):
        raise TransformError(
            eqn, "convolves with a map as the kernel", "Use a kernel that does not depend on the image"
        )
    return how.settle(eqn, value), kernel


@rule(SHORTCUT)
def shortcut(how: Transformation, eqn: Any, value: Map, kernel: Plain) -> Sequence[Value]:
    """Samples first and convolves then, if the two commute. This costs less."""
    value, strides = how.settle(eqn, value), eqn.params["window_strides"]
    numbers = eqn.params["dimension_numbers"].lhs_spec[2:]
    by = both(lambda dim: strides[numbers.index(dim)], _space_of(eqn, value))
    if not how.commutes(value.grid, by):
        return [_convolved(how, eqn, value, kernel, strides)]
    coarse = how.settle(
        eqn, dataclasses.replace(value, stride=by, seen_sides=both(every, value.seen_sides, by))
    )
    return [_convolved(how, eqn, coarse, kernel, ONE)]


def _convolved(how: Transformation, eqn: Any, value: Map, kernel: Plain, strides: Sequence[int]) -> Map:
    """The convolution by `strides`, in the order of the equation."""
    p, numbers = eqn.params, eqn.params["dimension_numbers"]
    dims = numbers.lhs_spec[2:]
    one_image(eqn, value, [numbers.lhs_spec[1]])
    if p["feature_group_count"] > 1 and value.of_images(numbers.lhs_spec[1]):
        raise TransformError(
            eqn,
            "has a kernel for each image",
            "Loop over images and kernels (jax.lax.map) instead of jax.vmap",
        )
    sizes = [
        (kernel.shape[axis] - 1) * dilation + 1
        for axis, dilation in zip(numbers.rhs_spec[2:], p["rhs_dilation"], strict=True)
    ]
    sources: list[Group] = [()] * len(numbers.out_spec)
    sources[numbers.out_spec[0]] = value.groups[numbers.lhs_spec[0]]
    for out, dim in zip(numbers.out_spec[2:], dims, strict=True):
        sources[out] = value.groups[dim][:1]
    if sizes == _taps(value, dims) == list(p["window_strides"]) and not any(map(any, p["padding"])):
        return value.rebuilt(rebound(eqn, value.merged(), kernel.full())[0], sources)
    _check_axes(eqn, value, dims)
    zeros = [dilation - 1 for dilation in p["lhs_dilation"]]
    padding = [(low, high - n) for (low, high), n in zip(p["padding"], zeros, strict=True)]
    windows = dict(zip(dims, map(Window, sizes, padding, strides, zeros), strict=True))
    if any(zeros):
        value = upsampled(how, eqn, value, both(lambda dim: windows[dim].zeros + 1, _space_of(eqn, value)))
    return windowed(how, eqn, value, windows, "a strided convolution", kernel.full(), sources=sources)


def _check_axes(eqn: Any, value: Map, dims: Sequence[int]) -> None:
    """Refuses a convolution whose windows are not along rows and columns, or that mixes images."""
    if {*dims} != {*_space_of(eqn, value)} or eqn.params.get("batch_group_count", 1) != 1:
        raise TransformError(eqn, "is not a convolution over rows and columns", "Convolve over both")


def _taps(value: Map, dims: Sequence[int]) -> list[int] | None:
    """The number of taps per position in each dimension, after `own.ideal_strided_taps`. Otherwise None."""
    groups = [value.groups[dim] for dim in dims]
    if sorted(group[0] for group in groups) != sorted(value.space) or any(len(g) == 1 for g in groups):
        return None
    return [math.prod(value.array.shape[axis] for axis in group[1:]) for group in groups]


@rule("reduce_window_max", "reduce_window_min", "reduce_window_sum", plains=True)
def pool(how: Transformation, eqn: Any, value: Map | Plain) -> list[Value]:
    """Runs on the circle, and its stride becomes pending. One window over all positions is invariant."""
    if isinstance(value, Plain):
        return [_of_constants(how, eqn, value)]
    value, p = how.settle(eqn, value), eqn.params
    dims = _space_of(eqn, value)
    windows = dict(enumerate(map(Window, p["window_dimensions"], p["padding"], p["window_strides"])))
    over_others = any(w != Window(1, (0, 0), 1) for dim, w in windows.items() if dim not in dims)
    if over_others or {*p["base_dilation"], *p["window_dilation"]} != {1}:
        raise TransformError(eqn, "pools over channels or with gaps", "Pool over rows and columns")
    name = eqn.primitive.name.removeprefix("reduce_window_")
    along = [(windows[dim].size, tuple(windows[dim].padding)) for dim in dims]
    if along == [(side, (0, 0)) for side in value.seen_sides]:
        return [_over_all(how, eqn, value, dims)]
    if name != "sum":
        value = how.not_pointwise(eqn, value, f"is a {name} pool,")
    return [windowed(how, eqn, value, windows, f"a strided {name} pool")]


def _of_constants(how: Transformation, eqn: Any, value: Plain) -> Plain:
    """Sums of constants are the sizes of windows, by which a mean pool divides. A circle has no border.

    Windows along one axis are those of a sequence, which has a border.
    """
    sizes = eqn.params["window_dimensions"]
    constant = all(size == 1 or n == 1 for size, n in zip(sizes, value.thin.shape, strict=True))
    over_both = sum(size > 1 for size in sizes) > 1
    if how.circular and constant and over_both and eqn.primitive.name == "reduce_window_sum":
        return Plain(value.thin * math.prod(sizes), tuple(eqn.outvars[0].aval.shape))
    return plain(rebound(eqn, value.full())[0])


def _over_all(how: Transformation, eqn: Any, value: Map, dims: tuple[int, int]) -> Plain:
    """One window over the whole map. Sums are scaled to the number of positions in the program."""
    value, sizes = how.seen(eqn, value), list(eqn.params["window_dimensions"])
    for dim, side in zip(dims, value.sides, strict=True):
        sizes[dim] = side
    sums = eqn.primitive.name == "reduce_window_sum"
    value = value if sums else how.not_pointwise(eqn, value, "is a pool of single positions,")
    y = rebound(eqn, value.merged(), window_dimensions=tuple(sizes))[0]
    return plain(value.counted(y) if sums else y)


@rule("depthwise_shifted_sum")
def depthwise(how: Transformation, eqn: Any, value: Held, kernel: Held) -> list[Value]:
    """The depthwise convolution of this package, on `[..., H, W, C]`."""
    value, kernel = _operands(how, eqn, value, kernel)
    taps, amounts, dims = kernel.full(), eqn.params["amounts"], (value.ndim - 3, value.ndim - 2)
    _check_axes(eqn, value, dims)
    if eqn.params["padding"] == "CIRCULAR":
        value = how.from_start(eqn, value)
        return [value.rebuilt(rebound(eqn, value.merged(), taps)[0])]
    windows = {
        dim: Window(size, amount, 1) for dim, size, amount in zip(dims, taps.shape, amounts, strict=False)
    }
    return [windowed(how, eqn, value, windows, "a depthwise convolution", taps)]

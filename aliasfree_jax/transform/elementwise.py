"""Rules of elementwise operations, which commute with subsampling, and of bringing maps to one grid."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aliasfree_jax.transform.bands import Band, joined
from aliasfree_jax.transform.interpreter import Transformation, TransformError, mixed, rebound, rule
from aliasfree_jax.transform.lines import here
from aliasfree_jax.transform.maps import Group, Map, both
from aliasfree_jax.transform.reporting import WHOLE
from aliasfree_jax.transform.values import Held, Plain, Pointwise, Value, first_map, laid_out, on_maps, varies

ELEMENTWISE = (
    "abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp convert_element_type copy "
    "copy_p cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt integer_pow is_finite le "
    "lgamma log log1p logistic lt max min mul ne neg nextafter not or pow real reduce_precision rem round "
    "rsqrt select_n sign sin sinh sqrt square stop_gradient sub tan tanh xor"
).split()


@rule(*ELEMENTWISE, plains=True, pointwise=True)
def elementwise(how: Transformation, eqn: Any, *values: Value) -> list[Value]:
    """Runs at full size. Pending strides stay pending, and non-linearities are evaluated later."""
    plains = [value for value in values if isinstance(value, Plain)]
    if len(plains) == len(values):
        return [Plain(_applied(eqn, [value.thin for value in plains]), tuple(eqn.outvars[0].aval.shape))]
    values = tuple(_stretched(how, eqn, value) for value in values)
    if how.activations is None or not _of_one_map(values):
        values = tuple(aligned(how, eqn, [how.realized(value) for value in values]))
    degree = _degree(eqn, values)
    if how.activations is not None and (degree > 1 or any(isinstance(v, Pointwise) for v in values)):
        return [_pointwise(eqn, values, degree)]
    first = first_map(values)
    arrays = [laid_out(value, first) for value in values if not isinstance(value, Pointwise)]
    return [dataclasses.replace(first, array=_applied(eqn, arrays), band=_band(eqn, values))]


_LINEAR = {"add", "add_any", "sub", "neg", "copy", "copy_p", "stop_gradient", "real", "reduce_precision"}


def _degree(
    eqn: Any,
    values: Sequence[Value],
    of: Callable[[Any], float] = lambda value: value.degree if isinstance(value, Pointwise) else 1,
) -> float:
    """Degree of the result as a polynomial of the maps. `of` returns another quantity that products add."""
    degrees = [0 if isinstance(value, Plain) else of(value) for value in values]
    match eqn.primitive.name:
        case "convert_element_type" if jnp.issubdtype(eqn.params["new_dtype"], jnp.inexact):
            return degrees[0]
        case name if name in _LINEAR:
            return max(degrees)
        case "mul":
            return sum(degrees)
        case "div" if degrees[1] == 0:
            return degrees[0]
        case "square":
            return 2 * degrees[0]
        case "integer_pow" if eqn.params["y"] > 0:
            return eqn.params["y"] * degrees[0]
        case "select_n" if degrees[0] == 0:
            return max(degrees)
    return math.inf


def _band(eqn: Any, values: Sequence[Value]) -> Band | None:
    """The band of the result."""
    bands = [value.band for value in values if not isinstance(value, Plain)]
    if not bands or None in bands:
        return None
    rows = _degree(eqn, values, lambda value: value.band.highest[0])
    return joined(bands, (rows, _degree(eqn, values, lambda value: value.band.highest[1])))


def _roots(values: Sequence[Value]) -> list[Map]:
    """The maps from which `values` are computed."""
    roots: dict[int, Map] = {}
    for value in values:
        each = value.roots if isinstance(value, Pointwise) else (value,) if isinstance(value, Map) else ()
        roots.update({id(root): root for root in each})
    return list(roots.values())


def _of_one_map(values: Sequence[Value]) -> bool:
    """Whether the values depend on one map only, and on no other value that differs between positions."""
    roots = _roots(values)
    return len(roots) == 1 and not any(isinstance(v, Plain) and varies(v, roots[0]) for v in values)


def _pointwise(eqn: Any, values: Sequence[Value], degree: float) -> Pointwise:
    """The operation on functions of maps of equal layout, to be evaluated later."""
    roots, functions = _roots(values), [value for value in values if isinstance(value, Pointwise)]
    if any(isinstance(value, Plain) and varies(value, roots[0]) for value in values):
        raise TransformError(
            eqn,
            "a non-linearity has an operand that differs between positions",
            "Use operands that depend on the channel only",
        )
    constants = {id(value): laid_out(value, roots[0]) for value in values if isinstance(value, Plain)}

    def compute(known: dict[int, jax.Array]) -> jax.Array:
        for function in functions:
            function.at(known)
        arrays = known | constants
        return _applied(eqn, [arrays[id(value)] for value in values])

    place = functions[0].place if functions else here(eqn)
    origin = functions[0].origin if functions else eqn
    band = _band(eqn, values)
    band = band and band.behind(place, degree)
    return Pointwise(tuple(roots), compute, degree, origin, eqn.outvars[0].aval.dtype, band=band, place=place)


def _applied(eqn: Any, arrays: Sequence[jax.Array]) -> jax.Array:
    """The operation on broadcast arrays. Scalars of the program stay scalars."""
    scalars = [not variable.aval.shape for variable in eqn.invars]
    shape = jnp.broadcast_shapes(*(a.shape for a, scalar in zip(arrays, scalars, strict=True) if not scalar))
    alike = [
        a.reshape(()) if scalar and shape else jnp.broadcast_to(a, shape)
        for a, scalar in zip(arrays, scalars, strict=True)
    ]
    return rebound(eqn, *alike)[0]


def aligned(how: Transformation, eqn: Any, values: Sequence[Held]) -> list[Held]:
    """The values, with all maps in the layout and window of the first map.

    Raises:
      TransformError: The maps are sampled at different positions.
    """
    values = on_one_grid(how, eqn, values)
    first = first_map(values)
    uneven = [value for value in values if isinstance(value, Plain) and varies(value, first)]
    if uneven:
        if not all(value.refused for value in uneven):
            how.found(
                eqn,
                WHOLE,
                "combines a map with values that differ between positions",
                "Remove them (a position embedding, a mask), or use values that depend on the channel only",
            )
        values = on_maps(lambda value: how.seen(eqn, value), values)
        first = first_map(values)
        if first.seen_sides != first.sides:
            raise TransformError(
                eqn,
                "combines values that differ between positions with a map whose border was left out",
                "Pad the windows before it",
            )
    trimmed = both(lambda *n: max(n), *(value.trimmed for value in values if isinstance(value, Map)))

    def alike(value: Map) -> Map:
        array = laid_out(value.begun_at(first.first), first)
        return dataclasses.replace(first, array=array, trimmed=trimmed, band=value.band)

    return on_maps(alike, values)


def on_one_grid(how: Transformation, eqn: Any, values: Sequence[Held]) -> list[Held]:
    """The maps among `values` on one grid and with one pending stride."""
    if len({(v.grid, v.stride, v.sides) for v in values if isinstance(v, Map)}) > 1:
        values = how.settled(eqn, values)
    if len({(v.grid, v.sides, v.places) for v in values if isinstance(v, Map)}) > 1:
        raise TransformError(
            eqn,
            "combines maps that are sampled at different positions",
            "Sample both by the same strides, from maps of equal size",
        )
    maps = [value for value in values if isinstance(value, Map) and value.grid.choices]
    if len(maps) > 1 and len({value.order_of_images() for value in maps}) > 1:
        raise mixed(eqn, "Combine each image with itself")
    return list(values)


def side_by_side(how: Transformation, eqn: Any, values: Sequence[Held]) -> list[Held]:
    """Aligns the maps among `values`, so that they can be channels of one map.

    Parts of one map that begin at different positions are sampled first. Together they would have equal
    samples at every phase, so that rounding would choose the phase.
    """
    values = on_one_grid(how, eqn, values)
    if len({(value.first, value.seen_sides) for value in values if isinstance(value, Map)}) > 1:
        values = how.settled(eqn, values)
    return aligned(how, eqn, values)


@rule("broadcast_in_dim", plains=True)
def broadcast(how: Transformation, eqn: Any, value: Map | Plain, *_: Value) -> list[Value]:
    """A plain array keeps its axes of length 1. A map gets new axes."""
    shape, dims = tuple(eqn.params["shape"]), eqn.params["broadcast_dimensions"]
    if isinstance(value, Plain):
        thin = [1] * len(shape)
        for axis, dim in enumerate(dims):
            thin[dim] = value.thin.shape[axis]
        return [Plain(value.thin.reshape(thin), shape)]
    return [_repeated(eqn, value, shape, dims)]


def _repeated(eqn: Any, value: Map, shape: tuple[int, ...], dims: Sequence[int]) -> Map:
    """The map with its axes at `dims` of `shape`, repeated along the others."""
    array, full, sources = value.merged(), list(shape), [Group()] * len(shape)
    for axis, dim in enumerate(dims):
        sources[dim] = value.groups[axis]
        if value.spatial(axis) and value.shape[axis] != shape[dim]:
            raise TransformError(eqn, "repeats a map along rows or columns", "Resize it with a filter")
        full[dim] = array.shape[axis] if value.spatial(axis) else shape[dim]
    return value.rebuilt(jax.lax.broadcast_in_dim(array, full, dims), sources)


def _stretched(how: Transformation, eqn: Any, value: Value) -> Value:
    """`value`, repeated along axes of length 1 that the operation broadcasts implicitly."""
    shape = tuple(eqn.outvars[0].aval.shape)
    if isinstance(value, Plain) or value.shape == shape:
        return value
    return _repeated(eqn, how.realized(value), shape, range(len(shape)))  # type: ignore[arg-type]

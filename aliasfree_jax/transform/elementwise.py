"""Operations on each element, which commute with taking every so many-th sample; and how maps are brought to
one grid for them.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aliasfree_jax.transform.bands import Band, joined
from aliasfree_jax.transform.interpreter import Transformation, TransformError, rebound, rule
from aliasfree_jax.transform.lines import here
from aliasfree_jax.transform.maps import Map
from aliasfree_jax.transform.reporting import WHOLE
from aliasfree_jax.transform.values import Held, Plain, Pointwise, Value, along_bases, laid_out, varies

ELEMENTWISE = (
    "abs acos acosh add and asin asinh atan atan2 atanh cbrt ceil clamp convert_element_type copy copy_p "
    "cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge gt integer_pow is_finite le lgamma "
    "log log1p logistic lt max min mul ne neg nextafter not or pow real reduce_precision rem round rsqrt "
    "select_n sign sin sinh sqrt square stop_gradient sub tan tanh xor"
).split()


@rule(*ELEMENTWISE, plains=True, pointwise=True)
def elementwise(how: Transformation, eqn: Any, *values: Value) -> list[Value]:
    """The operation at full size; what is pending stays so."""
    plains = [value for value in values if isinstance(value, Plain)]
    if len(plains) == len(values):
        return [_of_plains(eqn, *plains)]
    values = tuple(_stretched(how, eqn, value) for value in values)
    if how.activations is not None and _of_one_map(values):
        degree = _degree(eqn, values)
        if degree > 1 or any(isinstance(value, Pointwise) for value in values):
            return [_pointwise(eqn, values, _roots(values), degree)]
    held = [how.realized(value) for value in values]
    if how.activations is not None and (degree := _degree(eqn, held)) > 1:
        return [_of_several(how, eqn, held, degree)]
    arrays, first = aligned(how, eqn, held)
    return [dataclasses.replace(first, array=applied(eqn, arrays)[0], band=_band(eqn, held))]


_LINEAR = {"add", "sub", "neg", "copy", "copy_p", "stop_gradient", "real", "reduce_precision"}


def _degree(
    eqn: Any,
    values: Sequence[Value],
    of: Callable[[Any], float] = lambda value: value.degree if isinstance(value, Pointwise) else 1,
) -> float:
    """Of the result, as a polynomial of the maps among `values`; or what else, `of` each, products add up."""
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
    """Of the result."""
    bands = [value.band for value in values if not isinstance(value, Plain)]
    if not bands or None in bands:
        return None
    rows = _degree(eqn, values, lambda value: value.band.highest[0])
    return joined(bands, (rows, _degree(eqn, values, lambda value: value.band.highest[1])))


def _roots(values: Sequence[Value]) -> list[Map]:
    """The maps that `values` are functions of."""
    roots: dict[int, Map] = {}
    for value in values:
        each = value.roots if isinstance(value, Pointwise) else (value,) if isinstance(value, Map) else ()
        roots.update({id(root): root for root in each})
    return list(roots.values())


def _of_one_map(values: Sequence[Value]) -> bool:
    """Whether they are functions of one map, and of nothing else that differs from place to place."""
    roots = _roots(values)
    return len(roots) == 1 and not any(isinstance(v, Plain) and varies(v, roots[0]) for v in values)


def _pointwise(eqn: Any, values: Sequence[Value], roots: Sequence[Map], degree: float) -> Pointwise:
    """The operation on functions of the same maps, for later."""
    constants = [laid_out(value, roots[0]) if isinstance(value, Plain) else None for value in values]

    def compute(known: dict[int, jax.Array]) -> jax.Array:
        arrays = []
        for value, constant in zip(values, constants, strict=True):
            if isinstance(value, Pointwise):
                arrays.append(value.at(known))
            else:
                arrays.append(known[id(value)] if constant is None else constant)
        return applied(eqn, arrays)[0]

    origin = next((value.origin for value in values if isinstance(value, Pointwise)), eqn)
    result = Pointwise(tuple(roots), compute, degree, origin, eqn.outvars[0].aval.dtype)
    band = _band(eqn, values)
    if band is None:
        return result
    place = next((value.place for value in values if isinstance(value, Pointwise)), here(eqn))
    return dataclasses.replace(result, band=band.behind(place, degree), place=place)


def _of_several(how: Transformation, eqn: Any, values: Sequence[Held], degree: float) -> Pointwise:
    """A function of several maps, or of one and of values that differ from place to place, for later."""
    arrays, first = aligned(how, eqn, values)
    maps = tuple(
        dataclasses.replace(first, array=array, band=value.band) if isinstance(value, Map) else value
        for value, array in zip(values, arrays, strict=True)
    )
    if any(isinstance(value, Plain) and varies(value, first) for value in maps):
        raise TransformError(
            eqn,
            "a non-linearity takes values that differ from place to place",
            "Let them depend on the channel alone",
        )
    return _pointwise(eqn, maps, _roots(maps), degree)


def _of_plains(eqn: Any, *values: Plain) -> Plain:
    """Of values that are constant along some axes: so is the result."""
    y = applied(eqn, [value.thin for value in values])[0]
    return Plain(y, tuple(eqn.outvars[0].aval.shape))


def applied(eqn: Any, arrays: Sequence[jax.Array]) -> list[jax.Array]:
    """The operation on arrays that broadcast; scalars of the program stay scalars."""
    scalars = [not variable.aval.shape for variable in eqn.invars]
    shape = jnp.broadcast_shapes(*(a.shape for a, scalar in zip(arrays, scalars, strict=True) if not scalar))
    return rebound(
        eqn,
        *(
            a.reshape(()) if scalar and shape else jnp.broadcast_to(a, shape)
            for a, scalar in zip(arrays, scalars, strict=True)
        ),
    )


def aligned(how: Transformation, eqn: Any, values: Sequence[Held]) -> tuple[list[jax.Array], Map]:
    """The arrays of `values` along the base axes of the first map among them, and that map.

    Raises:
      TransformError: maps that are sampled at different places.
    """
    values = on_one_grid(how, eqn, values)
    first = next(value for value in values if isinstance(value, Map))
    uneven = [value for value in values if isinstance(value, Plain) and varies(value, first)]
    if uneven:
        if not all(value.refused for value in uneven):
            how.found(
                eqn,
                WHOLE,
                "combines a map with values that differ from place to place",
                "Remove them (a position embedding, a mask), or let them depend on the channel alone",
            )
        values = [how.seen(eqn, value) if isinstance(value, Map) else value for value in values]
        first = next(value for value in values if isinstance(value, Map))
        if first.seen_sides != first.sides:
            raise TransformError(
                eqn, "combines places with a map whose border was left out", "Pad the windows before it"
            )
    starts = (first.window[0][0], first.window[1][0])
    arrays = []
    for value in values:
        if isinstance(value, Plain):
            arrays.append(laid_out(value, first))
        else:
            arrays.append(arranged(value.begun_at(starts) if how.circular else value, first))
    trimmed = [value.trimmed for value in values if isinstance(value, Map)]
    rows, columns = (max(each) for each in zip(*trimmed, strict=True))
    return arrays, dataclasses.replace(first, trimmed=(rows, columns))


def on_one_grid(how: Transformation, eqn: Any, values: Sequence[Held]) -> list[Held]:
    """The maps among `values` on one grid and with one pending stride."""
    maps = [value for value in values if isinstance(value, Map)]
    if len({(value.grid, value.stride, value.sides) for value in maps}) > 1:
        values = [how.settle(eqn, value) if isinstance(value, Map) else value for value in values]
    maps = [value for value in values if isinstance(value, Map)]
    if len({(value.grid, value.places) for value in maps}) > 1:
        raise TransformError(
            eqn,
            "combines maps that are sampled at different places",
            "Sample both by the same strides, from maps of one size",
        )
    return list(values)


def side_by_side(how: Transformation, eqn: Any, values: Sequence[Held]) -> list[Held]:
    """The maps among `values`, to be channels of one map.

    Parts of one map that begin at different places are sampled first: together they would have the same
    samples at every phase, and rounding would choose.
    """
    values = on_one_grid(how, eqn, values)
    if len({value.window for value in values if isinstance(value, Map)}) > 1:
        return [how.settle(eqn, value) if isinstance(value, Map) else value for value in values]
    return values


def arranged(value: Map, by: Map) -> jax.Array:
    """The array of `value` with its base axes where those of `by` are; the program sees both alike."""
    if value.groups == by.groups and value.array.shape == by.array.shape:
        return value.array
    return along_bases(value.merged(), by)


@rule("broadcast_in_dim", plains=True)
def broadcast(how: Transformation, eqn: Any, value: Map | Plain, *_: Value) -> list[Value]:
    """A plain array stays thin; a map gets new axes."""
    shape, dims = tuple(eqn.params["shape"]), eqn.params["broadcast_dimensions"]
    if isinstance(value, Plain):
        thin = [1] * len(shape)
        for axis, dim in enumerate(dims):
            thin[dim] = value.thin.shape[axis]
        return [Plain(value.thin.reshape(thin), shape)]
    return [_repeated(eqn, value, shape, dims)]


def _repeated(eqn: Any, value: Map, shape: tuple[int, ...], dims: Sequence[int]) -> Map:
    """The map with its axes at `dims` of `shape`, repeated along the others."""
    if len(shape) - shape.count(1) == value.ndim - value.shape.count(1):  # only axes of length 1 are new
        groups: list[tuple[int, ...]] = [()] * len(shape)
        for axis, dim in enumerate(dims):
            groups[dim] = value.groups[axis]
        return dataclasses.replace(value, groups=tuple(groups))
    array = value.merged()
    sources: list[tuple[int, ...] | None] = [() if length == 1 else None for length in shape]
    full = list(shape)
    for axis, dim in enumerate(dims):
        if value.shape[axis] != shape[dim] and value.spatial(axis):
            raise TransformError(eqn, "repeats a map along rows or columns", "Resize it by a filter instead")
        sources[dim] = value.groups[axis] if value.groups[axis] or shape[dim] == 1 else None
        if value.spatial(axis):
            full[dim] = array.shape[axis]
        elif len(value.groups[axis]) > 1 and shape[dim] != array.shape[axis]:
            sources[dim] = None
    return value.rebuilt(jax.lax.broadcast_in_dim(array, full, dims), sources)


def _stretched(how: Transformation, eqn: Any, value: Value) -> Value:
    """`value`, repeated where the operation does so without saying it: along axes of length 1."""
    shape = tuple(eqn.outvars[0].aval.shape)
    if isinstance(value, Plain) or value.shape == shape:
        return value
    return _repeated(eqn, how.realized(value), shape, range(len(shape)))  # type: ignore[arg-type]

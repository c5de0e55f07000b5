"""Loops: `scan` (also `lax.map` and `fori_loop` over a known range) and `while`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aliasfree_jax.transform.control import Boundary, carried, settled_all
from aliasfree_jax.transform.interpreter import Transformation, TransformError, rule, run
from aliasfree_jax.transform.maps import Group, Map
from aliasfree_jax.transform.values import Held, Plain, Value, plain


def _counts(params: dict[str, Any]) -> tuple[int, int]:
    """How many operands of a scan are constants and how many are carried; jax 0.11 tells it by trees."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(consts), len(carry)


def _as(eqn: Any, value: Map | Plain, kind: Map | Plain) -> Map | Plain:
    """A value that is carried on, as what is carried in."""
    if isinstance(value, Plain) and isinstance(kind, Map):
        return kind.like(jnp.broadcast_to(value.full(), kind.shape))
    if isinstance(value, Map) and isinstance(kind, Map) and value.grid is not kind.grid:
        raise TransformError(eqn, "carries a map to another grid", "Sample outside of the loop")
    return value


@rule("scan")
def scan(how: Transformation, eqn: Any, *values: Held) -> Sequence[Value]:
    """Carries maps on settled grids; maps that are scanned over lose their first axis."""
    consts, moving = _counts(eqn.params)
    settled = settled_all(how, eqn, values)
    fixed, carry = settled[:consts], [carried(how, eqn, v) for v in settled[consts : consts + moving]]
    stacks = [carried(how, eqn, value) for value in settled[consts + moving :]]
    program = eqn.params["jaxpr"]
    while True:
        each = [_without_first(eqn, value) for value in stacks]
        boundary = Boundary(eqn, [*fixed, *carry, *each])

        def body(state: Any, rows: Any, boundary: Boundary = boundary) -> Any:
            fixed_arrays = boundary.arrays[:consts]
            inside = boundary.inside([*fixed_arrays, *state, *rows])
            results = [carried(how, eqn, r) for r in run(how, program.jaxpr, program.consts, inside)]
            kept = [_as(eqn, r, k) for r, k in zip(results, inside[consts : consts + moving], strict=False)]
            arrays = boundary.out([*kept, *results[moving:]])[0]
            return arrays[:moving], arrays[moving:]

        arrays = boundary.arrays
        rows = [value.array if isinstance(value, Map) else value.thin for value in stacks]
        jax.eval_shape(
            lambda *a: body(a[:moving], [r[0] for r in a[moving:]]),
            *arrays[consts : consts + moving],
            *rows,
        )
        grown = _grown(boundary, carry)
        if grown is None:
            break
        carry = grown
    params = {
        "length": eqn.params["length"],
        "reverse": eqn.params["reverse"],
        "unroll": eqn.params["unroll"],
    }
    last, ys = jax.lax.scan(body, arrays[consts : consts + moving], rows, **params)
    results = boundary.outside([*last, *(y[0] for y in ys)])
    images = any(isinstance(value, Map) and set(value.groups[0]) & set(value.batch) for value in stacks)
    return [
        *results[:moving],
        *(_with_first(r, y, images) for r, y in zip(results[moving:], ys, strict=True)),
    ]


def _grown(boundary: Boundary, carry: Sequence[Held]) -> list[Any] | None:
    """What is carried in, with maps where plain values become maps; None where nothing does."""
    new = boundary.outside(boundary.out(boundary.results)[0])[: len(carry)]
    if all(isinstance(a, Map) == isinstance(b, Map) for a, b in zip(new, carry, strict=True)):
        return None
    return [
        b.like(jnp.broadcast_to(a.full(), b.shape)) if isinstance(a, Plain) and isinstance(b, Map) else a
        for a, b in zip(carry, new, strict=True)
    ]


def _without_first(eqn: Any, value: Map | Plain) -> Map | Plain:
    """One of the stacked values. Its array is the whole stack's first, of which only the shape counts."""
    if isinstance(value, Plain):
        return Plain(value.thin[0], value.shape[1:])
    if value.spatial(0):
        raise TransformError(eqn, "loops over rows or columns", "Loop over images or channels")
    (axis,) = value.groups[0]
    groups = [_shifted(group, axis) for group in value.groups[1:]]
    space, batch = _shifted(value.space, axis), _shifted(tuple(b for b in value.batch if b != axis), axis)
    array = jax.lax.index_in_dim(value.array, 0, axis, keepdims=False)
    fields: dict[str, Any] = {
        "array": array,
        "groups": tuple(groups),
        "space": (space[0], space[1]),
        "batch": batch,
    }
    return dataclasses.replace(value, **fields)


def _shifted(axes: Group, removed: int) -> Group:
    return tuple(axis - (axis > removed) for axis in axes)


def _with_first(value: Held, stack: jax.Array, images: bool) -> Value:
    """The stack of such values; whether it is one of images."""
    if isinstance(value, Plain):
        return plain(stack)
    assert isinstance(value, Map)
    groups = ((0,), *(tuple(axis + 1 for axis in group) for group in value.groups))
    space = (value.space[0] + 1, value.space[1] + 1)
    batch = (*((0,) if images else ()), *(axis + 1 for axis in value.batch))
    return dataclasses.replace(value, array=stack, groups=groups, space=space, batch=batch)


@rule("while")
def loop(how: Transformation, eqn: Any, *values: Held) -> Sequence[Value]:
    """Carries maps on settled grids; the condition is no map."""
    p = eqn.params
    tests, bodies = p["cond_nconsts"], p["body_nconsts"]
    settled = settled_all(how, eqn, values)
    of_test, of_body = settled[:tests], settled[tests : tests + bodies]
    carry = [carried(how, eqn, value) for value in settled[tests + bodies :]]
    condition, body = (Boundary(eqn, [*fixed, *carry]) for fixed in (of_test, of_body))

    def turn(state: Any) -> Any:
        inside = body.inside([*body.arrays[:bodies], *state])
        results = run(how, p["body_jaxpr"].jaxpr, p["body_jaxpr"].consts, inside)
        kept = [_as(eqn, carried(how, eqn, r), k) for r, k in zip(results, inside[bodies:], strict=True)]
        return body.out(kept)[0]

    def goes_on(state: Any) -> Any:
        inside = condition.inside([*condition.arrays[:tests], *state])
        (result,) = run(how, p["cond_jaxpr"].jaxpr, p["cond_jaxpr"].consts, inside)
        if not isinstance(result, Plain):
            raise TransformError(eqn, "ends by a condition on a map", "Reduce it over rows and columns")
        return result.full()

    return body.outside(jax.lax.while_loop(goes_on, turn, body.arrays[bodies:]))

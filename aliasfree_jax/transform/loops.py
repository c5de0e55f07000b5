"""Rules of loops: `scan` (also `lax.map` and `fori_loop` over a known range) and `while`."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aliasfree_jax.transform.control import apart, carried, like, turned
from aliasfree_jax.transform.interpreter import Transformation, TransformError, mixed, rule
from aliasfree_jax.transform.maps import Map
from aliasfree_jax.transform.values import Held, Plain, Value, plain


def counts(params: dict[str, Any]) -> tuple[int, int]:
    """Numbers of constant and of carried operands of a scan. JAX 0.11 stores them as trees."""
    if "num_consts" in params:
        return params["num_consts"], params["num_carry"]
    consts, carry, _ = params["ft_in"].unpack()
    return len(consts), len(carry)


def _one(stack: jax.Array) -> jax.Array:
    """The first element of a stack, or zeros if the stack is empty."""
    return stack[0] if len(stack) else jnp.zeros(stack.shape[1:], stack.dtype)


def _as(eqn: Any, value: Held, kind: Held) -> Held:
    """A carried value after an iteration, in the layout of `kind` (before it). New maps stay maps."""
    if isinstance(value, Plain):
        return like(plain(value.full()), kind)
    if isinstance(kind, Plain):
        return value
    if value.grid != kind.grid:
        raise TransformError(eqn, "carries a map to another grid", "Sample outside of the loop")
    kept = like(value, kind)
    assert isinstance(kept, Map)
    return dataclasses.replace(kept, band=value.band)


def _grown(turn: Callable[[list[Held]], list[Held]], carry: list[Held]) -> list[Held]:
    """The carried values, with plain values turned into maps if an iteration turns them into maps."""
    pairs = list(zip(carry, jax.eval_shape(turn, carry), strict=True))
    if all(isinstance(old, Map) or isinstance(new, Plain) for old, new in pairs):
        return carry
    return _grown(turn, [like(old, new) if isinstance(new, Map) else old for old, new in pairs])


@rule("scan")
def scan(how: Transformation, eqn: Any, *values: Held) -> Sequence[Value]:
    """Carries settled maps. Maps that are scanned over lose their first axis."""
    consts, moving = counts(eqn.params)
    settled, inside = how.settled(eqn, values), apart(how)
    fixed, carry = settled[:consts], [carried(how, eqn, v) for v in settled[consts : consts + moving]]
    stacks = [carried(how, eqn, value) for value in settled[consts + moving :]]
    rows = [_without_first(eqn, value) for value in stacks]

    def body(state: list[Held], each: list[Held]) -> tuple[list[Held], list[Held]]:
        results = turned(inside(), eqn, eqn.params["jaxpr"], [*fixed, *state, *each])
        return [_as(eqn, r, k) for r, k in zip(results, state, strict=False)], results[moving:]

    first = jax.tree.map(_one, rows)
    carry = _grown(lambda state: body(state, first)[0], carry)
    length = eqn.params["length"]
    if how.report is None:
        options = {key: eqn.params[key] for key in ("reverse", "unroll")}
        last, each = jax.lax.scan(body, carry, rows, length, **options)
    else:  # a report computes nothing, so one iteration suffices
        last, each = body(carry, first)
        each = jax.tree.map(lambda row: jnp.broadcast_to(row, (length, *row.shape)), each)
    images = any(isinstance(value, Map) and set(value.groups[0]) & set(value.batch) for value in stacks)
    known = _choices(settled)
    _stay_inside(eqn, last, known)
    own = {value.grid for value in stacks if images and isinstance(value, Map) and value.grid.choices}
    if any(isinstance(value, Map) and value.grid in own for value in last):
        raise mixed(eqn)
    # Each iteration may have a phase of its own, as each image has.
    return [*last, *(_with_first(value, images or bool(_choices([value]) - known)) for value in each)]


def _choices(values: Sequence[Held]) -> set[Any]:
    """The choices of phases by the grids of these values."""
    return set[Any]().union(*(value.grid.choices for value in values if isinstance(value, Map)))


def _stay_inside(eqn: Any, carry: Sequence[Held], known: set[Any]) -> None:
    """Checks that a loop carries no map whose phase was chosen inside: each iteration chooses another.

    Raises:
      TransformError: It does.
    """
    if _choices(carry) - known:
        raise TransformError(
            eqn,
            "samples a map in each iteration and carries it on",
            "Sample outside of the loop, or take the mean over rows and columns inside it",
        )


def _without_first(eqn: Any, value: Held) -> Held:
    """The layout of one of the stacked values. Its array is still the whole stack."""
    if isinstance(value, Plain):
        return Plain(value.thin, value.shape[1:])
    if value.spatial(0):
        raise TransformError(eqn, "loops over rows or columns", "Loop over images or channels")
    stack = value.merged()
    row = value.rebuilt(_one(stack), value.groups[1:])
    return row.like(stack.reshape(stack.shape[0], *row.array.shape))


def _with_first(value: Held, images: bool) -> Value:
    """The inverse of `_without_first`. `images` tells whether the first axis is the batch."""
    if isinstance(value, Plain):
        return plain(value.thin)
    row = value.like(_one(value.array))
    array = jax.vmap(lambda array: row.like(array).merged())(value.array)
    stack = row.rebuilt(array, [(), *row.groups])
    return dataclasses.replace(stack, batch=(0, *stack.batch)) if images else stack


@rule("while")
def loop(how: Transformation, eqn: Any, *values: Held) -> Sequence[Value]:
    """Carries settled maps. The condition must not be a map."""
    p = eqn.params
    tests, bodies = p["cond_nconsts"], p["body_nconsts"]
    settled, inside = how.settled(eqn, values), apart(how)
    of_test, of_body = settled[:tests], settled[tests : tests + bodies]

    def turn(state: list[Held]) -> list[Held]:
        results = turned(inside(), eqn, p["body_jaxpr"], [*of_body, *state])
        return [_as(eqn, r, k) for r, k in zip(results, state, strict=True)]

    def goes_on(state: list[Held]) -> jax.Array:
        (result,) = turned(inside(), eqn, p["cond_jaxpr"], [*of_test, *state])
        if not isinstance(result, Plain):
            raise TransformError(eqn, "has a condition that is a map", "Reduce it over rows and columns")
        return result.full()

    carry = _grown(turn, [carried(how, eqn, value) for value in settled[tests + bodies :]])
    _stay_inside(eqn, carry, _choices(settled))
    if how.report is None:
        return jax.lax.while_loop(goes_on, turn, carry)
    goes_on(carry)  # a report computes nothing, so one iteration suffices
    return turn(carry)

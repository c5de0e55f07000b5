"""Rules of calls, branches and functions with custom derivatives: they evaluate the program inside.

Some functions are traced by JAX in a separate trace. Values pass into and out of them as pytrees of one
array.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aliasfree_jax.transform import own, upsampling
from aliasfree_jax.transform.elementwise import ELEMENTWISE, on_one_grid
from aliasfree_jax.transform.interpreter import Transformation, TransformError, interpret, rebound, rule, run
from aliasfree_jax.transform.maps import Map
from aliasfree_jax.transform.program import named
from aliasfree_jax.transform.values import Held, Plain, Value, laid_out, plain

for _kind, _array in ((Map, "array"), (Plain, "thin")):
    _fixed = [field.name for field in dataclasses.fields(_kind) if field.name != _array]
    jax.tree_util.register_dataclass(_kind, [_array], _fixed)


@rule("jit", "closed_call", "core_call", pointwise=True)
def call(how: Transformation, eqn: Any, *values: Value) -> Sequence[Value]:
    """The program inside."""
    of_own = own.rule_of(eqn)
    if of_own is not None:
        return of_own(how, eqn, *map(how.realized, values))
    if eqn.params.get("name") == upsampling.RESIZE and len(values) == 1:
        resized = upsampling.resized(how, eqn, how.realized(values[0]))
        if resized is not None:
            return resized
    closed = eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]
    return interpret(how, closed.jaxpr, closed.consts, values)


@rule("remat2", "checkpoint")
def remat(how: Transformation, eqn: Any, *values: Held) -> Sequence[Value]:
    """The program inside, recomputed for gradients as in the original. Phases pass in and out."""
    program = eqn.params["jaxpr"]
    if how.report is not None:
        return interpret(how, program, (), values)
    chosen: list[Any] = []  # the grids whose phases are passed out

    @functools.partial(jax.checkpoint, prevent_cse=eqn.params["prevent_cse"], policy=eqn.params["policy"])
    def function(phases: Sequence[jax.Array], *values: Held) -> Any:
        inner = dataclasses.replace(how, phases=dict(zip(how.phases, phases, strict=True)))
        results = run(inner, program, (), values)
        chosen[:] = inner.phases
        return results, list(inner.phases.values())

    results, phases = function(list(how.phases.values()), *values)
    how.phases.update(zip(chosen, phases, strict=True))
    return list(results)


def apart(how: Transformation) -> Callable[[], Transformation]:
    """Makes transformations for functions that JAX traces separately. Phases chosen there stay inside."""
    scope = object()
    return lambda: dataclasses.replace(how, phases={}, scope=scope)


def like(value: Held, by: Held) -> Held:
    """`value` in the layout of `by`. A derivative is summed over the axes along which `by` is constant."""
    if isinstance(by, Map):
        value = value.begun_at(by.first) if isinstance(value, Map) else value
        return by.like(jnp.broadcast_to(laid_out(value, by), by.array.shape))
    array = value.merged() if isinstance(value, Map) else value.full()
    constant = [d for d, n in enumerate(by.thin.shape) if n == 1 and array.shape[d] != 1]
    return Plain(array.sum(constant, keepdims=True) if constant else array, by.shape)


@rule("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr", pointwise=True)
def with_derivative(how: Transformation, eqn: Any, *given: Value) -> Sequence[Value]:
    """The program inside, with its custom derivative, whose program runs on maps as well.

    A gradient is computed from the arguments: residuals that the original stores are recomputed. If
    activations are evaluated on another grid, the custom derivative is replaced by that of the program.
    """
    program = eqn.params["call_jaxpr"]
    if how.activations is not None:
        return interpret(how, program.jaxpr, program.consts, given)
    closed_over = eqn.params.get("num_consts", 0)  # arrays of the function, for which it has no derivative
    floats = [i for i, v in enumerate(eqn.invars) if jnp.issubdtype(v.aval.dtype, jnp.inexact)]
    varied = [i for i in floats if i >= closed_over]
    forward = eqn.primitive.name == "custom_jvp_call"
    derivative = _derivative(eqn, varied, forward)
    alone = _elementwise(program.jaxpr) and _elementwise(derivative.jaxpr)
    held = [how.realized(value) for value in given]
    values = on_one_grid(how, eqn, held) if alone else how.settled(eqn, held)
    inside = apart(how)

    def function(*values: Held) -> list[Held]:
        results = run(inside(), program.jaxpr, program.consts, values)
        return [plain(result.full()) if isinstance(result, Plain) else result for result in results]

    def derived(*arguments: Held) -> list[Held]:
        return run(inside(), derivative.jaxpr, derivative.consts, arguments)

    def pushed(values: Sequence[Held], tangents: Sequence[Held]) -> Any:
        results, changes = function(*values), derived(*values, *(tangents[i] for i in varied))
        return results, [like(change, result) for change, result in zip(changes, results, strict=True)]

    def pulled(values: Sequence[Held], cotangents: Sequence[Held]) -> tuple[Held | None, ...]:
        gradients = dict(zip(varied, derived(*values, *cotangents), strict=True))
        return tuple(like(gradients[i], v) if i in gradients else None for i, v in enumerate(values))

    if forward:
        pushing = jax.custom_jvp(function)
        pushing.defjvp(pushed)
        return pushing(*values)
    pulling = jax.custom_vjp(function)
    pulling.defvjp(lambda *values: (function(*values), values), pulled)
    return pulling(*values)


def _derivative(eqn: Any, varied: Sequence[int], forward: bool) -> Any:
    """The program of an operation's tangents (forward) or gradients (backward), for the `varied` operands."""
    arguments, results = ([v.aval for v in variables] for variables in (eqn.invars, eqn.outvars))

    def derivative(arguments: Sequence[jax.Array], changes: Sequence[jax.Array]) -> Any:
        def function(*some: jax.Array) -> list[jax.Array]:
            known = dict(enumerate(arguments)) | dict(zip(varied, some, strict=True))
            return rebound(eqn, *known.values())

        some = tuple(arguments[i] for i in varied)
        if forward:
            return jax.jvp(function, some, tuple(changes))[1]
        return jax.vjp(function, *some)[1](changes)

    return _needed(
        jax.make_jaxpr(derivative)(arguments, [arguments[i] for i in varied] if forward else results)
    )


def _needed(closed: Any) -> Any:
    """A program without operations whose results are not used: they may have no derivative."""
    used, kept = {v for v in closed.jaxpr.outvars if named(v)}, []
    for eqn in reversed(closed.jaxpr.eqns):
        if eqn.effects or used.intersection(eqn.outvars):
            used.update(filter(named, eqn.invars))
            kept.append(eqn)
    return closed.replace(jaxpr=closed.jaxpr.replace(eqns=kept[::-1]))


def _elementwise(jaxpr: Any) -> bool:
    """Whether a program, and every program inside it, has elementwise operations only."""
    return all(
        eqn.primitive.name in (*ELEMENTWISE, "broadcast_in_dim") or any(map(_elementwise, _programs(eqn)))
        for eqn in jaxpr.eqns
    )


def _programs(eqn: Any) -> list[Any]:
    """The programs inside an operation."""
    params = jax.tree.leaves(list(eqn.params.values()), is_leaf=lambda param: hasattr(param, "eqns"))
    return [param for param in params if hasattr(param, "eqns")]


@rule("cond")
def cond(how: Transformation, eqn: Any, index: Held, *values: Held) -> Sequence[Value]:
    """Each branch. The results are settled, so that the branches return the same kinds of values."""
    if not isinstance(index, Plain):
        raise TransformError(
            eqn, "branches on a map", "Branch on a value that does not depend on the position"
        )
    taken: list[list[Held]] = []  # the results of each branch

    def branch(closed: Any, *values: Held) -> list[jax.Array]:
        taken.append(turned(apart(how)(), eqn, closed, values))
        return jax.tree.leaves(taken[-1])

    branches = [functools.partial(branch, closed) for closed in eqn.params["branches"]]
    arrays = jax.lax.switch(index.full(), branches, *how.settled(eqn, values))
    for results in zip(*taken, strict=True):
        if len({(type(r), getattr(r, "grid", None), getattr(r, "space", None)) for r in results}) > 1:
            raise TransformError(
                eqn, "has branches whose maps lie on different grids", "Sample the maps of all branches alike"
            )
    return jax.tree.unflatten(jax.tree.structure(taken[0]), arrays)


def turned(how: Transformation, eqn: Any, closed: Any, values: Sequence[Held]) -> list[Held]:
    """The results of a branch, or of one iteration of a loop, in a form that JAX can pass on."""
    results = run(how, closed.jaxpr, closed.consts, values)
    return [carried(how, eqn, result) for result in results]


def carried(how: Transformation, eqn: Any, value: Held) -> Held:
    """A value that loops and branches can pass on: settled, and starting at position 0."""
    if isinstance(value, Plain):
        return plain(value.full())
    value = how.read(how.seen(eqn, value))
    return value.rebuilt(value.merged())

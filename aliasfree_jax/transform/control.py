"""Calls, loops, branches and functions with derivatives of their own: rules look inside."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aliasfree_jax.transform import own
from aliasfree_jax.transform.elementwise import ELEMENTWISE, on_one_grid
from aliasfree_jax.transform.grids import Grid
from aliasfree_jax.transform.interpreter import Transformation, TransformError, interpret, rebound, rule, run
from aliasfree_jax.transform.maps import Map
from aliasfree_jax.transform.values import Held, Plain, Value, laid_out, plain


@rule("jit", "closed_call", "core_call", pointwise=True)
def call(how: Transformation, eqn: Any, *values: Value) -> Sequence[Value]:
    """The program inside."""
    found = own.rule_of(eqn)
    if found is not None:
        of_own, numbers = found
        return of_own(how, eqn, numbers, *(how.realized(value) for value in values))
    closed = eqn.params.get("jaxpr") or eqn.params["call_jaxpr"]
    return interpret(how, closed.jaxpr, closed.consts, values)


class Boundary:
    """Takes values into a function that jax traces by itself, and brings its results back.

    Grids inside are copies: what is sampled there has phases of the inner trace.

    Attributes:
      shares: whether phases pass the boundary.
    """

    def __init__(self, eqn: Any, values: Sequence[Held], shares: bool = False) -> None:
        self.eqn, self.values, self.shares = eqn, values, shares
        self.results: list[Held] = []
        self._outer: dict[int, Grid] = {}  # by the identity of the grid inside
        self._inner: dict[int, Grid] = {}  # by that of the grid outside
        self._sampled: list[tuple[Grid, Any, Grid]] = []

    @property
    def arrays(self) -> list[jax.Array]:
        """What is handed in."""
        return [value.array if isinstance(value, Map) else value.thin for value in self.values]

    def inside(self, arrays: Sequence[jax.Array]) -> list[Held]:
        """The values inside, of these arrays: one for each value, or as often again (their derivatives)."""
        self._outer, self._inner = {}, {}
        return [
            Plain(array, value.shape)
            if isinstance(value, Plain)
            else _on(value, array, self._copy(value.grid))
            for value, array in zip(itertools.cycle(self.values), arrays, strict=False)
        ]

    def _copy(self, grid: Grid) -> Grid:
        root = grid.root and self._copy(grid.root)
        if id(grid) in self._inner:
            return self._inner[id(grid)]
        inner = Grid(root, grid.factor, mirrored=grid.mirrored)
        self._inner[id(grid)], self._outer[id(inner)] = inner, grid
        for strides, (coarser, phase) in grid.coarser.items():
            if self.shares or phase is None:
                inner.coarser[strides] = self._copy(coarser), phase
        return inner

    def out(self, results: Sequence[Held]) -> tuple[list[jax.Array], list[Any]]:
        """The arrays of `results`, whose other fields `outside` needs, and the phases chosen inside."""
        self.results, self._sampled, phases = list(results), [], []
        grids = [self._inner[key] for key in list(self._inner)]
        for parent in grids if self.shares else ():
            for strides, (child, phase) in parent.coarser.items():
                if id(child) not in self._outer:
                    self._sampled.append((parent, strides, child))
                    phases.append(phase)
                    grids.append(child)
        return [value.array if isinstance(value, Map) else value.thin for value in results], phases

    def outside(self, arrays: Sequence[jax.Array], phases: Sequence[Any] = ()) -> list[Held]:
        """The results outside, of these arrays; grids outside learn the phases, where these pass.

        What was sampled inside at phases that do not pass lies on a grid of its own.
        """
        for (parent, strides, child), phase in zip(self._sampled, phases, strict=True):
            finer = child.root and self._outer[id(child.root)]
            self._outer[id(child)] = Grid(finer, child.factor)
            self._outer[id(parent)].coarser[strides] = self._outer[id(child)], phase
        results: list[Held] = []
        for value, array in zip(self.results, arrays, strict=True):
            if isinstance(value, Map):
                root = self._outer.get(id(value.grid.root))
                if id(value.grid) not in self._outer and root is not None:  # sampled inside without a phase
                    self._outer[id(value.grid)] = root.sampled(value.grid.factor)
                results.append(_on(value, array, self._outer.setdefault(id(value.grid), Grid())))
            elif isinstance(value, Plain):
                results.append(Plain(array, value.shape))
        return results


def _on(value: Map, array: jax.Array, grid: Grid) -> Map:
    return dataclasses.replace(value, array=array, grid=grid)


@rule("remat2", "checkpoint")
def remat(how: Transformation, eqn: Any, *values: Held) -> Sequence[Value]:
    """The program inside, computed again for gradients as the original is."""
    if how.report is not None:
        return interpret(how, eqn.params["jaxpr"], (), values)
    boundary = Boundary(eqn, values, shares=True)

    @functools.partial(jax.checkpoint, prevent_cse=eqn.params["prevent_cse"], policy=eqn.params["policy"])
    def function(*arrays: jax.Array) -> Any:
        results = run(how, eqn.params["jaxpr"], (), boundary.inside(arrays))
        return boundary.out(results)

    return boundary.outside(*function(*boundary.arrays))


def settled_all(how: Transformation, eqn: Any, values: Sequence[Held]) -> list[Held]:
    """The values with nothing pending."""
    return [how.settle(eqn, value) if isinstance(value, Map) else value for value in values]


@rule("custom_jvp_call", pointwise=True)
def custom_jvp(how: Transformation, eqn: Any, *given: Value) -> Sequence[Value]:
    """The program inside, with the derivative that it has; its rule runs on maps as well.

    Where activations are evaluated on another grid, the derivative is that of the program inside.
    """
    inner = eqn.params["call_jaxpr"]
    if how.activations is not None:
        return interpret(how, inner.jaxpr, inner.consts, given)
    values = [how.realized(value) for value in given]
    avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
    tangents = [_tangent(aval) for aval in avals]
    derivative = jax.make_jaxpr(lambda p, t: jax.jvp(lambda *a: rebound(eqn, *a), p, t))(avals, tangents)
    alone = _elementwise(inner.jaxpr) and _elementwise(derivative.jaxpr)
    boundary = Boundary(eqn, (on_one_grid if alone else settled_all)(how, eqn, values))

    @jax.custom_jvp
    def function(*arrays: jax.Array) -> Any:
        return boundary.out(run(how, inner.jaxpr, inner.consts, boundary.inside(arrays)))[0]

    @function.defjvp
    def _(primals: Any, changes: Any) -> Any:
        both = boundary.inside([*primals, *changes])
        results = run(how, derivative.jaxpr, derivative.consts, both)
        half = len(results) // 2
        arrays = boundary.out(results[:half])[0]
        pairs = zip(results[half:], results[:half], strict=True)
        return arrays, [_like(tangent, result) for tangent, result in pairs]

    return boundary.outside(function(*boundary.arrays))


def _tangent(aval: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    exact = not jnp.issubdtype(aval.dtype, jnp.inexact)
    return jax.ShapeDtypeStruct(aval.shape, jax.dtypes.float0 if exact else aval.dtype)


def _like(value: Held, by: Held) -> jax.Array:
    """The array of a derivative, laid out as the result `by`."""
    if isinstance(value, Map):
        return laid_out(value.begun_at(by.first), by) if isinstance(by, Map) else value.merged()
    if isinstance(by, Map):
        return jnp.broadcast_to(laid_out(value, by), by.array.shape)
    return value.full() if by.thin.shape == by.shape else jnp.broadcast_to(value.thin, by.thin.shape)


def _elementwise(jaxpr: Any) -> bool:
    """Whether a program, and those inside it, have operations on each element only."""
    return all(
        eqn.primitive.name in (*ELEMENTWISE, "broadcast_in_dim")
        or any(
            _elementwise(getattr(p, "jaxpr", p))
            for p in jax.tree.leaves(list(eqn.params.values()), is_leaf=_program)
            if _program(p)
        )
        for eqn in jaxpr.eqns
    )


def _program(value: Any) -> bool:
    return hasattr(getattr(value, "jaxpr", value), "eqns")


@rule("custom_vjp_call", "custom_vjp_call_jaxpr", pointwise=True)
def custom_vjp(how: Transformation, eqn: Any, *given: Value) -> Sequence[Value]:
    """The program inside, with the gradient that it has, which runs on maps as well.

    It is computed from the arguments: what the original keeps for it is computed again. Where activations are
    evaluated on another grid, the gradient is that of the program inside.
    """
    inner = eqn.params["call_jaxpr"]
    if how.activations is not None:
        return interpret(how, inner.jaxpr, inner.consts, given)
    values = [how.realized(value) for value in given]
    avals = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
    outs = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.outvars]
    varied = [i for i, aval in enumerate(avals) if jnp.issubdtype(aval.dtype, jnp.inexact)]

    def gradient(arguments: Any, cotangents: Any) -> Any:
        def of_varied(*some: jax.Array) -> Any:
            full = list(arguments)
            for i, each in zip(varied, some, strict=True):
                full[i] = each
            return rebound(eqn, *full)

        return jax.vjp(of_varied, *(arguments[i] for i in varied))[1](cotangents)

    program = jax.make_jaxpr(gradient)(avals, outs)
    alone = _elementwise(inner.jaxpr) and _elementwise(program.jaxpr)
    boundary = Boundary(eqn, (on_one_grid if alone else settled_all)(how, eqn, values))

    @jax.custom_vjp
    def function(*arrays: jax.Array) -> Any:
        return boundary.out(run(how, inner.jaxpr, inner.consts, boundary.inside(arrays)))[0]

    def backward(arrays: Any, cotangents: Any) -> Any:
        inside = boundary.inside(arrays)
        results = run(how, inner.jaxpr, inner.consts, inside)
        outer = [_with_array(r, c) for r, c in zip(results, cotangents, strict=True)]
        gradients = run(how, program.jaxpr, program.consts, [*inside, *outer])
        full: list[Any] = [None] * len(inside)
        for i, each in zip(varied, gradients, strict=True):
            full[i] = _summed(each, inside[i])
        return tuple(full)

    function.defvjp(lambda *arrays: (function(*arrays), arrays), backward)
    return boundary.outside(function(*boundary.arrays))


def _with_array(value: Held, array: jax.Array) -> Value:
    return value.like(array) if isinstance(value, Map) else Plain(array, value.shape)


def _summed(gradient: Held, by: Held) -> jax.Array:
    """A gradient, laid out as `by`: summed where that is constant."""
    if isinstance(by, Map):
        return _like(gradient, by)
    array = gradient.merged() if isinstance(gradient, Map) else gradient.full()
    constant = [d for d, n in enumerate(by.thin.shape) if n == 1 and array.shape[d] != 1]
    return array.sum(constant, keepdims=True) if constant else array


@rule("cond")
def cond(how: Transformation, eqn: Any, index: Held, *values: Held) -> Sequence[Value]:
    """Each branch; results are settled, so that both are alike."""
    if not isinstance(index, Plain):
        raise TransformError(eqn, "branches on a map", "Branch on a value that does not depend on the place")
    settled = settled_all(how, eqn, values)
    boundaries = [Boundary(eqn, settled) for _ in eqn.params["branches"]]

    def branch(closed: Any, boundary: Boundary) -> Callable[..., Any]:
        def taken(*arrays: jax.Array) -> list[jax.Array]:
            results = run(how, closed.jaxpr, closed.consts, boundary.inside(arrays))
            return boundary.out([carried(how, eqn, result) for result in results])[0]

        return taken

    branches = [branch(*each) for each in zip(eqn.params["branches"], boundaries, strict=True)]
    arrays = jax.lax.switch(index.full(), branches, *boundaries[0].arrays)
    each = [boundary.outside(arrays) for boundary in boundaries]
    for results in zip(*each, strict=True):
        if len({(type(r), id(getattr(r, "grid", None)), getattr(r, "space", None)) for r in results}) > 1:
            raise TransformError(eqn, "has branches whose maps lie on different grids", "Sample both alike")
    return each[0]


def carried(how: Transformation, eqn: Any, value: Held) -> Held:
    """A value that loops and branches can give on: settled, from place 0 on, as the program sees it."""
    return plain(value.full()) if isinstance(value, Plain) else _one_axis_each(how.read(how.seen(eqn, value)))


def _one_axis_each(value: Map) -> Map:
    """The map with the program's axes as base axes, but for rows and columns that are merged."""
    batch = any(len(group) > 1 and set(group) & set(value.batch) for group in value.groups)
    return value if batch else value.rebuilt(value.merged())

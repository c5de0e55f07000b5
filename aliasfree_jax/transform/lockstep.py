"""Runs a program on images and on shifted images at the same time, operation by operation."""

import dataclasses
import itertools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aliasfree_jax.ops import operation
from aliasfree_jax.transform.interpreter import rebound
from aliasfree_jax.transform.lines import Place, here
from aliasfree_jax.transform.loops import counts
from aliasfree_jax.transform.program import walked
from aliasfree_jax.transform.upsampling import RESIZE

# Operations whose meaning depends on the precision, or that contain programs of a fixed precision.
_AS_WRITTEN = (
    *("bitcast_convert_type", "nextafter", "reduce_precision", "reduce", "reduce_window", "shard_map"),
    *("scatter", "scatter-add", "scatter_add", "scatter_mul", "scatter_min", "scatter_max", "random_bits"),
    *("pure_callback", "io_callback", "debug_callback", "ffi_call", "pallas_call", "custom_linear_solve"),
)


@dataclasses.dataclass(frozen=True, eq=False)
class Both:
    """An array of the program, for the images and for the shifted images.

    Attributes:
      still: The array for the images.
      moved: The array for the shifted images. None if it does not depend on the images.
      step: Number of the operation that computed it. -1 for arguments, and if it does not depend on the
        images.
      precision: The narrowest type to which constants before it were rounded.
    """

    still: jax.Array
    moved: jax.Array | None = None
    step: int = -1
    precision: Any = jnp.float64

    def alone(self, moved: bool) -> "Both":
        """One of the two arrays, marked as independent of the images."""
        array = self.moved if moved and self.moved is not None else self.still
        return Both(array, precision=self.precision)

    def mapped(self, function: Callable[[jax.Array], jax.Array]) -> "Both":
        """Applies a function to both arrays."""
        moved = None if self.moved is None else function(self.moved)
        return dataclasses.replace(self, still=function(self.still), moved=moved)


@dataclasses.dataclass(frozen=True, eq=False)
class Step:
    """An operation whose result depends on the images.

    Attributes:
      number: Number in the order of execution.
      place: Place of the operation in the program.
      sources: Numbers of the operations that computed its operands. -1 for the images.
      results: The results of the operation.
    """

    number: int
    place: Place
    sources: tuple[int, ...]
    results: tuple[Both, ...]


@dataclasses.dataclass
class Lockstep:
    """Runs programs on images and on shifted images.

    Attributes:
      wide: Whether to compute in float64 only. Conversions between floating-point types are then skipped.
      see: Called with every step.
      steps: The number of steps so far.
    """

    wide: bool
    see: Callable[[Step], None]
    steps: int = 0

    def run(self, jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Both]) -> list[Both]:
        """The results of a program."""
        known: dict[Any, Both] = dict(zip(jaxpr.constvars, map(self._constant, consts), strict=True))
        known.update(zip(jaxpr.invars, arguments, strict=True))
        return walked(jaxpr, jaxpr.eqns, known, Both, lambda _, eqn, values: self._evaluated(eqn, values))

    def _constant(self, array: Any) -> Both:
        """A constant. A filter that was rounded to a narrow type has aliases of the rounding's size."""
        array = jnp.asarray(array)
        rounded = self.wide and array.ndim and _is_narrow(array) and bool((array != jnp.round(array)).any())
        return Both(array, precision=array.dtype if rounded else jnp.float64)

    def _evaluated(self, eqn: Any, values: Sequence[Both]) -> list[Both]:
        name, depends = eqn.primitive.name, any(value.moved is not None for value in values)
        if name == "convert_element_type" and _is_cast(eqn):
            dtype = jnp.float64 if self.wide else eqn.params["new_dtype"]
            return [values[0].mapped(lambda array: array.astype(dtype))]
        enter = _ENTERED.get(name)
        # Operations of this package and jax.image.resize are compared as a whole.
        called = eqn.params["name"] if name == "jit" else ""
        if enter and not (depends and (called == RESIZE or operation.read(called))):
            inside = enter(self, eqn, values)
            if inside is not None:
                return inside
        if not depends:
            return self._bound(eqn, values)
        return self.step(
            eqn,
            values,
            *(self._evaluated(eqn, [value.alone(moved) for value in values]) for moved in (False, True)),
        )

    def step(
        self, eqn: Any, values: Sequence[Both], still: Sequence[Both], moved: Sequence[Both]
    ) -> list[Both]:
        """Records an operation and returns its results for the images and for the shifted images."""
        sources = tuple(dict.fromkeys(value.step for value in values if value.moved is not None))
        results = [Both(a.still, b.still, self.steps, a.precision) for a, b in zip(still, moved, strict=True)]
        self.see(Step(self.steps, here(eqn), sources, tuple(results)))
        self.steps += 1
        return results

    def _bound(self, eqn: Any, values: Sequence[Both]) -> list[Both]:
        """The results of an operation on arrays that do not depend on images."""
        arrays = [value.still for value in values]
        precision = min((v.precision for v in values), key=lambda d: jnp.finfo(d).bits, default=jnp.float64)
        if not self.wide or not any(_is_narrow(v.aval) for v in (*eqn.invars, *eqn.outvars)):
            return [Both(y, precision=precision) for y in rebound(eqn, *arrays)]
        if eqn.primitive.name in _AS_WRITTEN:
            given = [
                array.astype(v.aval.dtype) if _is_narrow(v.aval) else array
                for array, v in zip(arrays, eqn.invars, strict=True)
            ]
            return [self._constant(y).mapped(_widened) for y in rebound(eqn, *given)]
        params = {key: _wide_type(value) for key, value in eqn.params.items()}
        return [Both(y, precision=precision) for y in rebound(eqn, *map(_widened, arrays), **params)]


def _is_narrow(array: Any) -> bool:
    dtype = getattr(array, "dtype", jnp.bool_)
    return bool(jnp.issubdtype(dtype, jnp.floating)) and dtype != jnp.float64


def _is_cast(eqn: Any) -> bool:
    types = eqn.invars[0].aval.dtype, eqn.params["new_dtype"]
    return all(jnp.issubdtype(dtype, jnp.floating) for dtype in types)


def _widened(array: jax.Array) -> jax.Array:
    return array.astype(jnp.float64) if _is_narrow(array) else array


def _wide_type(value: Any) -> Any:
    is_type = isinstance(value, jnp.dtype | type)
    return jnp.dtype(jnp.float64) if is_type and jnp.issubdtype(value, jnp.floating) else value


def _call(how: Lockstep, eqn: Any, values: Sequence[Both]) -> list[Both]:
    """The program inside."""
    inner = next(eqn.params[key] for key in ("jaxpr", "call_jaxpr", "fun_jaxpr") if key in eqn.params)
    return how.run(getattr(inner, "jaxpr", inner), getattr(inner, "consts", ()), values)


def _branch(how: Lockstep, eqn: Any, values: Sequence[Both]) -> list[Both] | None:
    """Runs the selected branch. None if the shifted images select another one."""
    index, *operands = values
    if index.moved is not None and int(index.moved) != int(index.still):
        return None
    branches = eqn.params["branches"]
    closed = branches[min(max(int(index.still), 0), len(branches) - 1)]
    return how.run(closed.jaxpr, closed.consts, operands)


def _repeat(how: Lockstep, eqn: Any, values: Sequence[Both]) -> list[Both] | None:
    """Runs the loop, one iteration after the other. None if the images decide the number of iterations."""
    condition, body, tests = eqn.params["cond_jaxpr"], eqn.params["body_jaxpr"], eqn.params["cond_nconsts"]
    start = tests + eqn.params["body_nconsts"]
    state = list(values[start:])
    while True:
        (goes_on,) = how.run(condition.jaxpr, condition.consts, [*values[:tests], *state])
        if goes_on.moved is not None:
            return None
        if not bool(goes_on.still):
            return state
        state = how.run(body.jaxpr, body.consts, [*values[tests:start], *state])


def _scan(how: Lockstep, eqn: Any, values: Sequence[Both]) -> list[Both] | None:
    """Runs the loop, one iteration after the other, and stacks the outputs. None for an empty loop."""
    closed, length, (consts, moving) = eqn.params["jaxpr"], eqn.params["length"], counts(eqn.params)
    fixed, carry, rows = values[:consts], list(values[consts : consts + moving]), values[consts + moving :]
    turns: dict[int, Sequence[Both]] = {}
    for turn in range(length - 1, -1, -1) if eqn.params["reverse"] else range(length):
        each = [row.mapped(operator.itemgetter(turn)) for row in rows]
        results = how.run(closed.jaxpr, closed.consts, [*fixed, *carry, *each])
        carry, turns[turn] = results[:moving], results[moving:]
    if not turns:
        return None
    stacks = list(zip(*(turns[turn] for turn in range(length)), strict=True))
    still, moved = (
        [*(value.alone(side) for value in carry), *(_stacked(stack, side) for stack in stacks)]
        for side in (False, True)
    )
    given = [*carry, *itertools.chain(*stacks)]
    return how.step(eqn, given, still, moved) if any(v.moved is not None for v in given) else still


def _stacked(values: Sequence[Both], moved: bool) -> Both:
    return Both(jnp.stack([v.alone(moved).still for v in values]), precision=values[0].precision)


_ENTERED: dict[str, Callable[[Lockstep, Any, Sequence[Both]], list[Both] | None]] = {
    **dict.fromkeys(("jit", "closed_call", "core_call", "remat2", "checkpoint"), _call),
    **dict.fromkeys(("custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"), _call),
    "cond": _branch,
    "while": _repeat,
    "scan": _scan,
}

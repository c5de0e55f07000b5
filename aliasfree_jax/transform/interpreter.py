"""Runs the program of a function on maps, with one rule per primitive. Errors name the user's line."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from aliasfree_jax.transform.grids import ONE, Grid
from aliasfree_jax.transform.lines import LOOKED_INTO, Place, TransformError, here
from aliasfree_jax.transform.maps import Group, Map, map_of
from aliasfree_jax.transform.order import in_order
from aliasfree_jax.transform.program import walked
from aliasfree_jax.transform.reporting import WHOLE, Reporting
from aliasfree_jax.transform.settling import ImagesError
from aliasfree_jax.transform.values import Held, Plain, Pointwise, Value, on_maps, plain


def rebound(eqn: Any, *arrays: Any, **changes: Any) -> list[Any]:
    """Applies the operation to these arrays, with changed parameters."""
    params = eqn.primitive.get_bind_params({**eqn.params, **changes})
    result = eqn.primitive.bind(*arrays, **params)
    return list(result) if eqn.primitive.multiple_results else [result]


class Activations(Protocol):
    """Evaluates non-linearities."""

    def realized(self, value: Pointwise) -> Map:
        """The result of a function of maps, as a map."""

    def refuse(self, eqn: Any, what: str) -> None:
        """Called for a non-linearity that is not elementwise. It may raise an error."""


@dataclasses.dataclass(frozen=True)
class Transformation(Reporting):
    """How a program is transformed.

    Attributes:
      activations: How non-linearities are evaluated. None: as written.
      observe: Called with the results of every operation.
    """

    activations: Activations | None = None
    observe: Callable[[Place, Sequence[Value]], None] | None = None

    def not_pointwise(self, eqn: Any, value: Map, what: str) -> Map:
        """`value`, the input of a non-linearity that is not elementwise."""
        if self.activations is not None:
            self.activations.refuse(eqn, what)
        return self.unbounded(eqn, value)

    def realized(self, value: Value) -> Held:
        """`value` with its non-linearity evaluated."""
        return self.activated(value) if isinstance(value, Pointwise) else value

    def activated(self, value: Pointwise) -> Map:
        """The result of a function of maps, evaluated once."""
        if not value.held:
            assert self.activations is not None
            value.held.append(self.activations.realized(value))
        return value.held[0]

    def settle(self, eqn: Any, value: Map) -> Map:
        """`value` with its pending stride applied."""
        if value.settled:
            return value
        if value not in self.sampled:
            try:
                self.sampled[value] = self.sample(self.from_start(eqn, value))
            except ImagesError as error:
                reason = "samples another number of images than a map before it, whose phases it would need"
                raise TransformError(eqn, reason, "Call the network once for each set of images") from error
        return self.sampled[value]

    def settled(self, eqn: Any, values: Sequence[Held]) -> list[Held]:
        """The values, with all pending strides applied."""
        return on_maps(lambda value: self.settle(eqn, value), values)

    def from_start(self, eqn: Any, value: Map) -> Map:
        """`value`, turned on its circle so that the program sees it from row and column 0.

        Raises:
          TransformError: The program sees only a part of the map.
        """
        if not value.whole:
            seen, circle = value.seen_sides, value.circle
            raise TransformError(
                eqn,
                f"it uses {seen[0]} x {seen[1]} positions of a map that has {circle[0]} x {circle[1]}",
                "Use the whole map (pad it before a window, cut nothing off), or a mean over all positions",
            )
        return value.begun_at((0, 0)) if self.circular else value

    def seen(self, eqn: Any, value: Map) -> Map:
        """`value` settled and starting at row and column 0. `merged()` is then what the program sees."""
        return self.from_start(eqn, self.settle(eqn, value))


def mixed(
    eqn: Any, remedy: str = "Mix them before the first sampling, or after a mean over positions"
) -> Exception:
    """The error of an operation that mixes images with phases of their own."""
    return TransformError(eqn, "mixes images that are sampled at different positions", remedy)


def one_image(eqn: Any, value: Map, dims: Iterable[int]) -> None:
    """Checks that an operation does not mix images along its axes `dims`, if they have phases of their own.

    Raises:
      TransformError: It does.
    """
    if value.grid.choices and value.sides != ONE and any(map(value.of_images, dims)):
        raise mixed(eqn)


SHORTCUT = "strided 1 x 1 convolution of a shortcut"  # name of a rule that is not a primitive

Rule = Callable[..., Sequence[Value]]
RULES: dict[str, Rule] = {}
ALSO_WITHOUT_MAPS: set[str] = set()
ALSO_UNREALIZED: set[str] = set()


def rule(*names: str, plains: bool = False, pointwise: bool = False) -> Callable[[Rule], Rule]:
    """Registers a rule `(transformation, equation, *values) -> values` for primitives.

    Args:
      *names: The primitives.
      plains: Whether the rule is also used if no value is a map.
      pointwise: Whether the rule accepts values whose non-linearity is not evaluated yet.
    """

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(names, function))
        ALSO_WITHOUT_MAPS.update(names if plains else ())
        ALSO_UNREALIZED.update(names if pointwise else ())
        return function

    return register


def interpret(
    how: Transformation, jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Value]
) -> list[Value]:
    """Runs a program on these arguments.

    Raises:
      TransformError: An operation has no shift-invariant form.
    """
    equations, late = list(jaxpr.eqns), set[int]()
    if not (how.subsamples or jaxpr.effects):
        equations, late = in_order(jaxpr, consts, [not isinstance(value, Plain) for value in arguments])

    def evaluate(i: int, eqn: Any, values: list[Value]) -> Sequence[Value]:
        with jax.named_scope(str(eqn.source_info.name_stack)):  # profiles and audits name modules by it
            outputs = _evaluated(how, eqn, SHORTCUT if i in late else eqn.primitive.name, values)
        within = eqn.primitive.name in LOOKED_INTO and not all(isinstance(v, Plain) for v in values)
        if how.report is not None and not within:
            outputs = _with_origin(values, outputs)
        if how.observe is not None:
            how.observe(here(eqn), outputs)
        return outputs

    known: dict[Any, Value] = dict(zip(jaxpr.constvars, map(plain, consts), strict=True))
    known.update(zip(jaxpr.invars, arguments, strict=True))
    return walked(jaxpr, equations, known, plain, evaluate)


def _with_origin(values: Sequence[Value], outputs: Sequence[Value]) -> Sequence[Value]:
    """The outputs, marked if they were computed from maps or after a refused operation."""
    if not any(value.from_maps if isinstance(value, Plain) else True for value in values):
        return outputs
    refused = _refused(values)
    return [
        dataclasses.replace(output, from_maps=True, refused=refused or output.refused)
        if isinstance(output, Plain)
        else output
        for output in outputs
    ]


def _refused(values: Iterable[Value]) -> bool:
    return any(isinstance(value, Plain) and value.refused for value in values)


def run(how: Transformation, jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Value]) -> list[Held]:
    """Runs a program on these arguments and evaluates every non-linearity."""
    return [how.realized(value) for value in interpret(how, jaxpr, consts, arguments)]


def _evaluated(how: Transformation, eqn: Any, name: str, values: Sequence[Value]) -> Sequence[Value]:
    """The results of one operation by the rule `name`. Their shapes must equal those of the program."""
    maps = any(not isinstance(value, Plain) for value in values)
    if not maps and name not in ALSO_WITHOUT_MAPS:
        return [
            plain(y) for y in rebound(eqn, *(value.full() for value in values if isinstance(value, Plain)))
        ]
    try:
        if name not in RULES:
            raise TransformError(
                eqn,
                "there is no rule for this operation on a map",
                "Apply it to values that do not depend on the position, or replace it",
            )
        if name != "concatenate" and any(isinstance(v, Map) and v.grid.mirrored for v in values):
            raise TransformError(eqn, "uses a map with reversed rows or columns", "Use it only as padding")
        if name not in ALSO_UNREALIZED:
            values = [how.realized(value) for value in values]
        outputs = RULES[name](how, eqn, *values)
        for variable, output in zip(eqn.outvars, outputs, strict=True):
            if tuple(variable.aval.shape) != tuple(output.shape):
                raise TransformError(
                    eqn,
                    f"its result has the shape {list(output.shape)} on the grid, but "
                    f"{list(variable.aval.shape)} in the program",
                    "Pad the map so that its size is that of the input divided by the stride",
                )
        return outputs
    except TransformError as error:
        if how.report is None:
            raise
        for value in map(how.realized, values):
            if isinstance(value, Map):
                how.read(value)
        if not _refused(values):  # a refused operation is reported once, not again for all that follows
            how.found(eqn, WHOLE, error.reason, error.remedy)
        return [_gone_on(values, variable.aval) for variable in eqn.outvars]


def _gone_on(values: Sequence[Value], aval: Any) -> Held:
    """A substitute for the result of a refused operation: a map, if it has the axes of the only input map."""
    array = jnp.zeros(aval.shape, aval.dtype)
    roots = [value.roots[0] if isinstance(value, Pointwise) else value for value in values]
    maps = [value for value in roots if isinstance(value, Map)]
    if len(maps) == 1 and maps[0].ndim == array.ndim:
        value = maps[0]
        dims = [dim for dim in range(value.ndim) if value.spatial(dim)]
        if value.space_dims() == dims:
            return _of_axes(value, array, (dims[0], dims[1]), [(dim,) for dim in range(array.ndim)])
        if len(dims) == 1:  # tokens become rows of one column
            groups: list[Group] = [(dim + (dim > dims[0]),) for dim in range(array.ndim)]
            groups[dims[0]] = (dims[0], dims[0] + 1)
            return _of_axes(value, jnp.expand_dims(array, dims[0] + 1), (dims[0], dims[0] + 1), groups)
    return Plain(array, array.shape, from_maps=True, refused=True)


def _of_axes(value: Map, array: jax.Array, space: tuple[int, int], groups: Sequence[Group]) -> Map:
    """A map with these axes. It is on a new grid, unless it has the size of `value`."""
    sides = array.shape[space[0]], array.shape[space[1]]
    firsts = [g[0] for g, old in zip(groups, value.groups, strict=True) if set(old) & set(value.batch)]
    batch = tuple(axis for axis in firsts if axis not in space)
    grid = value.grid if sides == value.sides else Grid(value.grid, "refused", sides)
    band = value.band and value.band.sampled(value.sides, sides)
    return dataclasses.replace(map_of(array, space, batch, grid), groups=tuple(groups), band=band)

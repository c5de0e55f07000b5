"""What in a function of images breaks shift invariance, read from its program: nothing is computed."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax

from aliasfree_jax.errors import ConfigError, listed, unknown
from aliasfree_jax.layers.sampling import Subsample
from aliasfree_jax.transform import bands, program
from aliasfree_jax.transform.interpreter import Transformation, run
from aliasfree_jax.transform.lines import Place, TransformError, short, walking
from aliasfree_jax.transform.maps import Map
from aliasfree_jax.transform.reporting import FRACTIONS, WHOLE
from aliasfree_jax.transform.values import Held, Pointwise, Value


@dataclasses.dataclass(frozen=True)
class Finding:
    """An operation that breaks invariance.

    Attributes:
      where: file and line of the user's code.
      operation: the function that the line calls, or the primitive of JAX.
      shifts: the least that it breaks: "whole pixels", or "fractions" of a pixel only.
      reason: why.
      remedy: what to write in its place.
      within: the path of the module, where the library names its modules.
    """

    where: str
    operation: str
    shifts: str
    reason: str
    remedy: str
    within: str = ""


class Findings(list[Finding]):
    """All that breaks invariance, in the order of the program; as text, a table with one entry a line."""

    def __str__(self) -> str:
        """The table."""
        if not self:
            return "nothing found"
        entries: dict[Finding, list[str]] = {}
        for finding in self:
            entries.setdefault(dataclasses.replace(finding, within=""), []).append(finding.within)
        rows = [(short(entry.where), entry.operation, entry.shifts, entry.reason) for entry in entries]
        widths = [max(len(row[column]) for row in rows) for column in range(3)]
        lines = []
        for row, (entry, modules) in zip(rows, entries.items(), strict=True):
            start = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
            lines.append("  ".join([*start, entry.reason]))
            inside = [module for module in dict.fromkeys(modules) if module]
            lines += [f"    in {listed(inside, 3)}"] if inside else []
            lines.append(f"    {entry.remedy}.")
        return "\n".join(lines)


@dataclasses.dataclass(frozen=True)
class _AsWritten:
    """Non-linearities on the grid that they have."""

    def realized(self, value: Pointwise) -> Map:
        """The map, and its frequencies."""
        array = value.at({id(root): root.array for root in value.roots})
        return dataclasses.replace(value.roots[0], array=array, band=value.band)

    def refuse(self, eqn: Any, what: str) -> None:
        """They stay."""


def check(
    f: Callable[..., Any],
    *args: Any,
    shifts: str = WHOLE,
    spatial_axes: tuple[int, int] = (1, 2),
    argnums: int | Sequence[int] = 0,
    **kwargs: Any,
) -> Findings:
    """Finds every operation of a function of images that breaks its shift invariance, without computing it.

    The program of `f` is read, as by `shift_invariant`. Shifts are circular: what leaves on one side of an
    image comes in on the other.

    Args:
      f: a pure function, such as `module.apply`.
      *args: its arguments; in place of arrays, `jax.ShapeDtypeStruct` will do. Arguments without arrays
        (`train=False`) stay as they are.
      shifts: "whole pixels", or "fractions": all shifts, those by whole pixels included.
      spatial_axes: of rows and columns in the images; the images are axis 0, unless it is one of the two.
      argnums: number, or numbers, of the positional arguments that hold the images.
      **kwargs: further arguments of `f`.

    Returns:
      The findings, in the order of the program. `print` them.

    Raises:
      ConfigError: unknown shifts, or images that are not where `argnums` and `spatial_axes` say.
    """
    if shifts not in (WHOLE, FRACTIONS):
        raise ConfigError(unknown("kind of shifts", shifts, (WHOLE, FRACTIONS)))
    read = program.read(f, shapes_of(args), shapes_of(kwargs), argnums, spatial_axes)
    recorder = Recorder(shifts)
    walk(read, recorder)
    return recorder.findings()


def walk(
    read: program.Program,
    report: Callable[[Place, str, str, str], None],
    observe: Callable[[Place, Sequence[Value]], None] | None = None,
) -> list[Held]:
    """Walks a program on shapes, and tells `report` what breaks it, `observe` what its operations give.

    Returns:
      What it gives; of maps and arrays, all but what is in them.
    """
    how = Transformation(Subsample, True, True, report=report, activations=_AsWritten(), observe=observe)
    given: list[Held] = []

    def walked(*arrays: Any) -> None:
        values = [
            dataclasses.replace(value, band=bands.whole(value.sides)) if isinstance(value, Map) else value
            for value in read.values(arrays)
        ]
        jaxpr = read.jaxpr.jaxpr
        given[:] = run(how, jaxpr, read.jaxpr.consts, values)
        for variable, result in zip(jaxpr.outvars, given, strict=True):
            if isinstance(result, Map):
                _given_back(how, *read.maker(variable), result)

    jax.eval_shape(walked, *read.arrays)
    return given


def shapes_of(arguments: Any) -> Any:
    """The arguments with shapes in place of arrays."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if hasattr(leaf, "dtype") else leaf,
        arguments,
    )


def _given_back(how: Transformation, number: int, eqn: Any, result: Map) -> None:
    """A map that is a result of the program, by its operation `eqn`: its user reads all of it."""
    how.read(result)
    if eqn is None:
        return
    with walking(number, eqn):
        try:
            result = how.seen(eqn, result)
        except TransformError as error:
            how.found(eqn, WHOLE, error.reason, error.remedy)
            return
        _moves_along(how, eqn, result)


def _moves_along(how: Transformation, eqn: Any, result: Map) -> None:
    """Reports a result that moves in steps of several pixels, or from a place of its own for each image."""
    images, sides, kinds = result.grid.images, result.sides, result.grid.kinds
    steps = [full // side for full, side in zip(images, sides, strict=True)]
    by_whole_places = result.band is not None and result.band.unit != images
    anew = bool(kinds & {"phase", "component", "components"})
    if "refused" in kinds or not (anew or (max(steps) > 1 and by_whole_places)):
        return
    moves = "begins at a place of its own for each image"
    if max(steps) > 1:
        moves = f"moves in steps of {steps[0]} x {steps[1]} pixels, not by each pixel"
    how.found(
        eqn,
        WHOLE,
        f"the result is a map of {sides[0]} x {sides[1]} places, of images of {images[0]} x {images[1]}: it "
        + moves,
        "Where the map is the answer, bring it to the images' size: by layers.PolyphaseUpsample at the phase "
        "of each sampler, or by layers.IdealUpsample behind layers.IdealDownsample",
    )


class Recorder:
    """Takes what a walk reports."""

    def __init__(self, shifts: str) -> None:
        self.shifts = shifts
        self._found: dict[tuple[tuple[int, ...], str, str], tuple[int, Finding]] = {}
        self._count = itertools.count()

    def __call__(self, place: Place, shifts: str, reason: str, remedy: str) -> None:
        """Takes a finding, if it concerns these shifts."""
        if shifts == WHOLE or self.shifts == FRACTIONS:
            finding = Finding(place.where, place.operation, shifts, reason, remedy, place.within)
            self._found.setdefault((place.position, shifts, reason), (next(self._count), finding))

    def at(self, place: Place, shifts: str) -> Finding | None:
        """What was found at a place, or else on its line in its module; rather of these shifts."""
        there = (place.where, place.within)
        found = [
            (position != place.position, finding.shifts != shifts, number)
            for (position, _, _), (number, finding) in self._found.items()
            if position == place.position or (finding.where, finding.within) == there
        ]
        numbered = dict(self._found.values())
        return numbered[min(found)[2]] if found else None

    def findings(self) -> Findings:
        """In the order of the program, each once."""
        ordered = sorted(self._found.items(), key=lambda item: (item[0][0], item[1][0]))
        return Findings(dict.fromkeys(finding for _, (_, finding) in ordered))

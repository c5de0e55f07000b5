"""Finds the operations that break shift invariance. It reads the program and computes nothing."""

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
    """An operation that breaks shift invariance.

    Source: this package.

    Attributes:
      where: File and line of the user's code.
      operation: The library function that the line calls, or the JAX primitive.
      shifts: The smallest kind of shift that it breaks: "whole pixels", or "fractions" of a pixel only.
      reason: Why it breaks invariance.
      remedy: What to write instead.
      within: Path of the module, if the library names its modules. Otherwise "".
    """

    where: str
    operation: str
    shifts: str
    reason: str
    remedy: str
    within: str = ""


class Findings(list[Finding]):
    """A list of all findings, in the order of the program. `print` shows it as a table.

    Source: this package.
    """

    def __str__(self) -> str:
        """A table with one entry per finding. Equal findings in several modules share an entry."""
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
    """Evaluates non-linearities on the grid of their input."""

    def realized(self, value: Pointwise) -> Map:
        """The map, with its frequency band."""
        array = value.at({id(root): root.array for root in value.roots})
        return dataclasses.replace(value.roots[0], array=array, band=value.band)

    def refuse(self, eqn: Any, what: str) -> None:
        """Accepts every non-linearity."""


def check(
    f: Callable[..., Any],
    *args: Any,
    shifts: str = WHOLE,
    spatial_axes: tuple[int, int] = (1, 2),
    argnums: int | Sequence[int] = 0,
    **kwargs: Any,
) -> Findings:
    """Finds every operation of a function of images that breaks its shift invariance.

    It reads the program of `f`, as `shift_invariant` does, and computes nothing. Shifts are circular: pixels
    that leave on one side of the image enter on the other.

    Source: this package.

    Args:
      f: A pure function, such as `module.apply`.
      *args: Arguments of `f`. `jax.ShapeDtypeStruct` may replace arrays. Arguments without arrays, such as
        `train=False`, are passed on unchanged.
      shifts: "whole pixels", or "fractions" for all shifts, including those by whole pixels.
      spatial_axes: The axes of rows and columns in the images. Axis 0 is the batch, unless it is one of them.
      argnums: Positions of the positional arguments that hold the images.
      **kwargs: Keyword arguments of `f`.

    Returns:
      The findings, in the order of the program. `print` shows them as a table.

    Raises:
      ConfigError: The kind of shifts is unknown, or `argnums` and `spatial_axes` do not point to images.
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
    """Walks through a program with shapes alone.

    Args:
      read: The program.
      report: Called for every operation that breaks invariance.
      observe: Called with the results of every operation.

    Returns:
      The results of the program. Their arrays hold shapes only.
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
    """The arguments, with every array replaced by its shape."""
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) if hasattr(leaf, "dtype") else leaf,
        arguments,
    )


def _given_back(how: Transformation, number: int, eqn: Any, result: Map) -> None:
    """Checks a map that the program returns. Its user reads all of its frequencies."""
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
    """Reports a result that moves in steps of several pixels, or whose grid begins differently per image."""
    images, sides, kinds = result.grid.images, result.sides, result.grid.kinds
    steps = [full // side for full, side in zip(images, sides, strict=True)]
    by_whole_places = result.band is not None and result.band.unit != images
    anew = bool(kinds & {"phase", "component", "components"})
    if "refused" in kinds or not (anew or (max(steps) > 1 and by_whole_places)):
        return
    moves = "begins at a different position for each image"
    if max(steps) > 1:
        moves = f"moves in steps of {steps[0]} x {steps[1]} pixels, not by each pixel"
    how.found(
        eqn,
        WHOLE,
        f"the result is a map of {sides[0]} x {sides[1]} positions, for images of {images[0]} x {images[1]}. "
        f"It {moves}",
        "If the map is the output, upsample it to the image's size: use layers.PolyphaseUpsample at the "
        "phase of each sampler, or layers.IdealUpsample after layers.IdealDownsample",
    )


class Recorder:
    """Collects the findings of a walk."""

    def __init__(self, shifts: str) -> None:
        self.shifts = shifts
        self._found: dict[tuple[tuple[int, ...], str, str], tuple[int, Finding]] = {}
        self._count = itertools.count()

    def __call__(self, place: Place, shifts: str, reason: str, remedy: str) -> None:
        """Adds a finding, if it concerns the requested shifts."""
        if shifts == WHOLE or self.shifts == FRACTIONS:
            finding = Finding(place.where, place.operation, shifts, reason, remedy, place.within)
            self._found.setdefault((place.position, shifts, reason), (next(self._count), finding))

    def at(self, place: Place, shifts: str) -> Finding | None:
        """The finding at a place, or on the same line and in the same module. It prefers these shifts."""
        there = (place.where, place.within)
        found = [
            (position != place.position, finding.shifts != shifts, number)
            for (position, _, _), (number, finding) in self._found.items()
            if position == place.position or (finding.where, finding.within) == there
        ]
        numbered = dict(self._found.values())
        return numbered[min(found)[2]] if found else None

    def findings(self) -> Findings:
        """The distinct findings, in the order of the program."""
        ordered = sorted(self._found.items(), key=lambda item: (item[0][0], item[1][0]))
        return Findings(dict.fromkeys(finding for _, (_, finding) in ordered))

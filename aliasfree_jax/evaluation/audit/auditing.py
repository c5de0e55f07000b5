"""Finds the operations of a function of images that break shift equivariance, and measures their error.

The function is computed in float64, where rounding errors are far smaller than all other errors. The audit
also reports the error in the precision of the function, which is the error in use.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from aliasfree_jax.errors import AliasFreeError, ShapeError, listed
from aliasfree_jax.evaluation.alignment import Shift, pair, tolerance
from aliasfree_jax.evaluation.audit.call import Call
from aliasfree_jax.evaluation.audit.rows import DECIDABLE, Row, Run
from aliasfree_jax.transform import checking
from aliasfree_jax.transform.lines import short
from aliasfree_jax.transform.reporting import FRACTIONS, WHOLE

# A shift by a whole pixel shows the errors of sampling and padding. Half a pixel also shows those of
# non-linearities. The third shift is on no grid.
SHIFTS: tuple[Shift, ...] = ((1.0, 1.0), (0.5, 0.5), (0.3, 7.1))
GUIDE = "docs/changing_your_network.md"

State = Literal["exact", "breaks", "follows", "mended", "not compared"]


@dataclasses.dataclass(frozen=True)
class LayerError:
    """Equivariance errors of one line of the program's code, in one call of one module, under one shift.

    Source: this package.

    Attributes:
      path: Path of the module, if the library names its modules.
      operation: The operation that breaks. Otherwise the convolution, product or known function of the line.
      where: File and line.
      shape: Shape of the output.
      dtype: Type of the output in the precision of the function.
      before: Equivariance error of the input in float64, relative to the largest value; nan: not compared.
      after: Equivariance error of the output, as `before`.
      deployed: `after` in the precision of the function.
      aligned: The output moved by other pixels than the image, which is the effect of an adaptive sampler.
        The error allows for it.
      state: "exact": the output is exact. "breaks": the input is exact, but the output is not. "follows": an
        earlier operation breaks. "mended": the output is not exact, but everything computed from it is exact
        again. "not compared": see `note`.
      note: The reason why it was not compared, or the operation that breaks its input.
    """

    path: str
    operation: str
    where: str
    shape: tuple[int, ...]
    dtype: str
    before: float
    after: float
    deployed: float
    aligned: bool
    state: State
    note: str

    @property
    def name(self) -> str:
        """Name in tables and sentences."""
        return f"{self.path} ({self.operation})" if self.path else f"{self.operation} ({short(self.where)})"


@dataclasses.dataclass(frozen=True)
class Audit:
    """Audit of a function under one shift.

    Source: this package.

    Attributes:
      network: Name of the function or network.
      shift: The shift in pixels: rows and columns.
      layers: Errors in the order of execution.
      first_break: Path of the first module that breaks, or operation and line; None if nothing breaks.
      finding: The same as a sentence, with the recommended replacement.
      notes: Layers that could not be compared, and limits of the audit.
    """

    network: str
    shift: Shift
    layers: tuple[LayerError, ...]
    first_break: str | None
    finding: str
    notes: tuple[str, ...]


class Audits(list[Audit]):
    """List with one audit per shift. `print` shows their tables.

    Source: this package.
    """

    def __str__(self) -> str:
        """Formats the tables."""
        from aliasfree_jax.evaluation.audit.report import format_table

        return format_table(self)


def audit(
    f: Callable[..., Any],
    *args: Any,
    shifts: Sequence[Shift] = SHIFTS,
    spatial_axes: tuple[int, int] = (1, 2),
    argnums: int | Sequence[int] = 0,
    network: str = "",
    **kwargs: Any,
) -> Audits:
    """Measures how much each operation of a function of images breaks its shift equivariance.

    The program of `f` runs on the images and on circularly shifted images, operation by operation. Each
    map of the shifted images is compared with the shifted map; its shift is proportional to its size. A map
    that is coarser by a factor q may be displaced by additional pixels of the image, fewer than q on each
    axis: this is the effect of adaptive samplers. Arrays without rows and columns must not change.

    Source: this package.

    Args:
      f: Pure function of images in evaluation mode, such as `module.apply`.
      *args: Arguments of `f`. The images must be floating-point, with the type that `f` uses in practice.
      shifts: Shifts in pixels: rows and columns. Fractions use ideal interpolation, without the Nyquist
        frequency.
      spatial_axes: Axes of rows and columns in the images. Axis 0 counts the images, unless it is one of
        these two.
      argnums: Index, or indices, of the positional arguments that contain images.
      network: Name for tables and pictures; default: the name of `f`.
      **kwargs: Further arguments of `f`.

    Returns:
      One `Audit` per shift. `print` shows them as tables.

    Raises:
      ShapeError: The images have the wrong shape or type, or no result depends on them.
      ConfigError: A shift is not a pair of finite numbers or moves nothing, or `argnums` and `spatial_axes`
        do not fit the images.
      AliasFreeError: `f` performs different operations in float64 than in its usual precision.
    """
    owner = getattr(f, "__self__", None)
    name = network or (type(owner).__name__ if owner is not None else getattr(f, "__name__", "function"))
    own, wide = (Call(wide, f, args, kwargs, argnums, spatial_axes) for wide in (False, True))
    own.check(shifts)
    return Audits([_audited(wide, wide.run(shift), own.run(shift), shift, name) for shift in shifts])


def _audited(program: Call, wide: Run, own: Run, shift: Shift, name: str) -> Audit:
    if not wide.rows:
        raise ShapeError(f"no result of {name} depends on the images.")
    ours, theirs = ([(row.path, row.where, row.own) for row in run.rows] for run in (wide, own))
    if ours != theirs:
        raise AliasFreeError(
            f"{name} performs different operations in float64 than in its usual precision, because its code "
            "depends on the type: remove this dependence for the audit."
        )
    layers = tuple(_layer(wide, row, own_row) for row, own_row in zip(wide.rows, own.rows, strict=True))
    output = _output(wide, own, layers)
    broken = [i for i, row in enumerate(wide.rows) if wide.guilty(row) is not None]
    if not broken and output and output.state == "breaks":
        finding, first = _in_steps(output, shift, program.found), output.path
    elif not broken:
        looked_at = "" if layers[-1].state == "exact" else " that could be compared"
        finding, first = f"Nothing{looked_at} breaks under a shift by {pair(shift)}.", None
    else:
        layer = layers[broken[0]]
        finding = _sentence(wide, wide.rows[broken[0]], layer, shift, program.found)
        first = layer.path or layer.name
    notes = _notes(wide, layers)
    return Audit(name, shift, (*layers, output) if output else layers, first, finding, notes)


def _layer(run: Run, row: Row, own: Row) -> LayerError:
    guilty, last, note = run.guilty(row), row.last, row.seen.note
    state: State = "follows"
    if math.isnan(row.seen.error):
        state = "not compared"
    elif run.exact(last):
        state = "exact"
    elif guilty is not None:
        state = "breaks"
    elif run.limit(last) >= DECIDABLE:
        state, note = "not compared", "rounding of a narrow type"
    elif not run.stays(last):
        state = "mended"
    elif blamed := run.blamed(row):
        note = f"broken earlier, in {blamed.path or blamed.own or blamed.where}"
    operation = row.steps[guilty].operation if guilty is not None else row.own
    operation = operation or list(row.steps.values())[-1].operation
    return LayerError(
        row.path,
        operation,
        row.where,
        row.seen.shape,
        own.seen.dtype,
        run.before(row),
        row.seen.error,
        own.seen.error,
        row.seen.aligned,
        state,
        note,
    )


def _output(wide: Run, own: Run, layers: Sequence[LayerError]) -> LayerError | None:
    """The last row, if the function returns maps: they must move exactly as far as the image."""
    if wide.output is None or own.output is None:
        return None
    last, error, note = wide.rows[-1], wide.output.error, ""
    state: State = "breaks"
    if math.isnan(error):
        state, note = "not compared", "only zeros"
    elif error <= max(tolerance(np.float64), wide.limit(last.last)):
        state = "exact"
    elif any(layer.state in ("breaks", "follows") for layer in layers):
        state = "follows"
    return LayerError(
        "output",
        "the result",
        last.where,
        wide.output.shape,
        own.output.dtype,
        layers[-1].after,
        error,
        own.output.error,
        False,
        state,
        note,
    )


def _in_steps(output: LayerError, shift: Shift, recorder: checking.Recorder) -> str:
    """Finding if only the output breaks: its map moves, but not as far as the image."""
    text = (
        f"The output is the first to break under a shift by {pair(shift)}: it moves in steps of several "
        f"pixels, or its grid starts at different pixels (error {output.after:.1e})."
    )
    found = [finding for finding in recorder.findings() if finding.reason.startswith("the result is a map")]
    return text + (f" Reason: {found[0].reason}. {found[0].remedy}." if found else f" See {GUIDE}.")


def _sentence(run: Run, row: Row, layer: LayerError, shift: Shift, recorder: checking.Recorder) -> str:
    """Finding: the first operation that breaks, its error, and the reason found by `check`."""
    number = run.guilty(row)
    assert number is not None
    place = f" at {short(layer.where)}" if layer.path else ""
    before = "was not compared" if math.isnan(layer.before) else f"is equivariant (error {layer.before:.1e})"
    text = (
        f"{layer.name}{place} is the first to break under a shift by {pair(shift)}: its input {before}, "
        f"its output is not (error {run.error(number):.1e})."
    )
    found = recorder.at(row.steps[number], FRACTIONS if any(s % 1 for s in shift) else WHOLE)
    return text + (f" Reason: {found.reason}. {found.remedy}." if found else f" See {GUIDE}.")


def _notes(run: Run, layers: Sequence[LayerError]) -> tuple[str, ...]:
    notes = []
    for why, text in (
        ("rows and columns", "not compared, because its rows and columns are not known"),
        ("only zeros", "all outputs are zero, which hides earlier errors: audit trained weights"),
    ):
        names = [layer.name for layer in layers if layer.note.startswith(why)]
        if names:
            notes.append(f"{listed(names, 3)}: {text}.")
    for row, layer in zip(run.rows, layers, strict=True):
        if tolerance(np.float64) < row.seen.error <= run.limit(row.last):
            limit = run.limit(row.last)
            errors = f"errors below {limit:.0e}" if limit < DECIDABLE else "all errors"
            notes.append(
                f"{layer.name} computes with constants of a narrower type than float64: {errors} after it "
                "may be rounding errors."
            )
            break
    return tuple(notes)

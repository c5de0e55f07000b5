"""Which operations of a function of images break shift equivariance, and by how much.

Float64 tells what breaks: errors of rounding are then far below all others. Beside it stands the error in
the function's own precision, which is what it has in use.
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

# A whole pixel shows what sampling and padding break, half a pixel also what non-linearities do; the third
# lies on no grid.
SHIFTS: tuple[Shift, ...] = ((1.0, 1.0), (0.5, 0.5), (0.3, 7.1))
GUIDE = "docs/changing_your_network.md"

State = Literal["exact", "breaks", "follows", "mended", "not compared"]


@dataclasses.dataclass(frozen=True)
class LayerError:
    """Operations of one line of the program's code, in one call of one module, under one shift.

    Attributes:
      path: names of the modules that lead to it, where the library names its modules.
      operation: the one that breaks; else the convolution, product or known function among them.
      where: file and line.
      shape: of the result.
      dtype: of the result in the function's own precision.
      before, after: equivariance error of what it takes and gives in float64, relative to the largest value;
        nan if not compared.
      deployed: `after` in the function's own precision.
      aligned: the output moved by other pixels than the image did, as behind an adaptive sampler, for which
        the error allows.
      state: its output is exact; it breaks where its input was exact; follows a break; is mended behind it,
        where all that is computed from it is exact again.
      note: why it is not compared; or what breaks its input.
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
        """In tables and sentences."""
        return f"{self.path} ({self.operation})" if self.path else f"{self.operation} ({short(self.where)})"


@dataclasses.dataclass(frozen=True)
class Audit:
    """A function under one shift; its layers in the order of execution.

    Attributes:
      first_break: path of the first module that breaks, or operation and line; None if nothing does.
      finding: that in a sentence, with what replaces it.
      notes: what the audit could not look at.
    """

    network: str
    shift: Shift
    layers: tuple[LayerError, ...]
    first_break: str | None
    finding: str
    notes: tuple[str, ...]


class Audits(list[Audit]):
    """One audit a shift; as text, their tables."""

    def __str__(self) -> str:
        """The tables."""
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

    The program of `f` runs on the images and on the same images moved round the circle, operation by
    operation; each map is compared with itself, moved along in proportion to its size. A map coarser by q
    may have moved by other pixels of the image, fewer than q on each axis, as adaptive samplers leave it.
    What has no rows and columns is to stay.

    Args:
      f: a pure function of images in its evaluation mode, such as `module.apply`.
      *args: its arguments; images are floating-point, of the type that `f` is used with.
      shifts: rows and columns, in pixels; fractions take ideal interpolation, without the Nyquist frequency.
      spatial_axes: of rows and columns in the images; the images are axis 0, unless it is one of the two.
      argnums: number, or numbers, of the positional arguments that hold the images.
      network: its name in tables and pictures; default: that of `f`.
      **kwargs: further arguments of `f`.

    Returns:
      An `Audit` a shift. `print` them.

    Raises:
      ShapeError: images of another shape or type; no result depends on them.
      ConfigError: a shift that is no pair of finite numbers, or moves nothing; images that are not where
        `argnums` and `spatial_axes` say.
      AliasFreeError: `f` performs other operations in float64 than in its own precision.
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
            f"{name} performs other operations in float64 than in its own precision: it asks for the type."
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
        note = f"broken before it, in {blamed.path or blamed.own or blamed.where}"
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
    """The last row, where the function gives maps: they are to move just as far as the image."""
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
    """That the output alone breaks: its map moves, but not as far as the image."""
    text = (
        f"The output is the first to break under a shift by {pair(shift)}: it moves in steps of several "
        f"pixels, or from a place of its own for each image (error {output.after:.1e})."
    )
    found = [finding for finding in recorder.findings() if finding.reason.startswith("the result is a map")]
    return text + (f" Reason: {found[0].reason}. {found[0].remedy}." if found else f" See {GUIDE}.")


def _sentence(run: Run, row: Row, layer: LayerError, shift: Shift, recorder: checking.Recorder) -> str:
    """What breaks first, by how much, and what `check` says to that."""
    number = run.guilty(row)
    assert number is not None
    place = f" at {short(layer.where)}" if layer.path else ""
    before = "was not compared" if math.isnan(layer.before) else f"moves along (error {layer.before:.1e})"
    text = (
        f"{layer.name}{place} is the first to break under a shift by {pair(shift)}: its input {before}, "
        f"its output does not ({run.error(number):.1e})."
    )
    found = recorder.at(row.steps[number], FRACTIONS if any(s % 1 for s in shift) else WHOLE)
    return text + (f" Reason: {found.reason}. {found.remedy}." if found else f" See {GUIDE}.")


def _notes(run: Run, layers: Sequence[LayerError]) -> tuple[str, ...]:
    notes = []
    for why, text in (
        ("rows and columns", "it is not known where rows and columns are, so that nothing was compared"),
        ("only zeros", "only zeros come out, which hides what breaks before: audit trained weights"),
    ):
        names = [layer.name for layer in layers if layer.note.startswith(why)]
        if names:
            notes.append(f"{listed(names, 3)}: {text}.")
    for row, layer in zip(run.rows, layers, strict=True):
        if tolerance(np.float64) < row.seen.error <= run.limit(row.last):
            limit = run.limit(row.last)
            errors = f"errors below {limit:.0e}" if limit < DECIDABLE else "all errors"
            notes.append(
                f"{layer.name} computes with constants of a narrower type than float64: {errors} behind it "
                "may be rounding."
            )
            break
    return tuple(notes)

"""Which layers of a network break shift equivariance, and by how much.

Float64 tells what breaks: errors of rounding are then far below all others. Beside it stands the error in
the network's own precision, which is what it has in use.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.checkpoint import PyTree
from aliasfree_jax.errors import AliasFreeError, ConfigError, ShapeError
from aliasfree_jax.evaluation.audit.alignment import Shift, moved_along, pair, tolerance
from aliasfree_jax.evaluation.audit.judging import DECIDABLE, Break, Judge, describe, limits_of
from aliasfree_jax.evaluation.audit.recording import Recorder, record
from aliasfree_jax.ops.resample import remove_nyquist
from aliasfree_jax.ops.shapes import check_images

# A whole pixel shows what sampling and padding break, half a pixel also what non-linearities do; the third
# lies on no grid.
SHIFTS: tuple[Shift, ...] = ((1.0, 1.0), (0.5, 0.5), (0.3, 7.1))

State = Literal["exact", "breaks", "follows", "mended", "not compared"]


@dataclasses.dataclass(frozen=True)
class LayerError:
    """One call of one layer under one shift.

    Attributes:
      path: names of the modules that lead to it, "" for the network itself.
      kind: its class, and its stride where it has one.
      shape: of its output, [N, h, w, C] or [N, features]; () if that is neither.
      dtype: of its output in the network's own precision.
      before, after: equivariance error of its input and output in float64, relative to the largest value;
        nan if not compared.
      deployed: `after` in the network's own precision.
      aligned: the output moved by other pixels than the image did, as behind an adaptive sampler, for which
        the error allows.
      state: its output is exact; it breaks where its input was exact and no layer inside is to blame;
        follows a break; is mended by the layer around it or the next one, whose output is exact again.
      note: why it is not compared; or the layer around it that breaks its input.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    dtype: str
    before: float
    after: float
    deployed: float
    aligned: bool
    state: State
    note: str


@dataclasses.dataclass(frozen=True)
class Audit:
    """All layers of a network under one shift, in the order in which they end.

    Attributes:
      first_break: path of the first layer that breaks; None if none does.
      finding: that in a sentence, with what replaces the layer.
      notes: what the audit could not look at.
    """

    network: str
    shift: Shift
    layers: tuple[LayerError, ...]
    first_break: str | None
    finding: str
    notes: tuple[str, ...]


def _judged(wide: Recorder, own: Recorder) -> tuple[tuple[LayerError, ...], list[Break]]:
    judge = Judge(wide.calls, limits_of(wide.calls))
    breaks = list(judge.breaks(wide.calls[-1]))
    guilty = {found.call.left for found in breaks}
    reached = {found.following.left: found for found in breaks if found.following}
    layers = []
    for call, deployed in zip(wide.calls, own.calls, strict=True):
        state: State = "follows"
        note = call.result.note
        if found := reached.get(call.left):
            note = f"broken before it, in {found.call.path or 'the network itself'}"
        if math.isnan(call.result.error):
            state = "not compared"
        elif judge.exact(call):
            state = "exact"
        elif call.left in guilty:
            state = "breaks"
        elif judge.mended(call):
            state = "mended"
        elif judge.limits[call.left] >= DECIDABLE:
            state, note = "not compared", "rounding of a narrow type"
        layers.append(
            LayerError(
                call.path,
                describe(call),
                call.result.shape,
                deployed.result.dtype,
                call.source.error,
                call.result.error,
                deployed.result.error,
                call.result.aligned,
                state,
                note,
            )
        )
    return tuple(layers), breaks


def _notes(wide: Recorder) -> tuple[str, ...]:
    notes = []
    if wide.unseen:
        notes.append(
            f"{len(wide.unseen)} layers run inside a transformation (vmap, grad, while_loop) and were not "
            f"looked at: {_few(wide.unseen)}."
        )
    narrow = [c for c in wide.calls if c.result.dtype and tolerance(c.result.dtype) > tolerance(np.float64)]
    if narrow:
        first = narrow[0]
        limit = tolerance(first.result.dtype)
        notes.append(
            f"{first.path or 'the network'} computes in {first.result.dtype} whatever it is given: "
            f"{f'errors below {limit:.0e}' if limit < DECIDABLE else 'all errors'} behind it may be rounding."
        )
    zeros = [c.path for c in wide.calls if c.result.note == "only zeros"]
    if zeros:
        notes.append(
            f"{_few(zeros)}: only zeros come out, which hides what breaks before: audit trained weights."
        )
    return tuple(notes)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _check(images: jax.Array, shifts: Sequence[Shift]) -> None:
    check_images(images)
    for shift in shifts:
        if np.shape(shift) != (2,) or not np.isfinite(shift).all():
            raise ConfigError(
                f"shifts are pairs (rows, columns) of pixels, [(1, 1), (0.5, 0.5)], got {shift!r}."
            )
        if not any(s % side for s, side in zip(shift, images.shape[1:3], strict=True)):
            raise ConfigError(
                f"a shift by {pair(shift)} moves images of {images.shape[1:3]} round to where they were."
            )


def _pairs(images: jax.Array, shift: Shift) -> np.ndarray:
    """The images, and behind them the same moved, float64 [2 N, H, W, C]."""
    with jax.enable_x64(True):
        still = jnp.asarray(np.asarray(images), jnp.float64)
        if any(s % 1 for s in shift):
            still = remove_nyquist(still)  # that frequency no fractional shift keeps
    spectrum = np.fft.fft2(still, axes=(1, 2))
    return np.concatenate([still, moved_along(spectrum, np.tile(shift, (len(images), 1)))])


def audit(
    module: nn.Module,
    variables: PyTree,
    images: jax.Array,
    shifts: Sequence[Shift] = SHIFTS,
    *,
    network: str = "",
    arguments: Mapping[str, Any] | None = None,
) -> list[Audit]:
    """The equivariance error of every layer under circular shifts, one `Audit` a shift.

    A map is to move along in proportion to its size, a vector is to stay. A map coarser by q
    may have moved by other pixels of the image, fewer than q on each axis, as adaptive samplers leave it.
    What is called outside any module counts for the module around.

    Args:
      module: any Flax (Linen) module.
      variables: of it.
      images: floating-point [N, H, W, C], of the type that the network is used with.
      shifts: rows and columns, in pixels; fractions take ideal interpolation, without the Nyquist frequency.
      network: its name in tables and pictures; default: its class.
      arguments: further ones of the module's call, which must be its evaluation mode: {"train": False}.

    Raises:
      ShapeError: images of another shape or type; no layer with an output [N, h, w, C] or [N, features].
      ConfigError: a shift that is no pair of finite numbers, or moves nothing.
      AliasFreeError: the network calls other layers in float64 than in its own precision.
    """
    _check(images, shifts)
    name = network or type(module).__name__
    return [_audited(module, variables, images, shift, name, arguments or {}) for shift in shifts]


def _audited(
    module: nn.Module,
    variables: PyTree,
    images: jax.Array,
    shift: Shift,
    name: str,
    arguments: Mapping[str, Any],
) -> Audit:
    pairs = _pairs(images, shift)
    wide = record(module, variables, pairs, shift, arguments, dtype=np.float64)
    own = record(module, variables, pairs, shift, arguments, dtype=images.dtype)
    if [call.path for call in wide.calls] != [call.path for call in own.calls]:
        raise AliasFreeError(
            f"{name} calls other layers in float64 than in its own precision: its calls depend on values."
        )
    if not any(call.result.shape for call in wide.calls):
        raise ShapeError("no layer of the network has an output [N, h, w, C] or [N, features].")
    layers, breaks = _judged(wide, own)
    looked_at = "" if layers[-1].state == "exact" else " that could be compared"
    none = f"No layer{looked_at} breaks under a shift by {pair(shift)}."
    finding = breaks[0].sentence(shift) if breaks else none
    first = breaks[0].call.path if breaks else None
    return Audit(name, shift, layers, first, finding, _notes(wide))

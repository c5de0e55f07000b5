"""The evaluator: any function images -> logits, measured under shifts.

A `Measurement` joins three choices: how images are moved, over which shifts, and what their answers are
reduced to. Padding (mask 0) never counts.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aliasfree_jax.errors import ConfigError, DataError
from aliasfree_jax.evaluation.comparison import Columns, Compare, Table, compare_logits
from aliasfree_jax.evaluation.placement import everywhere
from aliasfree_jax.evaluation.reductions import STABILITY, Counts, Reduction
from aliasfree_jax.evaluation.shift_sets import ShiftSet
from aliasfree_jax.evaluation.shifting import Circular, Shifting, centre
from aliasfree_jax.evaluation.trial import Predict, Refine, Trial, tell_nobody

Batch = Mapping[str, Any]
Results = dict[str, Any]


@dataclass(frozen=True)
class Measurement:
    """One thing to know.

    Attributes:
      name: key of the results.
      shifts: one set, or several by name: all are reduced together, and each for itself as "parts".
      shifting: how images are moved.
      reductions: what the answers are reduced to. If none of them needs further shifts of an image that is
        fooled already, those are left out.
      refine: looks for worse shifts after those of the sets.
      about: which shifts, in words; goes with the results.
    """

    name: str
    shifts: ShiftSet | Mapping[str, ShiftSet]
    shifting: Shifting = Circular()
    reductions: tuple[Reduction, ...] = STABILITY
    refine: Refine | None = None
    about: str = ""

    @property
    def sets(self) -> Mapping[str, ShiftSet]:
        """The sets by name; one alone is called ""."""
        return self.shifts if isinstance(self.shifts, Mapping) else {"": self.shifts}

    @property
    def count(self) -> int:
        """Passes of an image through the network: its shifts, and those of `refine`."""
        return sum(part.count for part in self.sets.values()) + (self.refine.count if self.refine else 0)

    @property
    def until_fooled(self) -> bool:
        """Whether the further shifts of fooled images can be left out."""
        return all(reduction.until_fooled for reduction in self.reductions)


class _Sums:
    """The counts of one measurement over all batches."""

    def __init__(self, measurement: Measurement) -> None:
        self.measurement = measurement
        parts = [*measurement.shifts] if isinstance(measurement.shifts, Mapping) else []
        self.counts = {part: [Counts() for _ in measurement.reductions] for part in [None, *parts]}
        self.pairs = {part: Counts() for part in self.counts}

    def add(self, trial: Trial) -> None:
        """Visits all shifts of a batch."""
        whole: Table | None = None
        for name, shifts in self.measurement.sets.items():
            where = shifts.draw(trial.numbers)
            if where.shape[2] != trial.shifting.parameters:
                raise ConfigError(
                    f"{self.measurement.name}: {type(trial.shifting).__name__} takes "
                    f"{trial.shifting.parameters} numbers a shift, got {where.shape[2]}."
                )
            table = trial.run(where)
            whole = table if whole is None else whole.joined(table)
            if name in self.counts:
                self._count(name, table)
        assert whole is not None
        if self.measurement.refine:
            whole = whole.joined(self.measurement.refine(trial, whole))
        self._count(None, whole)

    def _count(self, part: str | None, table: Table) -> None:
        self.pairs[part].add(Counts({"pairs": int(table.visited.sum())}))
        images = table.of_images()  # filling must not change even the order of a sum
        for counts, reduction in zip(self.counts[part], self.measurement.reductions, strict=True):
            counts.add(reduction.count(images))

    def result(self) -> Results:
        """Results over all sets, then by set."""
        parts: dict[str | None, Results] = {}
        for part, sums in self.counts.items():
            parts[part] = {"pairs": int(self.pairs[part].total["pairs"])}
            for counts, reduction in zip(sums, self.measurement.reductions, strict=True):
                parts[part] |= reduction.result(counts)
        named = {name: result for name, result in parts.items() if name is not None}
        about = {"about": self.measurement.about} if self.measurement.about else {}
        return about | parts[None] | ({"parts": named} if named else {})


def _trials(
    predict: Predict,
    batch: Batch,
    measurements: Sequence[Measurement],
    first: int,
    compare: Compare,
    advance: Callable[[int], None],
) -> tuple[Columns, list[Trial]]:
    """Columns of the unshifted images, and a trial for each measurement."""
    images, label = batch["image"], np.asarray(batch["label"])
    mask = np.asarray(batch["mask"]) > 0
    whole = everywhere(images)
    margins = [m.shifting.margin for m in measurements] or [0]
    views: dict[int, tuple[np.ndarray, Columns]] = {}
    for margin in dict.fromkeys(margins):
        reference = np.asarray(predict(centre(images, margin)))
        nowhere = np.zeros((len(label), 2), np.int32)
        views[margin] = reference, compare(_as_float(reference), reference, label, nowhere)
    trials = [
        Trial(
            predict=predict,
            compare=compare,
            shifting=m.shifting,
            images=whole,
            reference=_as_float(views[m.shifting.margin][0]),
            still=views[m.shifting.margin][1],
            label=label,
            mask=mask,
            # Filling has no place in the data set: its amount and position depend on devices and processes.
            numbers=first + np.cumsum(mask) - mask,
            until_fooled=m.until_fooled,
            advance=advance,
        )
        for m in measurements
    ]
    return views[margins[0]][1], trials


def _as_float(outputs: np.ndarray) -> np.ndarray:
    return np.asarray(outputs, np.float64)


def evaluate(
    predict: Predict,
    batches: Iterable[Batch],
    measurements: Sequence[Measurement] = (),
    *,
    compare: Compare = compare_logits,
    advance: Callable[[int], None] = tell_nobody,
) -> Results:
    """Measures accuracy, and what shifts change.

    Args:
      predict: images [B, H, W, C] to logits [B, K]; compile it beforehand (`jax.jit`). It may also
        be a function of another library that takes and returns numpy arrays.
      batches: dictionaries image [B, H, W, C], label [B], mask [B] (0 = padding); read once. Where images
        lie on several devices (`training.mesh.evaluated_batches`), the work is divided over them.
      measurements: what to measure; their names are the keys of the results.
      compare: what is compared; `CompareFeatures` where `predict` gives features.
      advance: called with the number of (image, shift) pairs that were done, for a progress bar.

    Returns:
      {"images", "accuracy": of the unshifted images} and for each measurement {"pairs": those looked at, its
      reductions' results; "parts": the same by set, where they have names}. Shares are in [0, 1].

    Raises:
      AliasFreeError: logits that are not finite.
      ConfigError: shifts that the images cannot undergo; two measurements of the same name.
      DataError: no image in `batches`, or labels that the network does not know.
      ShapeError: logits of another shape, or images smaller than their margins.
    """
    if len({m.name for m in measurements}) < len(measurements):
        raise ConfigError(f"two measurements have the same name: {', '.join(m.name for m in measurements)}.")
    head, sums, first = Counts({"images": 0}), [_Sums(m) for m in measurements], 0
    for batch in batches:
        still, trials = _trials(predict, batch, measurements, first, compare, advance)
        mask = np.asarray(batch["mask"]) > 0
        head.add(Counts({"images": int(mask.sum())}))
        if "correct" in still:
            head.add(Counts({"correct": int(still["correct"][mask].sum())}))
        advance(int(mask.sum()))
        for counting, trial in zip(sums, trials, strict=True):
            if mask.any():
                counting.add(trial)
        first += int(mask.sum())
    images = int(head.total["images"])
    if not images:
        raise DataError("there is no image to evaluate: check data.eval_split and data.eval_limit.")
    accuracy = {"accuracy": float(head.total["correct"] / images)} if "correct" in head.total else {}
    return {"images": images, **accuracy} | {s.measurement.name: s.result() for s in sums}

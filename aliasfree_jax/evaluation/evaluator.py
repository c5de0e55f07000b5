"""The evaluator: any function images -> logits, or maps, measured under shifts.

A `Measurement` joins three choices: how images are moved, over which shifts, and what their answers are
reduced to. Padding (mask 0) never counts.
"""

import sys
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from tqdm import tqdm

from aliasfree_jax.errors import ConfigError, DataError
from aliasfree_jax.evaluation.comparison import CompareLogits, Comparison, Reference
from aliasfree_jax.evaluation.reductions import Counts, Reduction
from aliasfree_jax.evaluation.shift_sets import ShiftSet
from aliasfree_jax.evaluation.shifting import Circular, Shifting
from aliasfree_jax.evaluation.table import Columns, Table, unshifted
from aliasfree_jax.evaluation.trial import Predict, Refine, Trial, everywhere, mesh_of, tell_nobody
from aliasfree_jax.processes import is_first
from aliasfree_jax.training.mesh import evaluated_batches, make_mesh, replicate
from aliasfree_jax.training.step import make_predict

Batch = Mapping[str, Any]
Results = dict[str, Any]
_CLASSES = CompareLogits()


@dataclass(frozen=True)
class Measurement:
    """One thing to know.

    Attributes:
      name: key of the results.
      shifts: one set, or several by name: all are reduced together, and each for itself as "parts".
      shifting: how images are moved.
      reductions: what the answers are reduced to; by default as the comparison has it. If none of them needs
        further shifts of an image that is fooled already, those are left out.
      refine: looks for worse shifts after those of the sets.
      about: which shifts, in words; goes with the results.
    """

    name: str
    shifts: ShiftSet | Mapping[str, ShiftSet]
    shifting: Shifting = Circular()
    reductions: tuple[Reduction, ...] = ()
    refine: Refine | None = None
    about: str = ""

    @property
    def sets(self) -> Mapping[str, ShiftSet]:
        """The sets by name; one without a name is "", as all together are."""
        return self.shifts if isinstance(self.shifts, Mapping) else {"": self.shifts}

    @property
    def count(self) -> int:
        """Passes of an image through the network: its shifts, and those of `refine`."""
        return sum(part.count for part in self.sets.values()) + (self.refine.count if self.refine else 0)

    @property
    def until_fooled(self) -> bool:
        """Whether the further shifts of fooled images can be left out."""
        return bool(self.reductions) and all(reduction.until_fooled for reduction in self.reductions)


class _Sums:
    """The counts of one measurement over all batches: of each set by its name, and of all together, ""."""

    def __init__(self, measurement: Measurement) -> None:
        self.measurement = measurement
        self.counts = {name: [Counts() for _ in measurement.reductions] for name in ("", *measurement.sets)}
        self.pairs = dict.fromkeys(self.counts, 0)

    def add(self, trial: Trial) -> None:
        """Visits all shifts of a batch."""
        tables: dict[str, Table] = {}
        for name, shifts in self.measurement.sets.items():
            where = shifts.draw(trial.numbers)
            if where.shape[2] != trial.shifting.parameters:
                raise ConfigError(
                    f"{self.measurement.name}: {type(trial.shifting).__name__} takes "
                    f"{trial.shifting.parameters} numbers a shift, got {where.shape[2]}."
                )
            tables[name] = trial.run(where)
        whole = reduce(Table.joined, tables.values())
        if self.measurement.refine:
            whole = whole.joined(self.measurement.refine(trial, whole))
        for name, table in (tables | {"": whole}).items():
            self.pairs[name] += int(table.visited.sum())
            images = table.of_images()  # filling must not change even the order of a sum
            for counts, reduction in zip(self.counts[name], self.measurement.reductions, strict=True):
                counts.add(reduction.count(images))

    def result(self) -> Results:
        """Results over all sets, then by set."""
        parts: dict[str, Results] = {}
        for name, sums in self.counts.items():
            parts[name] = {"pairs": self.pairs[name]}
            for reduction, counts in zip(self.measurement.reductions, sums, strict=True):
                parts[name] |= reduction.result(counts)
        about = {"about": self.measurement.about} if self.measurement.about else {}
        return about | parts.pop("") | ({"parts": parts} if parts else {})


def _trials(
    predict: Predict,
    batch: Batch,
    measurements: Sequence[Measurement],
    first: int,
    compare: Comparison,
    advance: Callable[[int], None],
) -> tuple[Columns, list[Trial]]:
    """Columns of the unshifted images, and a trial for each measurement."""
    images, label = batch["image"], np.asarray(batch["label"])
    mask = np.asarray(batch["mask"]) > 0
    whole = everywhere(images, mesh_of(images))
    # The first way is where the accuracy comes from: of the images without what a way puts around them.
    ways = [Circular(m.shifting.margin) for m in measurements[:1]] or [Circular()]
    views: dict[Hashable, tuple[Reference, Columns]] = {}
    for way in [*ways, *(m.shifting for m in measurements)]:
        if way.view not in views:
            outputs = predict(way.unshifted(images))
            reference, nowhere = compare.reference(outputs, label, way), np.zeros((len(label), 2), np.int32)
            rows = np.arange(len(label))
            views[way.view] = reference, compare(reference, rows, outputs, nowhere, Circular(way.margin))
    trials = [
        Trial(
            predict=predict,
            compare=compare,
            shifting=m.shifting,
            images=whole,
            reference=views[m.shifting.view][0],
            still=views[m.shifting.view][1],
            label=label,
            mask=mask,
            # Filling has no place in the data set: its amount and position depend on devices and processes.
            numbers=first + np.cumsum(mask) - mask,
            until_fooled=m.until_fooled,
            advance=advance,
        )
        for m in measurements
    ]
    return views[ways[0].view][1], trials


def evaluate(
    predict: Predict,
    batches: Iterable[Batch],
    measurements: Sequence[Measurement] = (),
    *,
    compare: Comparison = _CLASSES,
    advance: Callable[[int], None] = tell_nobody,
) -> Results:
    """Measures accuracy, and what shifts change.

    Args:
      predict: images [B, H, W, C] to logits [B, K], or what `compare` takes; compile it beforehand
        (`jax.jit`). It may also be a function of another library that takes and returns numpy arrays.
      batches: dictionaries image [B, H, W, C], label [B, ...], mask [B] (0 = padding); read once. Where
        images lie on several devices (`training.mesh.evaluated_batches`), the work is divided over them.
      measurements: what to measure; their names are the keys of the results.
      compare: what is asked of the outputs: by default classes of images; for maps see `tasks`,
        and `CompareFeatures` where `predict` gives features.
      advance: called with the number of (image, shift) pairs that were done, for a progress bar.

    Returns:
      {"images", and of the unshifted images "accuracy" or what `compare.overall` says} and for each
      measurement {"pairs": those looked at, its reductions' results; "parts": the same by set, where they
      have names}. Proportions are in [0, 1].

    Raises:
      AliasFreeError: logits that are not finite.
      ConfigError: shifts that the images cannot undergo; two measurements of the same name.
      DataError: no image in `batches`, or labels that the network does not know.
      ShapeError: logits of another shape, or images smaller than their margins.
    """
    if len({m.name for m in measurements}) < len(measurements):
        raise ConfigError(f"two measurements have the same name: {', '.join(m.name for m in measurements)}.")
    measurements = [replace(m, reductions=m.reductions or compare.of_shifts) for m in measurements]
    sums, images = [_Sums(m) for m in measurements], 0
    overall = [Counts() for _ in compare.overall]
    for batch in batches:
        still, trials = _trials(predict, batch, measurements, images, compare, advance)
        mask = np.asarray(batch["mask"]) > 0
        if mask.any():
            table = unshifted(still, mask)
            for counts, reduction in zip(overall, compare.overall, strict=True):
                counts.add(reduction.count(table))
        advance(int(mask.sum()))
        for counting, trial in zip(sums, trials, strict=True):
            if mask.any():
                counting.add(trial)
        images += int(mask.sum())
    if not images:
        raise DataError("there is no image to evaluate: check data.eval_split and data.eval_limit.")
    results: Results = {"images": images}
    for counts, reduction in zip(overall, compare.overall, strict=True):
        results |= reduction.result(counts)
    return results | {s.measurement.name: s.result() for s in sums}


def predictor(
    module: nn.Module, variables: Mapping[str, Any], devices: int = 0
) -> Callable[[Any], jax.Array]:
    """The compiled function images [B, H, W, C] -> logits [B, K] of a network, on `devices` (0 = all).

    Each computes its part of images that are divided over them, and the whole of others.
    """
    mesh = make_mesh(devices)
    predict, weights = make_predict(module, mesh), replicate(variables, mesh)
    return lambda images: predict(weights, images)


def shift_report(
    predict: Predict,
    batches: Iterable[dict[str, np.ndarray]],
    measurements: Sequence[Measurement],
    *,
    images: int,
    compare: Comparison = _CLASSES,
    devices: int = 0,
    progress: bool = True,
) -> Results:
    """`evaluate` on several devices, with a progress bar on stderr.

    Args:
      predict: images to logits, e.g. `predictor(module, variables)`.
      batches: read once. With several processes, each gives its part of every batch.
      measurements: what to measure.
      images: how many there are, for the progress bar.
      compare: see `evaluate`.
      devices: that the work is divided over, the same as of `predict`; 0 = all. Results do not depend on it.
      progress: show it.
    """
    pairs = images * (1 + sum(m.count for m in measurements))
    hidden = not (progress and is_first())
    # A terminal redraws one line; in a log file every refresh is a new line, so make them rare.
    interval = 0.5 if sys.stderr.isatty() else 10.0
    with tqdm(
        total=pairs, desc="evaluating", unit=" images", unit_scale=True, disable=hidden, mininterval=interval
    ) as bar:
        placed = evaluated_batches(batches, make_mesh(devices))
        return evaluate(predict, placed, measurements, compare=compare, advance=bar.update)

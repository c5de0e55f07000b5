"""Evaluates any function from images to logits, or to maps, under shifts.

A `Measurement` combines three choices: how images are moved (`shifting`), by which shifts (`shift_sets`), and
how the outputs are reduced to results (`reductions`). Padding images (mask 0) never count.
"""

import sys
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
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
    """One measurement of an evaluation.

    Source: this package.

    Attributes:
      name: Key of the results.
      shifts: One set of shifts, or several by name. Several sets are reduced together, and each alone as
        "parts".
      shifting: How images are moved.
      reductions: How the outputs are reduced to results. Default: those of the comparison. If all of them
        have `until_fooled`, the evaluation skips the remaining shifts of an image after its first wrong
        class.
      refine: Searches for worse shifts, starting from the results of `shifts`.
      about: Description of the shifts, stored with the results.
    """

    name: str
    shifts: ShiftSet | Mapping[str, ShiftSet]
    shifting: Shifting = Circular()
    reductions: tuple[Reduction, ...] = ()
    refine: Refine | None = None
    about: str = ""

    @property
    def sets(self) -> Mapping[str, ShiftSet]:
        """The sets by name. A single set has the name ""."""
        return self.shifts if isinstance(self.shifts, Mapping) else {"": self.shifts}

    @property
    def count(self) -> int:
        """Forward passes per image: the number of shifts, including those of `refine`."""
        return sum(part.count for part in self.sets.values()) + (self.refine.count if self.refine else 0)

    @property
    def until_fooled(self) -> bool:
        """Whether the remaining shifts of an image can be skipped after its first wrong class."""
        return bool(self.reductions) and all(reduction.until_fooled for reduction in self.reductions)


class _Sums:
    """Counts of one measurement over all batches: for each set by name, and "" for all sets together."""

    def __init__(self, measurement: Measurement) -> None:
        self.measurement = measurement
        self.counts = {name: [Counts() for _ in measurement.reductions] for name in ("", *measurement.sets)}
        self.pairs = dict.fromkeys(self.counts, 0)

    def add(self, trial: Trial) -> None:
        """Evaluates a batch under all shifts and adds its counts."""
        tables: dict[str, Table] = {}
        for name, shifts in self.measurement.sets.items():
            where = shifts.draw(trial.numbers)
            if where.shape[2] != trial.shifting.parameters:
                raise ConfigError(
                    f"{self.measurement.name}: {type(trial.shifting).__name__} needs "
                    f"{trial.shifting.parameters} numbers per shift, got {where.shape[2]}."
                )
            tables[name] = trial.run(where)
        whole = reduce(Table.joined, tables.values())
        if self.measurement.refine:
            whole = whole.joined(self.measurement.refine(trial, whole))
        for name, table in (tables | {"": whole}).items():
            self.pairs[name] += int(table.visited.sum())
            images = table.of_images()  # padding must not even change the order of a sum
            for counts, reduction in zip(self.counts[name], self.measurement.reductions, strict=True):
                counts.add(reduction.count(images))

    def result(self) -> Results:
        """Results over all sets, and by set in "parts"."""
        parts: dict[str, Results] = {}
        for name, sums in self.counts.items():
            parts[name] = {"pairs": self.pairs[name]}
            for reduction, counts in zip(self.measurement.reductions, sums, strict=True):
                parts[name] |= reduction.result(counts)
        about = {"about": self.measurement.about} if self.measurement.about else {}
        return about | parts.pop("") | ({"parts": parts} if parts else {})


def _without_padding(outputs: Any, mask: np.ndarray) -> Any:
    """Outputs `[B, ...]` with zeros for padding, which need not be finite. Other shapes are kept."""
    if mask.all() or getattr(outputs, "shape", ())[:1] != mask.shape:
        return outputs
    where = mask.reshape(-1, *[1] * (outputs.ndim - 1))
    return (jnp if isinstance(outputs, jax.Array) else np).where(where, outputs, 0)


def _trials(
    predict: Predict,
    batch: Batch,
    measurements: Sequence[Measurement],
    first: int,
    compare: Comparison,
    advance: Callable[[int], None],
) -> tuple[Columns, list[Trial]]:
    """Columns of the unshifted images, and one trial per measurement."""
    images, label = batch["image"], np.asarray(batch["label"])
    mask = np.asarray(batch["mask"]) > 0
    whole = everywhere(images, mesh_of(images))
    # The overall results come from the first way: from the images without borders added by a measurement.
    ways = [Circular(m.shifting.margin) for m in measurements[:1]] or [Circular()]
    views: dict[Hashable, tuple[Reference, Columns]] = {}
    for way in [*ways, *(m.shifting for m in measurements)]:
        if way.view not in views:
            outputs = _without_padding(predict(way.unshifted(images)), mask)
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
            # Padding has no index in the data set: its amount and position depend on devices and processes.
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
    """Measures the accuracy of a network and how shifts change its outputs.

    Source: this package.

    Args:
      predict: Function from images `[B, H, W, C]` to logits `[B, K]`, or to the outputs that `compare`
        expects. Compile it first (`jax.jit`). It may also be a function of another library with NumPy arrays.
      batches: Dictionaries with image `[B, H, W, C]`, label `[B, ...]` and mask `[B]` (0: padding). They are
        read once. If the images lie on several devices (`training.mesh.evaluated_batches`), the work is
        divided over them.
      measurements: What to measure. Their names are the keys of the results.
      compare: How outputs are compared. Default: as logits of image classes. For maps see `tasks`; for
        features see `CompareFeatures`.
      advance: Called with the number of (image, shift) pairs that were completed, for a progress bar.

    Returns:
      A dictionary with "images" (their number), the results of `compare.overall` for the unshifted images
      (by default "accuracy"), and one dictionary per measurement. The latter has "pairs" (their number), the
      results of its reductions, and "parts" (the same by set) if the sets have names. Proportions are in
      [0, 1].

    Raises:
      NotFiniteError: An output is not finite.
      ConfigError: The images cannot be moved by these shifts, or two measurements have the same name.
      DataError: `batches` has no image, or the network has no logit for a label.
      ShapeError: The outputs have the wrong shape, or images are smaller than their margins.
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
    """Compiles a network to a function from images `[B, H, W, C]` to outputs.

    If the images are divided over the devices, each device computes its part. Otherwise each device computes
    all of them.

    Args:
      module: The network.
      variables: Its variables.
      devices: Number of devices; 0: all.

    Returns:
      The compiled function.
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
    """Runs `evaluate` on several devices, with a progress bar on stderr.

    Source: this package.

    Args:
      predict: Function from images to outputs, e.g. `predictor(module, variables)`.
      batches: See `evaluate`. With several processes, each process provides its part of every batch.
      measurements: What to measure.
      images: Number of images, for the progress bar.
      compare: See `evaluate`.
      devices: Number of devices, the same as for `predict`; 0: all. Results do not depend on it.
      progress: Whether to show the progress bar.

    Returns:
      The results of `evaluate`.
    """
    pairs = images * (1 + sum(m.count for m in measurements))
    hidden = not (progress and is_first())
    # A terminal redraws one line. In a log file every refresh is a new line, so refresh rarely.
    interval = 0.5 if sys.stderr.isatty() else 10.0
    with tqdm(
        total=pairs, desc="evaluating", unit=" images", unit_scale=True, disable=hidden, mininterval=interval
    ) as bar:
        placed = evaluated_batches(batches, make_mesh(devices))
        return evaluate(predict, placed, measurements, compare=compare, advance=bar.update)

"""What the answers under shifts are reduced to: the third of an evaluation's three choices.

A reduction counts in the table of each batch, and forms its ratios once, from the sums over all batches.
Proportions are in [0, 1].
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.evaluation.table import Table


@dataclass
class Counts:
    """Numbers (or arrays) that add up over batches, and some of which the largest stays."""

    total: dict[str, Any] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)

    def add(self, other: "Counts") -> None:
        """Takes in the counts of more images."""
        for name, value in other.total.items():
            self.total[name] = self.total[name] + value if name in self.total else value
        for name, value in other.largest.items():
            self.largest[name] = max(self.largest.get(name, value), value)


class Reduction:
    """Something to know about a network under shifts.

    Attributes:
      until_fooled: it needs no further shifts of an image that was classified wrongly once.
    """

    until_fooled: bool = False

    def count(self, table: Table) -> Counts:
        """What one batch adds; the table has no padding."""
        raise NotImplementedError

    def result(self, counts: Counts) -> Mapping[str, Any]:
        """The results, ready for JSON, from the sum of all counts."""
        raise NotImplementedError


@dataclass(frozen=True)
class Mean(Reduction):
    """The mean of `values` over all that they are given for: images, or pairs of image and shift.

    Of booleans it is the proportion that holds.
    """

    name: str
    values: Callable[[Table], np.ndarray]
    until_fooled: bool = False

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        values = self.values(table)
        return Counts({"number": values.size, "sum": float(values.sum())})

    def result(self, counts: Counts) -> Mapping[str, Any]:
        """See `Reduction.result`."""
        return {self.name: float(counts.total["sum"] / counts.total["number"])}


def _attacked(table: Table) -> np.ndarray:
    """Whether an image is right under the shift that the alias-free authors' grid attack returns.

    That is the first one that it is wrong under, or else the first of all; the unshifted image takes its
    place if its loss is not smaller.
    """
    correct, images = table.columns["correct"], np.arange(len(table.mask))
    shift = correct.argmin(0)  # the first that is False; 0 if there is none
    stronger = table.columns["loss"][shift, images] > table.still["loss"]
    return np.where(stronger, correct[shift, images], table.still["correct"])


ACCURACY = Mean("accuracy", lambda table: table.all_shifts("correct"))  # of the shifted images
TOP5_ACCURACY = Mean("top5_accuracy", lambda table: table.all_shifts("in_top5"))
# Agreement with the unshifted image.
CONSISTENCY = Mean("consistency", lambda table: table.all_shifts("unchanged"))
# Images with the same class under all their shifts, the unshifted view left out. Under two random shifts this
# is the consistency of BlurPool, APS and LPS.
PAIR_CONSISTENCY = Mean(
    "pair_consistency",
    lambda table: (table.columns["predicted"] == table.columns["predicted"][0]).all(0),
)
# Images that are right unshifted and under all their shifts.
WORST_CASE = Mean("worst_case_accuracy", lambda table: table.still["correct"] & ~table.fooled, True)
ATTACKED_ACCURACY = Mean("attacked_accuracy", _attacked)
UNSHIFTED: tuple[Reduction, ...] = (
    Mean("unshifted_accuracy", lambda table: table.still["correct"], True),
    Mean("unshifted_top5_accuracy", lambda table: table.still["in_top5"], True),
    Mean("unshifted_loss", lambda table: table.still["loss"], True),
)


@dataclass(frozen=True)
class Change(Reduction):
    """Mean and largest value of a column over all pairs."""

    column: str

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        values = table.all_shifts(self.column)
        return Counts(
            {"pairs": values.size, "sum": float(values.sum())}, {"max": float(values.max(initial=0))}
        )

    def result(self, counts: Counts) -> Mapping[str, Any]:
        """See `Reduction.result`."""
        mean = float(counts.total["sum"] / counts.total["pairs"])
        return {self.column: {"mean": mean, "max": counts.largest["max"]}}


@dataclass(frozen=True)
class Lowest(Reduction):
    """The mean over images of the lowest value of a column over the image's shifts; nan counts nowhere."""

    name: str
    column: str

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        values = np.where(table.visited, table.columns[self.column], np.nan)
        lowest = np.fmin.reduce(values, axis=0)
        return Counts({"images": int((~np.isnan(lowest)).sum()), "sum": float(np.nansum(lowest))})

    def result(self, counts: Counts) -> Mapping[str, Any]:
        """See `Reduction.result`."""
        return {self.name: float(counts.total["sum"] / max(1, counts.total["images"]))}


@dataclass(frozen=True)
class WorstCaseByRadius(Reduction):
    """Worst-case accuracy for every radius: all shifts that reach no further than so many steps each way.

    The set must hand out its shifts from the inside out, as `square` does.

    Attributes:
      radius: of the set, steps.
      step: pixels.
      centre: from where the radius counts, pixels down and right.
    """

    radius: int
    step: float = 1.0
    centre: tuple[float, float] = (0.0, 0.0)
    until_fooled = True

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        steps = np.abs(table.where - np.asarray(self.centre)).max(-1) / self.step
        rings = np.ceil(steps - 1e-3)  # thirds of a pixel are rounded
        if (np.diff(rings, axis=0) < 0).any():
            raise ConfigError("worst cases by radius need shifts that are ordered from the inside out.")
        wrong = table.visited & ~table.columns["correct"]
        first = np.where(wrong, rings, np.inf).min(0, initial=np.inf)
        first = np.where(table.still["correct"], first, -1)
        right = (first[:, None] > np.arange(self.radius + 1)).sum(0)
        return Counts({"images": len(first), "right": right})

    def result(self, counts: Counts) -> Mapping[str, Any]:
        """See `Reduction.result`."""
        right = np.asarray(counts.total["right"]) / counts.total["images"]
        return {"worst_case_by_radius": right.tolist()}


@dataclass(frozen=True)
class PerShift(Reduction):
    """Accuracy, consistency and mean probability of the label for every shift of a `Grid`: for pictures."""

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        if (table.where != table.where[:, :1]).any():
            raise ConfigError("results by shift need the same shifts for all images: use a Grid.")
        columns = {"accuracy": "correct", "consistency": "unchanged", "true_probability": "true_probability"}
        sums = {name: (table.columns[of] * table.visited).sum(1) for name, of in columns.items()}
        images = len(table.mask)
        # Shifts are the same in every batch: their mean over images is they themselves.
        return Counts({"images": images, "shifts": table.where[:, 0] * images, **sums})

    def result(self, counts: Counts) -> Mapping[str, Any]:
        """See `Reduction.result`."""
        sums = dict(counts.total)
        images = sums.pop("images")
        return {"per_shift": {name: (np.asarray(of_all) / images).tolist() for name, of_all in sums.items()}}


@dataclass(frozen=True)
class MeanOfBatches(Reduction):
    """`inner` of each batch, then the plain mean: a last batch with few images weighs as much as a full one.

    The CIFAR-10 protocols of APS and LPS do so.
    """

    inner: Reduction

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        return Counts({"batches": 1, **self.inner.result(self.inner.count(table))})

    def result(self, counts: Counts) -> Mapping[str, Any]:
        """See `Reduction.result`."""
        batches = counts.total["batches"]
        means = {name: float(value / batches) for name, value in counts.total.items() if name != "batches"}
        return {f"mean_of_batches_{name}": mean for name, mean in means.items()}


# What every kind of shift of classified images is measured by where nothing else is asked for.
STABILITY: tuple[Reduction, ...] = (
    CONSISTENCY,
    ACCURACY,
    WORST_CASE,
    Change("probability_change"),
    Change("logit_change"),
)

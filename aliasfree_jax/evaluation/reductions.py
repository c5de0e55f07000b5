"""What the answers under shifts are reduced to: the third of an evaluation's three choices.

A reduction counts in the table of each batch, and forms its ratios once, from the sums over all batches.
Shares are in [0, 1].
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import numpy as np

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.evaluation.comparison import Table


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


class Reduction(Protocol):
    """Something to know about a network under shifts.

    Attributes:
      until_fooled: it needs no further shifts of an image that was classified wrongly once.
    """

    until_fooled: ClassVar[bool]

    def count(self, table: Table) -> Counts:
        """What one batch adds."""

    def result(self, counts: Counts) -> Mapping[str, Any]:
        """The results, ready for JSON, from the sum of all counts."""


@dataclass(frozen=True)
class Share:
    """The share of (image, shift) pairs where a column of the table holds."""

    column: str
    name: str
    until_fooled: ClassVar[bool] = False

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        values = table.all_shifts(self.column)
        return Counts({"pairs": values.size, "held": float(values.sum())})

    def result(self, counts: Counts) -> Mapping[str, Any]:
        """See `Reduction.result`."""
        return {self.name: float(counts.total["held"] / counts.total["pairs"])}


ACCURACY = Share("correct", "accuracy")  # of the shifted images
TOP5_ACCURACY = Share("in_top5", "top5_accuracy")
CONSISTENCY = Share("unchanged", "consistency")  # agreement with the unshifted image


@dataclass(frozen=True)
class Change:
    """Mean and largest value of a column over all pairs."""

    column: str
    until_fooled: ClassVar[bool] = False

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
class SameUnderAll:
    """The share of images whose class is the same under all their shifts, the unshifted view left out.

    Under two random shifts this is the consistency of BlurPool, APS and LPS.
    """

    until_fooled: ClassVar[bool] = False

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        predicted = table.columns["predicted"]
        same = (predicted == predicted[0]).all(0)
        return Counts({"images": int(table.mask.sum()), "same": int((same & table.mask).sum())})

    def result(self, counts: Counts) -> Mapping[str, Any]:
        """See `Reduction.result`."""
        return {"pair_consistency": float(counts.total["same"] / counts.total["images"])}


@dataclass(frozen=True)
class RightUnderAll:
    """The share of images that are right under all their shifts; unshifted, unlike in `WorstCase`, or not."""

    until_fooled: ClassVar[bool] = False

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        right = table.columns["correct"].all(0)
        return Counts({"images": int(table.mask.sum()), "right": int((right & table.mask).sum())})

    def result(self, counts: Counts) -> Mapping[str, Any]:
        """See `Reduction.result`."""
        return {"right_under_all": float(counts.total["right"] / counts.total["images"])}


@dataclass(frozen=True)
class Unshifted:
    """Accuracy and loss of the unshifted images."""

    until_fooled: ClassVar[bool] = True

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        still = {name: float(table.still[name][table.mask].sum()) for name in ("correct", "in_top5", "loss")}
        return Counts({"images": int(table.mask.sum()), **still})

    def result(self, counts: Counts) -> Mapping[str, Any]:
        """See `Reduction.result`."""
        total = counts.total
        names = {"correct": "accuracy", "in_top5": "top5_accuracy", "loss": "loss"}
        return {f"unshifted_{name}": float(total[column] / total["images"]) for column, name in names.items()}


@dataclass(frozen=True)
class WorstCase:
    """The share of images that are right unshifted and under all their shifts."""

    until_fooled: ClassVar[bool] = True

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        fooled = (table.visited & ~table.columns["correct"]).any(0) | ~table.still["correct"]
        return Counts({"images": int(table.mask.sum()), "right": int((table.mask & ~fooled).sum())})

    def result(self, counts: Counts) -> Mapping[str, Any]:
        """See `Reduction.result`."""
        return {"worst_case_accuracy": float(counts.total["right"] / counts.total["images"])}


@dataclass(frozen=True)
class WorstCaseByRadius:
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
    until_fooled: ClassVar[bool] = True

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        steps = np.abs(table.where - np.asarray(self.centre)).max(-1) / self.step
        rings = np.ceil(steps - 1e-3)  # thirds of a pixel are rounded
        if (np.diff(rings, axis=0) < 0).any():
            raise ConfigError("worst cases by radius need shifts that are ordered from the inside out.")
        wrong = table.visited & ~table.columns["correct"]
        first = np.where(wrong, rings, np.inf).min(0, initial=np.inf)
        first = np.where(table.still["correct"], first, -1)[table.mask]
        right = (first[:, None] > np.arange(self.radius + 1)).sum(0)
        return Counts({"images": len(first), "right": right})

    def result(self, counts: Counts) -> Mapping[str, Any]:
        """See `Reduction.result`."""
        shares = np.asarray(counts.total["right"]) / counts.total["images"]
        return {"worst_case_by_radius": [float(share) for share in shares]}


@dataclass(frozen=True)
class PerShift:
    """Accuracy, consistency and mean probability of the label for every shift of a `Grid`: for pictures."""

    until_fooled: ClassVar[bool] = False

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        if (table.where != table.where[:, :1]).any():
            raise ConfigError("results by shift need the same shifts for all images: use a Grid.")
        columns = ("correct", "unchanged", "true_probability")
        sums = {name: (table.columns[name] * table.visited).sum(1) for name in columns}
        images = int(table.mask.sum())
        # Shifts are the same in every batch: their mean over images is they themselves.
        return Counts({"images": images, "where": table.where[:, 0] * images, **sums})

    def result(self, counts: Counts) -> Mapping[str, Any]:
        """See `Reduction.result`."""
        total = {name: np.asarray(value) for name, value in counts.total.items()}
        names = {"where": "shifts", "correct": "accuracy", "unchanged": "consistency"}
        names["true_probability"] = "true_probability"
        return {"per_shift": {name: (total[key] / total["images"]).tolist() for key, name in names.items()}}


@dataclass(frozen=True)
class MeanOfBatches:
    """`inner` of each batch, then the plain mean: a last batch with few images weighs as much as a full one.

    The CIFAR-10 protocols of APS and LPS do so.
    """

    inner: Reduction
    until_fooled: ClassVar[bool] = False

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        return Counts({"batches": 1, **self.inner.result(self.inner.count(table))})

    def result(self, counts: Counts) -> Mapping[str, Any]:
        """See `Reduction.result`."""
        batches = counts.total["batches"]
        means = {name: float(value / batches) for name, value in counts.total.items() if name != "batches"}
        return {f"mean_of_batches_{name}": mean for name, mean in means.items()}


# What every kind of shift is measured by where nothing else is asked for.
STABILITY: tuple[Reduction, ...] = (
    CONSISTENCY,
    ACCURACY,
    WorstCase(),
    Change("probability_change"),
    Change("logit_change"),
)

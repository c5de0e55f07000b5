"""Reduces the outputs under shifts to results: the third of an evaluation's three choices.

A reduction counts in the table of each batch. It computes its ratios once, from the sums over all batches.
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
    """Counts of one or more batches.

    Attributes:
      total: Numbers or arrays that are added over batches.
      largest: Numbers of which the largest is kept.
    """

    total: dict[str, Any] = field(default_factory=dict)
    largest: dict[str, float] = field(default_factory=dict)

    def add(self, other: "Counts") -> None:
        """Adds the counts of more images."""
        for name, value in other.total.items():
            self.total[name] = self.total[name] + value if name in self.total else value
        for name, value in other.largest.items():
            self.largest[name] = max(self.largest.get(name, value), value)


class Reduction:
    """Base class of all reductions.

    Attributes:
      until_fooled: The remaining shifts of an image are not needed after its first wrong class.
    """

    until_fooled: bool = False

    def count(self, table: Table) -> Counts:
        """Counts of one batch, from its table without padding."""
        raise NotImplementedError

    def result(self, counts: Counts) -> Mapping[str, Any]:
        """Results, ready for JSON, from the sum of all counts."""
        raise NotImplementedError


@dataclass(frozen=True)
class Mean(Reduction):
    """Mean of values over images, or over pairs of image and shift.

    For booleans this is the proportion of True.

    Source: this package. For published metrics see the constants of this module.

    Attributes:
      name: Name of the result.
      values: Function from a table to the values.
      until_fooled: See `Reduction`.
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
    """Whether each image is correct under the shift that the grid attack of the alias-free authors returns.

    This is the first shift with a wrong class, or the first shift if all classes are correct. If the loss
    there is not larger than without a shift, the unshifted image counts instead.
    """
    correct, images = table.columns["correct"], np.arange(len(table.mask))
    shift = correct.argmin(0)  # the first that is False; 0 if there is none
    stronger = table.columns["loss"][shift, images] > table.still["loss"]
    return np.where(stronger, correct[shift, images], table.still["correct"])


# Accuracy of the shifted images.
ACCURACY = Mean("accuracy", lambda table: table.all_shifts("correct"))
TOP5_ACCURACY = Mean("top5_accuracy", lambda table: table.all_shifts("in_top5"))
# Share of pairs of image and shift with the class of the unshifted image.
# Source: Michaeli et al. 2023 (arXiv 2303.08085).
CONSISTENCY = Mean("consistency", lambda table: table.all_shifts("unchanged"))
# Share of images with the same class under all their shifts; the unshifted image does not count. With two
# random shifts per image this is the consistency of BlurPool, APS and LPS.
# Source: Zhang 2019 (arXiv 1904.11486).
PAIR_CONSISTENCY = Mean(
    "pair_consistency",
    lambda table: (table.columns["predicted"] == table.columns["predicted"][0]).all(0),
)
# Share of images that are correct without a shift and under all their shifts.
# Source: Michaeli et al. 2023 (arXiv 2303.08085).
WORST_CASE = Mean("worst_case_accuracy", lambda table: table.still["correct"] & ~table.fooled, True)
# Source: code of Michaeli et al. 2023 (arXiv 2303.08085), see `_attacked`.
ATTACKED_ACCURACY = Mean("attacked_accuracy", _attacked)
UNSHIFTED: tuple[Reduction, ...] = (
    Mean("unshifted_accuracy", lambda table: table.still["correct"], True),
    Mean("unshifted_top5_accuracy", lambda table: table.still["in_top5"], True),
    Mean("unshifted_loss", lambda table: table.still["loss"], True),
)


@dataclass(frozen=True)
class Change(Reduction):
    """Mean and maximum of a column over all pairs of image and shift.

    Source: this package.

    Attributes:
      column: Name of the column and of the result.
    """

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
    """Mean over images of the smallest value of a column over the image's shifts, without nan.

    Source: this package.

    Attributes:
      name: Name of the result.
      column: Name of the column.
    """

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
    """Worst-case accuracy for every radius from 0 to `radius`.

    At radius r, all shifts of at most r steps along each axis count. The set must order its shifts from the
    inside out, as `square` does.

    Source: Michaeli and Soudry 2025 (arXiv 2510.22673), the metrics of AFT.

    Attributes:
      radius: Largest radius in steps.
      step: Length of a step in pixels.
      centre: Centre of the radii in pixels: down and right.
      until_fooled: See `Reduction`.
    """

    radius: int
    step: float = 1.0
    centre: tuple[float, float] = (0.0, 0.0)
    until_fooled = True

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        steps = np.abs(table.where - np.asarray(self.centre)).max(-1) / self.step
        rings = np.ceil(steps - 1e-3)  # thirds of a pixel have rounding errors
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
    """Accuracy, consistency and mean probability of the label for every shift of a `Grid`, for pictures.

    Source: this package.
    """

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        if (table.where != table.where[:, :1]).any():
            raise ConfigError("results for each shift need the same shifts for all images: use a Grid.")
        columns = {"accuracy": "correct", "consistency": "unchanged", "true_probability": "true_probability"}
        sums = {name: (table.columns[of] * table.visited).sum(1) for name, of in columns.items()}
        images = len(table.mask)
        # The shifts are the same for all images, so their mean over images equals them.
        return Counts({"images": images, "shifts": table.where[:, 0] * images, **sums})

    def result(self, counts: Counts) -> Mapping[str, Any]:
        """See `Reduction.result`."""
        sums = dict(counts.total)
        images = sums.pop("images")
        return {"per_shift": {name: (np.asarray(of_all) / images).tolist() for name, of_all in sums.items()}}


@dataclass(frozen=True)
class MeanOfBatches(Reduction):
    """Mean over batches of another reduction's results.

    A small last batch has the same weight as a full one.

    Source: the CIFAR-10 code of Chaman and Dokmanic 2021 (arXiv 2011.14214) and Rojas-Gomez et al. 2022
    (arXiv 2210.08001).

    Attributes:
      inner: The reduction of each batch.
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


# Default reductions for every kind of shift, for classification.
STABILITY: tuple[Reduction, ...] = (
    CONSISTENCY,
    ACCURACY,
    WORST_CASE,
    Change("probability_change"),
    Change("logit_change"),
)

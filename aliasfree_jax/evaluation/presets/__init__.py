"""The metrics of the papers; `selection.preset` returns them by name.

Each metric has two variants. The default is improved: shifts are drawn for every image, no shift of the range
is left out, and proportions are in [0, 1]. With `paper=True` the metric is exactly that of the original
program: its shifts (often one for a whole batch or data set), its ranges and their gaps, its order of draws
from `np.random`, and its names and units (`Preset.published`).

Every preset is a function of `config` (its settings, a `PresetConfig`) and `paper` that returns a `Preset`.

BlurPool: Zhang 2019 (arXiv 1904.11486). APS: Chaman and Dokmanic 2021 (arXiv 2011.14214). LPS: Rojas-Gomez et
al. 2022 (arXiv 2210.08001). AFC: Michaeli et al. 2023 (arXiv 2303.08085). AFT: Michaeli and Soudry 2025
(arXiv 2510.22673). Some of their programs set a seed, others do not; here it is `PresetConfig.seed`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from aliasfree_jax.evaluation.evaluator import Measurement
from aliasfree_jax.evaluation.shift_sets import ShiftSet, Stream, random_integer
from aliasfree_jax.evaluation.shifting import NOTHING, Fill


@dataclass(frozen=True)
class PresetConfig:
    """Settings of presets.

    Attributes:
      side: Side of the network's input in pixels.
      seed: Seed of the random shifts.
      margin: Pixels by which the images of crop metrics are larger on each side. The originals use 16.
      finest: Largest denominator of fractions of a pixel (AFC's max_up), or steps per pixel (AFT).
      radius: Largest shift in pixels of the improved worst cases of AFC, or max_shift of AFT.
      constraint: Largest rotation of the spatial grids in degrees. The largest translation is constraint /
        280 of the side.
      fill: Value outside the image in the spatial grids: black after normalisation.
    """

    side: int
    seed: int = 0
    margin: int = 16
    finest: int = 4
    radius: int = 16
    constraint: float = 30.0
    fill: Fill = NOTHING


# Computes a number that an original program prints, in its unit, from the results of `evaluator.evaluate`.
Figure = Callable[[Mapping[str, Any]], float]


def figure(*keys: str | int, unit: float = 1.0) -> Figure:
    """Returns a function that looks up a number of the results.

    Args:
      *keys: Keys of the nested results.
      unit: Factor of the number; 100 for percent.
    """

    def look_up(results: Mapping[str, Any]) -> float:
        found: Any = results
        for key in keys:
            found = found[key]
        return unit * found

    return look_up


def accuracies(name: str, printed: str = "{}") -> dict[str, Figure]:
    """Figures for the top-1 and top-5 accuracy of the unshifted images, in percent.

    Args:
      name: Name of the measurement.
      printed: Format of the figures' names; "{}" becomes "acc1" or "acc5".
    """
    columns = {"acc1": "unshifted_accuracy", "acc5": "unshifted_top5_accuracy"}
    return {printed.format(short): figure(name, column, unit=100) for short, column in columns.items()}


@dataclass(frozen=True)
class Preset:
    """A metric of a paper.

    Attributes:
      measurements: The measurements that it needs.
      figures: The numbers that the original program prints, by its names. Empty for the improved variant.
      interpolation: Interpolation of the original program's resizing. "" if it does not resize, and for the
        improved variant.
      enlarged: True: the image is resized to the input with its margin. False: the input and its margin are
        cut out at the usual scale.
    """

    measurements: tuple[Measurement, ...]
    figures: Mapping[str, Figure] = field(default_factory=dict)
    interpolation: str = ""
    enlarged: bool = False

    def published(self, results: Mapping[str, Any]) -> dict[str, float]:
        """Computes the figures from the results of an evaluation."""
        return {name: of(results) for name, of in self.figures.items()}


# Function (settings, exactly as the original?) -> preset. The improved variant uses only its measurements.
MakePreset = Callable[[PresetConfig, bool], Preset]


def _pairs(stream: np.random.RandomState, low: int, high: int, count: int) -> np.ndarray:
    """Draws `[count, 2]` with one `randint(low, high, size=2)` after the other, like the originals."""
    return np.stack([stream.randint(low, high, size=2) for _ in range(count)])


def draws(stream: np.random.RandomState, low: int, high: int, count: int, sign: int = 1) -> ShiftSet:
    """Random shifts in [low, high) that each batch shares.

    Args:
      stream: The random generator.
      low: Smallest shift.
      high: Largest shift plus 1.
      count: Shifts per batch.
      sign: Factor of the shifts, 1 or -1.
    """
    return Stream(count, lambda: sign * _pairs(stream, low, high, count))


def windows(stream: np.random.RandomState, margin: int, count: int) -> ShiftSet:
    """Random windows that each batch shares, with offsets 0 ... 2 margin - 1.

    An offset shifts the content by margin - offset.
    """
    return Stream(count, lambda: margin - _pairs(stream, 0, 2 * margin, count))


def two_each(config: PresetConfig, reach: int) -> ShiftSet:
    """Two random shifts per image, up to `reach` pixels along each axis."""
    return random_integer(2, min(reach, config.side - 1), jax.random.key(config.seed))

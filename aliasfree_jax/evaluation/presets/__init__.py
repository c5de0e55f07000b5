"""The metrics of the papers, by name: `selection.preset`.

By default each is the sane variant: shifts drawn for every image, none left out, proportions in [0, 1]. With
`paper=True` it is what the original program computes: one shift for a whole batch or data set, its ranges
and what they leave out, its order of draws from `np.random`, and its names and units (`Preset.published`).

BlurPool: Zhang, ICML 2019. APS: Chaman and Dokmanić, CVPR 2021. LPS: Rojas-Gomez et al., NeurIPS 2022.
AFC: Michaeli et al., CVPR 2023. AFT: Michaeli and Soudry, NeurIPS 2025. Their programs leave the seed open or
set it; here it is `PresetConfig.seed`.
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
    """What presets can be set to.

    Attributes:
      side: of the network's input, pixels.
      seed: of the random shifts.
      margin: pixels by which the images of crop metrics are wider on each side; the originals' is 16.
      finest: of the fractions of a pixel (AFC's max_up; AFT's steps a pixel).
      radius: of AFC's sane worst cases, pixels; of AFT's, sane or not, its max_shift.
      constraint: of the spatial grids: degrees of rotation, and so many 280ths of the side.
      fill: what lies outside the image there: black, normalised.
    """

    side: int
    seed: int = 0
    margin: int = 16
    finest: int = 4
    radius: int = 16
    constraint: float = 30.0
    fill: Fill = NOTHING


# A number that an original prints, in its unit, from the results of `evaluator.evaluate`.
Figure = Callable[[Mapping[str, Any]], float]


def figure(*keys: str | int, unit: float = 1.0) -> Figure:
    """The number under these keys of the results, times `unit`: 100 for percent."""

    def look_up(results: Mapping[str, Any]) -> float:
        found: Any = results
        for key in keys:
            found = found[key]
        return unit * found

    return look_up


def accuracies(name: str, printed: str = "{}") -> dict[str, Figure]:
    """Top-1 and top-5 accuracy of a measurement's unshifted images in percent, under `printed` names."""
    columns = {"acc1": "unshifted_accuracy", "acc5": "unshifted_top5_accuracy"}
    return {printed.format(short): figure(name, column, unit=100) for short, column in columns.items()}


@dataclass(frozen=True)
class Preset:
    """A metric of a paper.

    Attributes:
      measurements: that it needs.
      figures: what the original prints, by its names; empty for the sane variant.
      interpolation: of the original where it resizes images; "" for the sane variant, and where it does not.
      enlarged: it resizes the image to the input with its margin; else it cuts both out at the usual scale.
    """

    measurements: tuple[Measurement, ...]
    figures: Mapping[str, Figure] = field(default_factory=dict)
    interpolation: str = ""
    enlarged: bool = False

    def published(self, results: Mapping[str, Any]) -> dict[str, float]:
        """The figures, by the original's names."""
        return {name: of(results) for name, of in self.figures.items()}


# From the configuration, and whether the original's metric is wanted; of the sane variant only the
# measurements count.
MakePreset = Callable[[PresetConfig, bool], Preset]


def _pairs(stream: np.random.RandomState, low: int, high: int, count: int) -> np.ndarray:
    """[count, 2], one `randint(low, high, size=2)` after the other, as the originals draw."""
    return np.stack([stream.randint(low, high, size=2) for _ in range(count)])


def draws(stream: np.random.RandomState, low: int, high: int, count: int, sign: int = 1) -> ShiftSet:
    """`count` pairs in [low, high) for each batch."""
    return Stream(count, lambda: sign * _pairs(stream, low, high, count))


def windows(stream: np.random.RandomState, margin: int, count: int) -> ShiftSet:
    """Offsets 0 ... 2 margin - 1 of the window, which is to say shifts of margin - offset of the content."""
    return Stream(count, lambda: margin - _pairs(stream, 0, 2 * margin, count))


def two_each(config: PresetConfig, reach: int) -> ShiftSet:
    """Two shifts of every image of its own, up to `reach` pixels each way."""
    return random_integer(2, min(reach, config.side - 1), jax.random.key(config.seed))

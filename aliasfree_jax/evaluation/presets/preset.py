"""What a preset is, and the draws that the originals share."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from aliasfree_jax.evaluation.evaluator import Measurement
from aliasfree_jax.evaluation.shift_sets import ShiftSet, Stream, random_integer
from aliasfree_jax.evaluation.shifting import NOTHING, Fill

Published = Callable[[Mapping[str, Any]], dict[str, float]]


@dataclass(frozen=True)
class Setting:
    """What a preset needs to know.

    Attributes:
      side: of the network's input, pixels.
      seed: of the random shifts.
      margin: pixels by which the images of crop metrics are wider on each side; the originals' is 16.
      finest: of the fractions of a pixel (AFC's max_up; AFT's steps a pixel).
      radius: of AFC's sane worst cases, pixels; of AFT's, sane or not, its max_shift.
      constraint: of the spatial attacks, see `spatial.original_space`.
      fill: what lies outside the image there: black, normalised.
    """

    side: int
    seed: int = 0
    margin: int = 16
    finest: int = 4
    radius: int = 16
    constraint: float = 30.0
    fill: Fill = NOTHING


@dataclass(frozen=True)
class Preset:
    """A metric of a paper.

    Attributes:
      measurements: that it needs.
      published: how the original calls their results; empty for the sane variant.
      interpolation: by which the original resizes its images; "" for the sane variant, and where it does not.
    """

    measurements: tuple[Measurement, ...]
    published: Published = lambda results: {}
    interpolation: str = ""


def draws(stream: np.random.RandomState, low: int, high: int, count: int, sign: int = 1) -> ShiftSet:
    """`count` pairs in [low, high) for each batch, one `randint(low, high, size=2)` after the other."""
    return Stream(count, lambda: sign * np.stack([stream.randint(low, high, size=2) for _ in range(count)]))


def windows(stream: np.random.RandomState, margin: int, count: int) -> ShiftSet:
    """Offsets 0 ... 2 margin - 1 of the window, which is to say shifts of margin - offset of the content."""
    return Stream(
        count, lambda: margin - np.stack([stream.randint(0, 2 * margin, size=2) for _ in range(count)])
    )


def two_each(setting: Setting, reach: int) -> ShiftSet:
    """Two shifts of every image of its own, up to `reach` pixels each way."""
    return random_integer(2, min(reach, setting.side - 1), jax.random.key(setting.seed))

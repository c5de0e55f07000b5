"""The measurements of eval.py and train.py: random shifts drawn for each image, and shifts for pictures.

Proportions are in [0, 1]. Worst cases are in `adversarial`, the metrics of the papers in `presets`.
"""

import jax
import numpy as np

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.evaluation import shift_sets
from aliasfree_jax.evaluation.evaluator import Measurement
from aliasfree_jax.evaluation.reductions import (
    ACCURACY,
    CONSISTENCY,
    WORST_CASE,
    PerShift,
    WorstCaseByRadius,
)
from aliasfree_jax.evaluation.shift_sets import Grid
from aliasfree_jax.evaluation.shifting import Bilinear, Crop, ZeroFilled

# Values of fractional shifts: multiples of 1/n of a pixel, or real numbers (None).
GRIDS: dict[str, int | None] = {"1/2": 2, "1/3": 3, "1/4": 4, "real": None}
_STREAMS = ("integer", "fractional", "zero_filled", "crop", "bilinear")


def largest_shift(max_shift: int, side: int) -> int:
    """The smaller of `max_shift` and `side` - 1: a circular shift by a whole side changes nothing."""
    return min(max_shift, side - 1)


def _key(kind: str, seed: int, stream: int = 0) -> jax.Array:
    """Random key for one kind of shifts, so that the kinds have independent draws."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _STREAMS.index(kind)), stream)


def _about(shifts: int, used: int, asked: int, seed: int) -> str:
    reduced = "" if used == asked else f" (not {asked}: the shorter side is {used + 1} pixels)"
    return f"{shifts} random shifts per image, up to {used} whole pixels on each axis{reduced}, seed {seed}"


def integer_shifts(side: int, *, shifts: int, max_shift: int, seed: int) -> Measurement:
    """Random circular shifts by whole pixels.

    Source: this package. The result "consistency" is that of Michaeli et al. 2023 (arXiv 2303.08085).

    Args:
      side: Side of the network's input in pixels.
      shifts: Number of shifts per image.
      max_shift: Largest shift along each axis in pixels; see `largest_shift`.
      seed: Seed of the random shifts.

    Returns:
      The measurement "integer".

    Raises:
      ConfigError: `shifts` or `max_shift` is below 1.
    """
    used = largest_shift(max_shift, side)
    drawn = shift_sets.random_integer(shifts, used, _key("integer", seed))
    return Measurement("integer", drawn, about=_about(shifts, used, max_shift, seed))


def fractional_shifts(side: int, *, shifts: int, max_shift: int, seed: int) -> Measurement:
    """Random circular shifts by fractions of a pixel, with ideal interpolation.

    The shifts of an image are multiples of 1/2, 1/3, 1/4 of a pixel and real numbers, in turn.

    Source: this package. The result "consistency" is that of Michaeli et al. 2023 (arXiv 2303.08085).

    Args:
      side: Side of the network's input in pixels.
      shifts: Number of shifts per image.
      max_shift: Largest whole-pixel part along each axis; see `largest_shift`.
      seed: Seed of the random shifts.

    Returns:
      The measurement "fractional".

    Raises:
      ConfigError: `shifts` is below 1.
    """
    if shifts < 1:
        raise ConfigError(f"shifts must be at least 1 per image, got {shifts}.")
    used, sets = largest_shift(max_shift, side), dict[str, shift_sets.Drawn]()
    for i, (name, grid) in enumerate(GRIDS.items()):
        if i < shifts:
            # Together as many shifts as in `integer_shifts`.
            turns = len(range(i, shifts, len(GRIDS)))
            sets[name] = shift_sets.random_fraction(turns, used, grid, _key("fractional", seed, i))
    return Measurement("fractional", sets, about=_about(shifts, used, max_shift, seed))


def zero_filled_shifts(*, shifts: int, max_shift: int, seed: int) -> Measurement:
    """Random shifts by whole pixels; zeros of the normalised image fill the border.

    Source: this package.

    Args:
      shifts: Number of shifts per image.
      max_shift: Largest shift along each axis in pixels.
      seed: Seed of the random shifts.

    Returns:
      The measurement "zero_filled".

    Raises:
      ConfigError: `shifts` or `max_shift` is below 1.
    """
    drawn = shift_sets.random_integer(shifts, max_shift, _key("zero_filled", seed))
    about = (
        f"{shifts} random shifts per image, up to {max_shift} pixels on each axis, zeros at the border, seed "
        f"{seed}"
    )
    return Measurement("zero_filled", drawn, ZeroFilled(), about=about)


def crop_shifts(*, shifts: int, margin: int, seed: int) -> Measurement:
    """Random windows at whole pixels in larger images.

    Source: this package.

    Args:
      shifts: Number of windows per image.
      margin: Pixels by which the images are larger than the input on each side.
      seed: Seed of the random windows.

    Returns:
      The measurement "crop".

    Raises:
      ConfigError: `shifts` or `margin` is below 1.
    """
    drawn = shift_sets.random_integer(shifts, margin, _key("crop", seed))
    about = (
        f"{shifts} random windows per image, up to {margin} pixels from the centre on each axis, seed {seed}"
    )
    return Measurement("crop", drawn, Crop(margin), about=about)


def bilinear_shifts(*, shifts: int, margin: int, seed: int) -> Measurement:
    """Random windows at real-valued positions in larger images, with bilinear interpolation.

    Source: this package.

    Args:
      shifts: Number of windows per image.
      margin: Pixels by which the images are larger than the input on each side.
      seed: Seed of the random windows.

    Returns:
      The measurement "bilinear".

    Raises:
      ConfigError: `shifts` is below 1.
    """
    most = float(margin)
    drawn = shift_sets.random_in_box(shifts, (-most, -most), (most, most), _key("bilinear", seed))
    about = f"{shifts} random real-valued windows per image, bilinear, up to {margin} pixels, seed {seed}"
    return Measurement("bilinear", drawn, Bilinear(margin), about=about)


def shift_plane(side: int, radius: int) -> Measurement:
    """Results for every circular shift by whole pixels, for the pictures of the shift plane.

    It evaluates all shifts of every image, so it costs more than `adversarial_integer`.

    Source: this package.

    Args:
      side: Side of the network's input in pixels.
      radius: Largest shift in pixels along each axis, in both directions.

    Returns:
      The measurement "shift_plane".
    """
    grid = shift_sets.square(radius, side)
    reductions = (CONSISTENCY, ACCURACY, WORST_CASE, WorstCaseByRadius(radius), PerShift())
    about = (
        f"all {grid.count} circular shifts by whole pixels, up to {radius} in each direction, for every image"
    )
    return Measurement("shift_plane", grid, reductions=reductions, about=about)


def slide(length: int, steps: int = 4) -> Measurement:
    """Probability of the label while an image slides down and right, for the animation.

    Source: this package.

    Args:
      length: Length of the slide in pixels along each axis.
      steps: Number of positions per pixel.

    Returns:
      The measurement "slide".
    """
    places = np.arange(steps * length + 1) / steps
    grid = Grid(np.stack([places, places], axis=-1))
    about = f"down and right together, {length} pixels in steps of 1/{steps}, ideal interpolation"
    return Measurement("slide", grid, reductions=(PerShift(),), about=about)

"""The measurements of eval.py and train.py: random shifts drawn for each image, and worst cases.

Proportions are in [0, 1]. The metrics as defined in the papers are in `presets`.
"""

import math
from collections.abc import Sequence

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
from aliasfree_jax.evaluation.search import Ascent, spread_points
from aliasfree_jax.evaluation.shift_sets import Grid
from aliasfree_jax.evaluation.shifting import Bilinear, Circular, Crop, Fill, Shifting, Warp, ZeroFilled

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


def adversarial_integer(side: int, radius: int) -> Measurement:
    """Worst case over all circular shifts by whole pixels.

    Source: Michaeli et al. 2023 (arXiv 2303.08085). Differs from the original: shifts in all
    directions count, also along one axis only.

    Args:
      side: Side of the network's input in pixels.
      radius: Largest shift in pixels along each axis, in both directions.

    Returns:
      The measurement "adversarial_integer".

    Raises:
      ConfigError: `radius` is below 1.
    """
    grid, reductions = shift_sets.square(radius, side), (WORST_CASE, WorstCaseByRadius(radius))
    about = f"all {grid.count} circular shifts by whole pixels, up to {radius} in each direction"
    return Measurement("adversarial_integer", grid, reductions=reductions, about=about)


def adversarial_half(side: int, radius: int) -> Measurement:
    """Worst case over all circular shifts by multiples of half a pixel, without whole-pixel shifts.

    Source: Michaeli et al. 2023 (arXiv 2303.08085). Differs from the original: shifts in all
    directions count, also along one axis only.

    Args:
      side: Side of the network's input in pixels.
      radius: Largest shift in pixels along each axis, in both directions.

    Returns:
      The measurement "adversarial_half".

    Raises:
      ConfigError: `radius` is below 1.
    """
    grid = shift_sets.halves(radius, side).scattered()
    about = f"all {grid.count} circular shifts by halves of a pixel, up to {radius} pixels in each direction"
    return Measurement("adversarial_half", grid, reductions=(WORST_CASE,), about=about)


def adversarial_fraction(finest: int) -> Measurement:
    """Worst case over all circular shifts below one pixel by fractions p/n of a pixel, with n up to `finest`.

    Source: Michaeli et al. 2023 (arXiv 2303.08085). Differs from the original: shifts along one
    axis only count too.

    Args:
      finest: Largest denominator n.

    Returns:
      The measurement "adversarial_fraction".

    Raises:
      ConfigError: `finest` is below 2.
    """
    sets = {f"1/{n}": shift_sets.fractions(n).scattered() for n in distinct_factors(finest)}
    about = f"all circular shifts of less than one pixel by multiples of {', '.join(sets)} of a pixel"
    return Measurement("adversarial_fraction", sets, reductions=(WORST_CASE,), about=about)


def distinct_factors(finest: int) -> list[int]:
    """Denominators 2 ... `finest`, without divisors of others: their fractions would be counted twice.

    Raises:
      ConfigError: `finest` is below 2.
    """
    if finest < 2:
        raise ConfigError(f"the finest fraction of a pixel is 1/n with n of 2 or more, got n = {finest}.")
    factors = range(2, finest + 1)
    return [n for n in factors if not any(m % n == 0 for m in factors if m > n)]


def _searched(
    name: str, way: Shifting, most: Sequence[float], about: str, points: int, starts: int, steps: int
) -> Measurement:
    """Worst case over a box of parameters: each is between -most and most.

    The search first tries `points` points, spread evenly over the box. Then it makes `steps` steps of
    gradient ascent from the `starts` worst points.
    """
    low, high = tuple(-limit for limit in most), tuple(most)
    grid, search = Grid(spread_points(low, high, points)), Ascent(low, high, starts=starts, steps=steps)
    about = f"{about} in each direction: {points} points, then {steps} steps from the {starts} worst"
    return Measurement(name, grid, way, (WORST_CASE,), search, about)


def adversarial_continuous(
    radius: float, *, points: int = 64, starts: int = 4, steps: int = 20
) -> Measurement:
    """Worst case over all real-valued circular shifts, by search.

    The result is an upper bound of the worst-case accuracy: the search may miss worse shifts.

    Source: this package.

    Args:
      radius: Largest shift in pixels along each axis, in both directions.
      points: Number of points that are spread evenly over the square of shifts.
      starts: Number of worst points from which the gradient ascent starts.
      steps: Number of steps of each ascent.

    Returns:
      The measurement "adversarial_continuous".
    """
    about = f"real-valued circular shifts of up to {radius:g} pixels"
    most = (float(radius),) * 2
    return _searched("adversarial_continuous", Circular(), most, about, points, starts, steps)


def spatial_attack(
    fill: Fill,
    *,
    translation: float,
    rotation: float = 0.0,
    enlargement: float = 1.0,
    points: int = 64,
    starts: int = 4,
    steps: int = 20,
) -> Measurement:
    """Worst case over rotations, scalings and translations, by the search of `adversarial_continuous`.

    Source: Engstrom et al. 2019 (arXiv 1712.02779). Differs from the original: the search uses gradients, not
    a grid, and includes scalings.

    Args:
      fill: Value outside the image.
      translation: Largest translation in pixels along each axis, in both directions.
      rotation: Largest rotation in degrees, in both directions.
      enlargement: Largest factor, 1 or more. Images are also made smaller by up to this factor.
      points: See `adversarial_continuous`.
      starts: See `adversarial_continuous`.
      steps: See `adversarial_continuous`.

    Returns:
      The measurement "spatial_attack".
    """
    about = (
        f"translations of up to {translation:.1f} pixels, rotations of {rotation:g} degrees, enlargements by "
        f"{enlargement:.2f},"
    )
    most = (translation, translation, rotation, math.log(enlargement))
    return _searched("spatial_attack", Warp(fill=fill), most, about, points, starts, steps)


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

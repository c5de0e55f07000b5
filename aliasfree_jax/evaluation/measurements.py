"""What eval.py and train.py measure: shifts of every kind, drawn for each image, or all that there are.

Proportions are in [0, 1]. The metrics as the papers define them are in `presets`.
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

# What the fractional shifts are drawn from: multiples of 1/n of a pixel, or real numbers (None).
GRIDS: dict[str, int | None] = {"1/2": 2, "1/3": 3, "1/4": 4, "real": None}
_STREAMS = ("integer", "fractional", "zero_filled", "crop", "bilinear")


def largest_shift(max_shift: int, side: int) -> int:
    """`max_shift`, or `side` less one pixel if that is smaller: a circular shift by a side is no shift."""
    return min(max_shift, side - 1)


def _key(kind: str, seed: int, stream: int = 0) -> jax.Array:
    """Every kind of shift has draws of its own."""
    return jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), _STREAMS.index(kind)), stream)


def _about(shifts: int, used: int, asked: int, seed: int) -> str:
    reduced = "" if used == asked else f" (not {asked}: the shorter side is {used + 1} pixels)"
    return f"{shifts} random shifts an image, each axis up to {used} whole pixels{reduced}, seed {seed}"


def integer_shifts(side: int, *, shifts: int, max_shift: int, seed: int) -> Measurement:
    """Circular shifts by whole pixels, `shifts` an image, up to `largest_shift(max_shift, side)`."""
    used = largest_shift(max_shift, side)
    drawn = shift_sets.random_integer(shifts, used, _key("integer", seed))
    return Measurement("integer", drawn, about=_about(shifts, used, max_shift, seed))


def fractional_shifts(side: int, *, shifts: int, max_shift: int, seed: int) -> Measurement:
    """Circular shifts by fractions of a pixel: the draws take turns on halves, thirds, quarters, reals."""
    if shifts < 1:
        raise ConfigError(f"shifts must be at least 1 an image, got {shifts}.")
    used, sets = largest_shift(max_shift, side), dict[str, shift_sets.Drawn]()
    for i, (name, grid) in enumerate(GRIDS.items()):
        if i < shifts:
            # The cost is that of `shifts` integer ones.
            turns = len(range(i, shifts, len(GRIDS)))
            sets[name] = shift_sets.random_fraction(turns, used, grid, _key("fractional", seed, i))
    return Measurement("fractional", sets, about=_about(shifts, used, max_shift, seed))


def zero_filled_shifts(*, shifts: int, max_shift: int, seed: int) -> Measurement:
    """Shifts by whole pixels with zeros (of the normalised image) at the border, `shifts` an image."""
    drawn = shift_sets.random_integer(shifts, max_shift, _key("zero_filled", seed))
    about = f"{shifts} random shifts an image, each axis up to {max_shift} pixels, zeros come in, seed {seed}"
    return Measurement("zero_filled", drawn, ZeroFilled(), about=about)


def crop_shifts(*, shifts: int, margin: int, seed: int) -> Measurement:
    """Windows in images that are wider by `margin` on each side, `shifts` an image."""
    drawn = shift_sets.random_integer(shifts, margin, _key("crop", seed))
    about = f"{shifts} random windows an image, up to {margin} pixels off the centre each way, seed {seed}"
    return Measurement("crop", drawn, Crop(margin), about=about)


def bilinear_shifts(*, shifts: int, margin: int, seed: int) -> Measurement:
    """Windows at real-valued places in images that are wider by `margin`, bilinear interpolation."""
    most = float(margin)
    drawn = shift_sets.random_in_box(shifts, (-most, -most), (most, most), _key("bilinear", seed))
    about = f"{shifts} random real-valued windows an image, bilinear, up to {margin} pixels, seed {seed}"
    return Measurement("bilinear", drawn, Bilinear(margin), about=about)


def adversarial_integer(side: int, radius: int) -> Measurement:
    """Worst case over every circular shift by whole pixels of up to `radius` each way."""
    grid, reductions = shift_sets.square(radius, side), (WORST_CASE, WorstCaseByRadius(radius))
    about = f"all {grid.count} circular shifts by whole pixels of up to {radius} each way"
    return Measurement("adversarial_integer", grid, reductions=reductions, about=about)


def adversarial_half(side: int, radius: int) -> Measurement:
    """Worst case over every circular shift by multiples of half a pixel, whole pixels left out."""
    grid = shift_sets.halves(radius, side).scattered()
    about = f"all {grid.count} circular shifts by halves of a pixel of up to {radius} each way"
    return Measurement("adversarial_half", grid, reductions=(WORST_CASE,), about=about)


def adversarial_fraction(finest: int) -> Measurement:
    """Worst case over all fractions p/n of a pixel, n up to `finest`, on both axes."""
    sets = {f"1/{n}": shift_sets.fractions(n).scattered() for n in distinct_factors(finest)}
    about = f"all circular shifts by multiples of {', '.join(sets)} of a pixel below one"
    return Measurement("adversarial_fraction", sets, reductions=(WORST_CASE,), about=about)


def distinct_factors(finest: int) -> list[int]:
    """2 ... `finest` without those that divide a larger one, whose fractions are among its own.

    Raises:
      ConfigError: finest below 2.
    """
    if finest < 2:
        raise ConfigError(f"fractions of a pixel are at most halves: expected 2 or more, got {finest}.")
    factors = range(2, finest + 1)
    return [n for n in factors if not any(m % n == 0 for m in factors if m > n)]


def _searched(
    name: str, way: Shifting, most: Sequence[float], about: str, points: int, starts: int, steps: int
) -> Measurement:
    """Worst case over a box of parameters, each up to `most` of them either way.

    `points` spread evenly over the box, then `steps` steps of gradient ascent from the `starts` worst.
    """
    low, high = tuple(-limit for limit in most), tuple(most)
    grid, search = Grid(spread_points(low, high, points)), Ascent(low, high, starts=starts, steps=steps)
    about = f"{about} each way: {points} points, then {steps} steps from the {starts} worst"
    return Measurement(name, grid, way, (WORST_CASE,), search, about)


def adversarial_continuous(
    radius: float, *, points: int = 64, starts: int = 4, steps: int = 20
) -> Measurement:
    """Worst case over all real-valued circular shifts of up to `radius` pixels each way, by search."""
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
    """Worst case over rotations, scalings and translations with a border of `fill`, by the same search.

    Args:
      fill: what lies outside the image.
      translation: pixels, each way.
      rotation: degrees, each way.
      enlargement: factor, 1 or more; as much smaller, too.
      points, starts, steps: of the search, see `adversarial_continuous`.
    """
    about = (
        f"translations of up to {translation:.1f} pixels, rotations of {rotation:g} degrees, enlargements by "
        f"{enlargement:.2f},"
    )
    most = (translation, translation, rotation, math.log(enlargement))
    return _searched("spatial_attack", Warp(fill=fill), most, about, points, starts, steps)


def shift_plane(side: int, radius: int) -> Measurement:
    """What pictures need of every circular shift by whole pixels of up to `radius` each way.

    No shift of a fooled image is left out, so it costs more than `adversarial_integer`.
    """
    grid = shift_sets.square(radius, side)
    reductions = (CONSISTENCY, ACCURACY, WORST_CASE, WorstCaseByRadius(radius), PerShift())
    about = f"all {grid.count} circular shifts by whole pixels of up to {radius} each way, none left out"
    return Measurement("shift_plane", grid, reductions=reductions, about=about)


def slide(length: int, steps: int = 4) -> Measurement:
    """The label's probability while an image slides `length` pixels down and right, `steps` a pixel."""
    places = np.arange(steps * length + 1) / steps
    grid = Grid(np.stack([places, places], axis=-1))
    about = f"down and right at once, {length} pixels in steps of 1/{steps}, ideal interpolation"
    return Measurement("slide", grid, reductions=(PerShift(),), about=about)

"""The worst cases of eval.py: an image counts as right only if it is right under every shift of a set.

Proportions are in [0, 1]. The worst cases of the papers are in `presets.worst_cases`.
"""

import math
from collections.abc import Sequence

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.evaluation import shift_sets
from aliasfree_jax.evaluation.evaluator import Measurement
from aliasfree_jax.evaluation.reductions import WORST_CASE, WorstCaseByRadius
from aliasfree_jax.evaluation.search import Ascent, spread_points
from aliasfree_jax.evaluation.shift_sets import Grid
from aliasfree_jax.evaluation.shifting import Circular, Fill, Shifting, Warp


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

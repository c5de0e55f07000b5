"""Worst cases over sets of shifts: the adversarial metrics of AFC and AFT, see `presets`.

As in the original, AFC's fractional shifts move the content up and left, and its rolls down and right.
"""

from collections.abc import Mapping
from functools import partial

import jax
import numpy as np

from aliasfree_jax.evaluation.adversarial import (
    adversarial_fraction,
    adversarial_half,
    adversarial_integer,
    distinct_factors,
)
from aliasfree_jax.evaluation.evaluator import Measurement
from aliasfree_jax.evaluation.measurements import largest_shift
from aliasfree_jax.evaluation.presets import MakePreset, Preset, PresetConfig, accuracies, draws, figure
from aliasfree_jax.evaluation.reductions import (
    ATTACKED_ACCURACY,
    UNSHIFTED,
    WORST_CASE,
    WorstCaseByRadius,
)
from aliasfree_jax.evaluation.shift_sets import Grid, ShiftSet, product, random_integer, square
from aliasfree_jax.evaluation.shifting import Bilinear, Circular, Crop, Shifting, Warp

WHOLE = np.arange(1, 32)  # the original's rolls on each axis; none is along one axis only
BORDER = 16  # width of the black border of the spatial grids, in pixels
RADIANS = 0.01745327778  # the original's value of one degree


def _worst_case(name: str, shifts: ShiftSet | Mapping[str, ShiftSet], printed: str) -> Preset:
    """Worst case over circular shifts; `printed` is its name in the original program."""
    wanted = Measurement(name, shifts, reductions=(WORST_CASE,))
    return Preset((wanted,), {printed: figure(name, "worst_case_accuracy")}, "bicubic")


def fraction(config: PresetConfig, paper: bool) -> Preset:
    """Worst case over fractions of a pixel. The original leaves out shifts along one axis only.

    Source: Michaeli et al. 2023 (arXiv 2303.08085).

    Args:
      config: Settings; `finest` is used.
      paper: Whether to compute it exactly as the original.
    """
    if not paper:
        return Preset((adversarial_fraction(config.finest),))
    sets = {}
    for n in distinct_factors(config.finest):
        part = np.arange(1, n)
        sets[f"1/{n}"] = Grid(-product(part, part) / n)
    return _worst_case("afc_fraction", sets, "sub_shift_robust_score")


def integer(config: PresetConfig, paper: bool) -> Preset:
    """Worst case over rolls. The original uses 1 to 31 pixels on both axes.

    Source: Michaeli et al. 2023 (arXiv 2303.08085).

    Args:
      config: Settings; `side` and `radius` are used.
      paper: Whether to compute it exactly as the original.
    """
    if not paper:
        return Preset((adversarial_integer(config.side, config.radius),))
    return _worst_case("afc_integer", Grid(product(WHOLE, WHOLE)), "full_adversarial_shift_robust_score")


def full(config: PresetConfig, paper: bool) -> Preset:
    """Worst case over rolls and half-pixel shifts.

    The original uses 1 to 31 pixels on both axes, and the same shifts minus half a pixel.

    Source: Michaeli et al. 2023 (arXiv 2303.08085).

    Args:
      config: Settings; `side` and `radius` are used.
      paper: Whether to compute it exactly as the original.
    """
    side, radius, name = config.side, config.radius, "afc_full"
    if not paper:
        return Preset((adversarial_integer(side, radius), adversarial_half(side, radius)))
    rolls = product(WHOLE, WHOLE)
    sets = {"integer": Grid(rolls), "half": Grid(-(rolls - 0.5))}
    figures = {
        "full_adversarial_shift_robust_score": figure(name, "parts", "integer", "worst_case_accuracy"),
        "full_adversarial_sub_shift_robust_score": figure(name, "parts", "half", "worst_case_accuracy"),
        "full_adversarial_total_robust_score": figure(name, "worst_case_accuracy"),
    }
    return Preset((Measurement(name, sets, reductions=(WORST_CASE,)),), figures, "bicubic")


def integer_rand10(config: PresetConfig, paper: bool) -> Preset:
    """Worst case over ten random rolls. The original draws them for each batch, 1 to 31 pixels on both axes.

    Source: Michaeli et al. 2023 (arXiv 2303.08085).

    Args:
      config: Settings; `side` and `seed` are used.
      paper: Whether to compute it exactly as the original.
    """
    ten = draws(np.random.RandomState(config.seed), 1, 32, 10)
    own = random_integer(10, largest_shift(31, config.side), jax.random.key(config.seed))
    shifts = ten if paper else own
    return _worst_case("afc_integer_rand10", shifts, "full_adversarial_shift_robust_score")


def crop_shift(config: PresetConfig, paper: bool) -> Preset:
    """Worst case over all windows of a larger image.

    The original leaves out offset 0. It resizes with bilinear interpolation, unlike its usual evaluation.

    Source: Michaeli et al. 2023 (arXiv 2303.08085).

    Args:
      config: Settings; `margin` is used.
      paper: Whether to compute it exactly as the original.
    """
    name, margin = "afc_crop_shift", config.margin
    offsets = np.arange(1, 2 * margin + 1)
    shifts = Grid(margin - product(offsets, offsets)) if paper else square(margin)
    score = figure(name, "worst_case_accuracy", unit=100)
    wanted = Measurement(name, shifts, Crop(margin), (WORST_CASE,))
    return Preset((wanted,), {"adversarial_crop_shift_shift_robust_score": score}, "bilinear")


def original_warp(degrees: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Converts rotations and translations of the original spatial attack to parameters of `Warp`.

    The original's output at (x, y), measured from the centre, is the input at R (x, y) + t, where R is a
    rotation. So the content is first shifted by -t, then rotated. `Warp` rotates first.

    Args:
      degrees: Rotations in degrees, `[K]`.
      x: Horizontal part of t in pixels, `[K]`. A positive value shifts the content to the left.
      y: Vertical part of t in pixels, `[K]`. A positive value shifts the content up.

    Returns:
      Parameters `[K, 4]`.
    """
    angle = RADIANS * degrees
    down, right = np.sin(angle) * x - np.cos(angle) * y, -np.cos(angle) * x - np.sin(angle) * y
    return np.stack([down, right, -np.rad2deg(angle), np.zeros_like(angle)], axis=-1)


def spatial_grid(name: str, rotations: int, translations: int, config: PresetConfig, paper: bool) -> Preset:
    """Worst case over a grid of rotations and translations with a black border.

    The original adds 16 black pixels around the image, samples it as `Warp.stretched`, and reports
    `ATTACKED_ACCURACY`.

    Source: Engstrom et al. 2019 (arXiv 1712.02779), as in the code of Michaeli et al. 2023 (arXiv
    2303.08085).

    Args:
      name: Name of the measurement.
      rotations: Number of rotations.
      translations: Number of translations along each axis.
      config: Settings of the preset.
      paper: Whether to compute it exactly as the original.
    """
    border = BORDER if paper else 0
    side, most = config.side + 2 * border, config.constraint
    turned = np.linspace(-most, most, rotations) if rotations > 1 else np.zeros(1)
    moved = np.linspace(-1, 1, translations) * most / 280 * side
    points = Grid(original_warp(*product(turned, moved, moved).T))
    about = (
        f"{translations} x {translations} translations up to {most / 280 * side:.1f} pixels in each direction"
    )
    if rotations > 1:
        about = f"{rotations} rotations up to {most:g} degrees in each direction, with {about}"
    if not paper:
        way: Shifting = Warp(fill=config.fill)
        return Preset((Measurement(name, points.scattered(), way, (WORST_CASE,), about=about),))
    way = Warp(fill=config.fill, border=border, stretched=True)
    wanted = Measurement(name, points, way, (ATTACKED_ACCURACY, *UNSHIFTED), about=about)
    figures = {
        "natacc": figure(name, "unshifted_accuracy", unit=100),
        "advacc": figure(name, "attacked_accuracy", unit=100),
    }
    return Preset((wanted,), figures, "bilinear")


def _rings(
    name: str,
    way: Shifting,
    radius: int,
    paper: bool,
    printed: str,
    score: str = "shift_robust_score_{0}",
    *,
    parts: int = 1,
    centre: int = 0,
    enlarged: bool = False,
) -> Preset:
    """Worst cases over the rings 1 to `radius` around `centre`, in steps of 1/`parts` pixel.

    Ring s has the 8 s shifts with max(|rows|, |columns|) = s steps. An image counts at radius s if it is
    correct without a shift and under all shifts of the rings up to s.

    Args:
      name: Name of the measurement.
      way: The kind of shifts.
      radius: Largest radius in steps.
      paper: Whether to measure the accuracies of the unshifted images too.
      printed: Format of the original's names of figures; "{}" becomes "acc1", "acc5" or `score`.
      score: Format of the name of a radius: {0} is the radius in steps, {1} in pixels.
      parts: Steps per pixel.
      centre: Centre of the rings on both axes, in steps.
      enlarged: See `Preset`.
    """
    steps = square(radius).points + centre
    middle = (centre / parts,) * 2
    around = f" around ({middle[0]:g}, {middle[0]:g})" if centre else ""
    wanted = Measurement(
        name,
        Grid(steps if parts == 1 else steps / parts),
        way,
        (WORST_CASE, WorstCaseByRadius(radius, 1 / parts, middle), *(UNSHIFTED if paper else ())),
        about=f"rings 1 to {radius}{around} in steps of {f'1/{parts}' if parts > 1 else 'one'} pixel",
    )
    figures = accuracies(name, printed)
    for r in range(1, radius + 1):
        shown = printed.format(score.format(r, r / parts))
        figures[shown] = figure(name, "worst_case_by_radius", r, unit=100)
    return Preset((wanted,), figures, "bicubic", enlarged)


def cyclic_shift(name: str, upsample: int, config: PresetConfig, paper: bool) -> Preset:
    """Worst cases by radius over circular shifts in steps of 1/`upsample` of a pixel.

    `PresetConfig.radius` is the original's max_shift. The original upsamples by `upsample` and rolls by the
    negative of (max_shift, max_shift) + ring. Its rings therefore surround that shift, which is a half-pixel
    shift if `upsample` is 2 and max_shift is odd.

    Source: Michaeli and Soudry 2025 (arXiv 2510.22673).

    Args:
      name: Name of the measurement.
      upsample: Steps per pixel, 1 or 2.
      config: Settings of the preset.
      paper: Whether to compute it exactly as the original.
    """
    printed, centre = f"adversarial_cyclic_shift_{{}}_{upsample}", -config.radius if paper else 0
    return _rings(name, Circular(), config.radius, paper, printed, parts=upsample, centre=centre)


def aft_crop_shift(config: PresetConfig, paper: bool) -> Preset:
    """Worst cases by radius over windows around the centre of a larger image.

    The original enlarges the image to this size.

    Source: Michaeli and Soudry 2025 (arXiv 2510.22673).

    Args:
      config: Settings; `margin` is used.
      paper: Whether to compute it exactly as the original.
    """
    way, printed = Crop(config.margin), "adversarial_crop_shift_{}"
    return _rings("aft_crop_shift", way, config.margin, paper, printed, enlarged=True)


def bilinear_shift(config: PresetConfig, paper: bool) -> Preset:
    """Worst cases by radius over bilinear shifts up to one pixel in steps of 1/finest.

    Such shifts need a border of one pixel. The original enlarges the image by this border. The improved
    variant uses an image with the margin of all windows.

    Source: Michaeli and Soudry 2025 (arXiv 2510.22673).

    Args:
      config: Settings; `margin` and `finest` are used.
      paper: Whether to compute it exactly as the original.
    """
    way, parts = Bilinear(1 if paper else config.margin), config.finest
    names = "adversarial_fractional_shift_{}", "shift_frac_robust_{1:.3f}"
    return _rings("aft_bilinear_shift", way, parts, paper, *names, parts=parts, enlarged=True)


PRESETS: dict[str, MakePreset] = {
    "afc_fraction": fraction,
    "afc_integer": integer,
    "afc_full": full,
    "afc_integer_rand10": integer_rand10,
    "afc_crop_shift": crop_shift,
    "afc_spatial_grid": partial(spatial_grid, "afc_spatial_grid", 31, 5),
    "afc_translation_grid": partial(spatial_grid, "afc_translation_grid", 1, 64),
    "aft_cyclic_shift": partial(cyclic_shift, "aft_cyclic_shift", 1),
    "aft_cyclic_half_shift": partial(cyclic_shift, "aft_cyclic_half_shift", 2),
    "aft_crop_shift": aft_crop_shift,
    "aft_bilinear_shift": bilinear_shift,
}

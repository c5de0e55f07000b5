"""Worst cases over sets of shifts: the adversarial metrics of AFC and AFT, see `presets`.

AFC's fractional shifts move the content up and left, its rolls down and right; that is kept.
"""

from collections.abc import Mapping
from functools import partial

import jax
import numpy as np

from aliasfree_jax.evaluation import measurements as sane
from aliasfree_jax.evaluation.evaluator import Measurement
from aliasfree_jax.evaluation.presets import MakePreset, Preset, PresetConfig, accuracies, draws, figure
from aliasfree_jax.evaluation.reductions import (
    ATTACKED_ACCURACY,
    UNSHIFTED,
    WORST_CASE,
    WorstCaseByRadius,
)
from aliasfree_jax.evaluation.shift_sets import Grid, ShiftSet, product, random_integer, square
from aliasfree_jax.evaluation.shifting import Bilinear, Circular, Crop, Shifting, Warp

WHOLE = np.arange(1, 32)  # the original's rolls: fixed, and none along one axis only
BORDER = 16  # black pixels that the spatial grids put around the image
RADIANS = 0.01745327778  # a degree, as the spatial grids have it


def _worst_case(name: str, shifts: ShiftSet | Mapping[str, ShiftSet], printed: str) -> Preset:
    """The worst case over circular shifts, which the original calls `printed`."""
    wanted = Measurement(name, shifts, reductions=(WORST_CASE,))
    return Preset((wanted,), {printed: figure(name, "worst_case_accuracy")}, "bicubic")


def fraction(config: PresetConfig, paper: bool) -> Preset:
    """Worst case over fractions of a pixel; the original leaves shifts along one axis out."""
    if not paper:
        return Preset((sane.adversarial_fraction(config.finest),))
    sets = {}
    for n in sane.distinct_factors(config.finest):
        part = np.arange(1, n)
        sets[f"1/{n}"] = Grid(-product(part, part) / n)
    return _worst_case("afc_fraction", sets, "sub_shift_robust_score")


def integer(config: PresetConfig, paper: bool) -> Preset:
    """Worst case over rolls; the original: 1 ... 31 on both axes."""
    if not paper:
        return Preset((sane.adversarial_integer(config.side, config.radius),))
    return _worst_case("afc_integer", Grid(product(WHOLE, WHOLE)), "full_adversarial_shift_robust_score")


def full(config: PresetConfig, paper: bool) -> Preset:
    """Worst case over rolls and half pixels; the original: 1 ... 31, and half a pixel less, on both axes."""
    side, radius, name = config.side, config.radius, "afc_full"
    if not paper:
        return Preset((sane.adversarial_integer(side, radius), sane.adversarial_half(side, radius)))
    rolls = product(WHOLE, WHOLE)
    sets = {"integer": Grid(rolls), "half": Grid(-(rolls - 0.5))}
    figures = {
        "full_adversarial_shift_robust_score": figure(name, "parts", "integer", "worst_case_accuracy"),
        "full_adversarial_sub_shift_robust_score": figure(name, "parts", "half", "worst_case_accuracy"),
        "full_adversarial_total_robust_score": figure(name, "worst_case_accuracy"),
    }
    return Preset((Measurement(name, sets, reductions=(WORST_CASE,)),), figures, "bicubic")


def integer_rand10(config: PresetConfig, paper: bool) -> Preset:
    """Worst case over ten random rolls; the original: of a batch, 1 ... 31 on both axes."""
    ten = draws(np.random.RandomState(config.seed), 1, 32, 10)
    own = random_integer(10, sane.largest_shift(31, config.side), jax.random.key(config.seed))
    shifts = ten if paper else own
    return _worst_case("afc_integer_rand10", shifts, "full_adversarial_shift_robust_score")


def crop_shift(config: PresetConfig, paper: bool) -> Preset:
    """Worst case over all windows of a larger image; the original leaves offset 0 out.

    It resizes bilinearly, other than in its usual evaluation.
    """
    name, margin = "afc_crop_shift", config.margin
    offsets = np.arange(1, 2 * margin + 1)
    shifts = Grid(margin - product(offsets, offsets)) if paper else square(margin)
    score = figure(name, "worst_case_accuracy", unit=100)
    wanted = Measurement(name, shifts, Crop(margin), (WORST_CASE,))
    return Preset((wanted,), {"adversarial_crop_shift_shift_robust_score": score}, "bilinear")


def original_warp(degrees: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The spatial attack's rotations by `degrees` and translations by x, y pixels, [K, 4] for `Warp`.

    Its output at (x, y), measured from the centre, is the input at R (x, y) + t, R a turn by the angle: the
    content is first moved by -t, then turned. `Warp` turns first.
    """
    angle = RADIANS * degrees
    down, right = np.sin(angle) * x - np.cos(angle) * y, -np.cos(angle) * x - np.sin(angle) * y
    return np.stack([down, right, -np.rad2deg(angle), np.zeros_like(angle)], axis=-1)


def spatial_grid(name: str, rotations: int, translations: int, config: PresetConfig, paper: bool) -> Preset:
    """Worst case over a grid of rotations and translations with a black border.

    The original puts 16 more black pixels around the image, samples it as `Warp.stretched`, and judges what
    `ATTACKED_ACCURACY` tells.
    """
    border = BORDER if paper else 0
    side, most = config.side + 2 * border, config.constraint
    turned = np.linspace(-most, most, rotations) if rotations > 1 else np.zeros(1)
    moved = np.linspace(-1, 1, translations) * most / 280 * side
    points = Grid(original_warp(*product(turned, moved, moved).T))
    about = f"{translations} x {translations} translations of up to {most / 280 * side:.1f} pixels each way"
    if rotations > 1:
        about = f"{rotations} rotations of up to {most:g} degrees each way, of {about}"
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
    """Worst cases over the rings 1 ... `radius` around `centre` (on both axes), in steps of 1/`parts` pixel.

    Ring s has the 8 s shifts with max(|rows|, |columns|) = s steps. An image counts at radius s if it is
    right unshifted and under all shifts of the rings up to s.

    Args:
      name: of the measurement.
      way: how images move.
      radius, centre: in steps.
      paper: measure the unshifted images' accuracies as well.
      printed: the original's name of a figure, "{}" in the place of "acc1", "acc5" or `score`.
      score: name of a radius: {0} is the radius in steps, {1} in pixels.
      parts: steps a pixel.
      enlarged: see `Preset`.
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
    """Circular shifts by 1/`upsample` of a pixel, of which `PresetConfig.radius` is the original's max_shift.

    The original enlarges by `upsample` and rolls by the negative of (max_shift, max_shift) + ring: its rings
    surround that place, half a pixel where max_shift is odd.
    """
    printed, centre = f"adversarial_cyclic_shift_{{}}_{upsample}", -config.radius if paper else 0
    return _rings(name, Circular(), config.radius, paper, printed, parts=upsample, centre=centre)


def aft_crop_shift(config: PresetConfig, paper: bool) -> Preset:
    """Windows around the middle of a larger image, to whose size the original enlarges the image."""
    way, printed = Crop(config.margin), "adversarial_crop_shift_{}"
    return _rings("aft_crop_shift", way, config.margin, paper, printed, enlarged=True)


def bilinear_shift(config: PresetConfig, paper: bool) -> Preset:
    """Shifts of up to a pixel in steps of 1/finest, bilinear; a border of a pixel comes in.

    The original enlarges the image by that border. The sane variant has it from an image with the margin of
    all windows.
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

"""The metrics of the Alias-Free ViT (Michaeli and Soudry, NeurIPS 2025), by radius.

An image counts at radius s if it is right unshifted and under all shifts on the rings 1 ... s around a
centre; ring s has the 8 s shifts with max(|rows|, |columns|) = s steps. The shifts are the paper's;
the names and the unit of the shares are ours.
"""

from collections.abc import Mapping
from typing import Any

from aliasfree_jax.evaluation.evaluator import Measurement
from aliasfree_jax.evaluation.presets.preset import Preset, Setting
from aliasfree_jax.evaluation.reductions import WorstCase, WorstCaseByRadius
from aliasfree_jax.evaluation.shift_sets import Grid, square
from aliasfree_jax.evaluation.shifting import Bilinear, Circular, Crop, Shifting


def _rings(name: str, radius: int, parts: int, way: Shifting, centre: int = 0) -> Measurement:
    """The rings 1 ... `radius` around `centre` (on both axes), in steps of 1/`parts` of a pixel."""
    steps = square(radius).points + centre
    middle = (centre / parts,) * 2
    around = f" around ({middle[0]:g}, {middle[0]:g})" if centre else ""
    return Measurement(
        name,
        Grid(steps if parts == 1 else steps / parts),
        way,
        (WorstCase(), WorstCaseByRadius(radius, step=1 / parts, centre=middle)),
        about=f"rings 1 to {radius}{around} in steps of {f'1/{parts}' if parts > 1 else 'one'} pixel",
    )


def _by_radius(wanted: Measurement, paper: bool) -> Preset:
    def published(results: Mapping[str, Any]) -> dict[str, float]:
        shares = results[wanted.name]["worst_case_by_radius"]
        return {f"radius {radius}": share for radius, share in enumerate(shares) if radius}

    return Preset((wanted,), published) if paper else Preset((wanted,))


def _cyclic(name: str, parts: int, setting: Setting, paper: bool) -> Preset:
    """The original enlarges by `parts`, and rolls by the negative of (max_shift, max_shift) + ring."""
    centre = -setting.radius if paper else 0
    return _by_radius(_rings(name, setting.radius, parts, Circular(), centre), paper)


def cyclic_shift(setting: Setting, paper: bool = False) -> Preset:
    """Circular shifts by whole pixels; the original's rings surround (-max_shift, -max_shift)."""
    return _cyclic("aft_cyclic_shift", 1, setting, paper)


def cyclic_half_shift(setting: Setting, paper: bool = False) -> Preset:
    """Circular shifts by half pixels; `Setting.radius` (the original's max_shift) counts half pixels.

    The original's rings surround (-max_shift / 2, -max_shift / 2), half a pixel where max_shift is odd.
    """
    return _cyclic("aft_cyclic_half_shift", 2, setting, paper)


def crop_shift(setting: Setting, paper: bool = False) -> Preset:
    """Windows of a larger image, around its middle as in the original."""
    return _by_radius(_rings("aft_crop_shift", setting.margin, 1, Crop(setting.margin)), paper)


def bilinear_shift(setting: Setting, paper: bool = False) -> Preset:
    """Shifts of up to a pixel in steps of 1/finest, bilinear; a border of a pixel comes in.

    That border is image, of which there are `Setting.margin` pixels here: only the first is seen.
    """
    way = Bilinear(setting.margin)
    return _by_radius(_rings("aft_bilinear_shift", setting.finest, setting.finest, way), paper)

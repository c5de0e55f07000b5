"""The grid attacks of the alias-free authors' spatial-robustness code.

The constraint c, one of 1, 4, 8, 30, 40 there, bounds rotation and translation (`spatial.original_space`).
Where an image is both rotated and moved, the paper does not tell which comes first; here it is
moved, then rotated about the centre (`spatial.Warp`). The original pads its images with 16 black pixels
before; here they are as they are.
"""

from collections.abc import Mapping
from typing import Any

from aliasfree_jax.evaluation.evaluator import Measurement
from aliasfree_jax.evaluation.presets.preset import Preset, Setting
from aliasfree_jax.evaluation.reductions import RightUnderAll, Unshifted, WorstCase
from aliasfree_jax.evaluation.shift_sets import Grid
from aliasfree_jax.evaluation.spatial import Warp, original_space


def _attack(name: str, points: Grid, about: str, setting: Setting, paper: bool) -> Preset:
    if not paper:
        way = Warp(setting.fill)
        return Preset((Measurement(name, points.scattered(), way, (WorstCase(),), about=about),))

    def published(results: Mapping[str, Any]) -> dict[str, float]:
        found = results[name]
        return {"natacc": found["unshifted_accuracy"], "advacc": found["right_under_all"]}

    stretched = Warp(setting.fill, stretched=True)
    wanted = Measurement(name, points, stretched, (RightUnderAll(), Unshifted()), about=about)
    return Preset((wanted,), published)


def rotation_grid(setting: Setting, paper: bool = False) -> Preset:
    """31 rotations of 5 x 5 translations; the original does not ask whether the image itself is right."""
    space = original_space(setting.side, setting.constraint, rotation=True)
    about = (
        f"31 rotations of up to {space.rotation:g} degrees each way, of 5 x 5 translations of up to "
        f"{space.translation:.1f} pixels"
    )
    return _attack("afc_spatial_grid", space.grid(5, 31), about, setting, paper)


def translation_grid(setting: Setting, paper: bool = False) -> Preset:
    """64 x 64 translations, of which none is zero; otherwise as `rotation_grid`."""
    space = original_space(setting.side, setting.constraint, rotation=False)
    about = f"64 x 64 translations of up to {space.translation:.1f} pixels each way"
    return _attack("afc_translation_grid", space.grid(64), about, setting, paper)

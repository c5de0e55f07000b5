"""The metrics of the papers, by name.

By default each is the sane variant: shifts drawn for every image, none left out, shares in [0, 1]. With
`paper=True` it is what the original program computes: one shift for a whole batch or data set, its ranges
and what they leave out, its order of draws from `np.random`, and its names and units (`Preset.published`).

BlurPool: Zhang, ICML 2019. APS: Chaman and Dokmanić, CVPR 2021. LPS: Rojas-Gomez et al., NeurIPS 2022.
AFC: Michaeli et al., CVPR 2023. AFT: Michaeli and Soudry, NeurIPS 2025. Their programs leave the seed open or
set it; here it is `Setting.seed`.
"""

import dataclasses
from collections.abc import Callable

from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.evaluation.presets import alias_free, alias_free_vit, consistency, spatial_grids
from aliasfree_jax.evaluation.presets.preset import Preset, Setting

PRESETS: dict[str, Callable[[Setting, bool], Preset]] = {
    "blurpool_consistency": consistency.blurpool_consistency,
    "blurpool_diagonal": consistency.blurpool_diagonal,
    "aps_consistency": consistency.aps_consistency,
    "aps_cifar_circular": consistency.aps_cifar_circular,
    "aps_cifar_crop": consistency.aps_cifar_crop,
    "lps_consistency": consistency.lps_consistency,
    "lps_cifar_consistency": consistency.lps_cifar_consistency,
    "afc_evaluate": alias_free.evaluate,
    "afc_consistency": alias_free.consistency,
    "afc_fraction": alias_free.fraction,
    "afc_integer": alias_free.integer,
    "afc_full": alias_free.full,
    "afc_integer_rand10": alias_free.integer_rand10,
    "afc_rand_shift": alias_free.rand_shift,
    "afc_crop_shift": alias_free.crop_shift,
    "afc_spatial_grid": spatial_grids.rotation_grid,
    "afc_translation_grid": spatial_grids.translation_grid,
    "aft_cyclic_shift": alias_free_vit.cyclic_shift,
    "aft_cyclic_half_shift": alias_free_vit.cyclic_half_shift,
    "aft_crop_shift": alias_free_vit.crop_shift,
    "aft_bilinear_shift": alias_free_vit.bilinear_shift,
}
# Of the rest, those for CIFAR-10 do not resize, and the others are bicubic.
BILINEAR = (
    "blurpool_consistency",
    "blurpool_diagonal",
    "aps_consistency",
    "lps_consistency",
    "afc_crop_shift",  # of torchvision's Resize, other than that program's usual evaluation
    "afc_spatial_grid",
    "afc_translation_grid",
)


def _interpolation(name: str) -> str:
    if "cifar" in name:
        return ""
    return "bilinear" if name in BILINEAR else "bicubic"


def preset(name: str, setting: Setting, *, paper: bool = False) -> Preset:
    """The metric of that name.

    Raises:
      ConfigError: there is none.
    """
    if name not in PRESETS:
        raise ConfigError(unknown("preset", name, PRESETS))
    found = PRESETS[name](setting, paper)
    return dataclasses.replace(found, interpolation=_interpolation(name)) if paper else found


__all__ = ["PRESETS", "Preset", "Setting", "preset"]

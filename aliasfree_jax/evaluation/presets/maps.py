"""Metrics of networks whose outputs are maps: mASSC of LPS, and the U-Net metrics of APS; see `presets`."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from aliasfree_jax.evaluation.evaluator import Measurement
from aliasfree_jax.evaluation.image_pairs import MeanOf, PsnrChange
from aliasfree_jax.evaluation.measurements import largest_shift
from aliasfree_jax.evaluation.presets import Figure, MakePreset, Preset, PresetConfig, draws, figure
from aliasfree_jax.evaluation.reductions import CONSISTENCY
from aliasfree_jax.evaluation.shift_sets import Grid, ShiftSet, random_integer
from aliasfree_jax.evaluation.shifting import Circular, ZeroFilled

SHIFTS, REACH = 5, 32  # number and largest value of the shifts in LPS's program
# The window of a zero-padded image moves in the opposite direction of its content.
WAYS = {"circular": (Circular(), 1), "linear": (ZeroFilled(), -1)}
# The U-Nets of APS: rolls by -16 to 15 pixels, the range of the rolls in its training.
LOW, HIGH = -16, 16
PSNR_SHIFTS = 10


def lps_massc(config: PresetConfig, paper: bool) -> Preset:
    """Mean average shift consistency of segmentation (mASSC): share of pixels that keep their class.

    The outputs are moved back before the comparison. The original program draws five shifts for each batch,
    from -32 to 32 on each axis, and reports their mean over batches. Its "linear" shifts move the image in a
    border of zeros.

    Source: Zou et al. 2020 (arXiv 2008.09604), as in the code of Rojas-Gomez et al. 2022 (arXiv 2210.08001).

    Args:
      config: Settings; `side` and `seed` are used.
      paper: Whether to compute it exactly as the original.
    """
    wanted, figures = [], dict[str, Figure]()
    for way, (shifting, sign) in WAYS.items():
        name = f"lps_massc_{way}"
        if paper:
            stream = np.random.RandomState(config.seed)
            shifts: ShiftSet | Mapping[str, ShiftSet] = {
                f"shift {i}": draws(stream, -REACH, REACH + 1, 1, sign) for i in range(SHIFTS)
            }
            figures |= {way: _over_shifts(name, np.mean), f"{way}_variance": _over_shifts(name, np.var)}
            wanted.append(Measurement(name, shifts, shifting, (CONSISTENCY,)))
        else:
            reach = largest_shift(REACH, config.side)
            shifts = random_integer(SHIFTS, reach, jax.random.key(config.seed))
            about = f"{SHIFTS} random shifts per image, up to {reach} pixels on each axis, seed {config.seed}"
            wanted.append(Measurement(name, shifts, shifting, about=about))
    return Preset(tuple(wanted), figures)


def _over_shifts(name: str, of: Any) -> Figure:
    """Statistic of the consistencies of the five shifts, in percent."""
    return lambda results: float(of([100 * part["consistency"] for part in results[name]["parts"].values()]))


@dataclass(frozen=True, eq=False)
class _ForEachImage:
    """Draws `count` shifts for one image after the other from a generator of `np.random`."""

    count: int
    stream: np.random.RandomState

    def draw(self, numbers: np.ndarray) -> np.ndarray:
        """See `ShiftSet.draw`."""
        drawn = self.stream.randint(LOW, HIGH, (len(numbers), self.count, 2))
        return Grid(drawn.reshape(-1, 2)).points.reshape(drawn.shape).swapaxes(0, 1)


def _own(count: int, config: PresetConfig, paper: bool) -> ShiftSet:
    if paper:
        return _ForEachImage(count, np.random.RandomState(config.seed))
    return random_integer(count, largest_shift(-LOW, config.side), jax.random.key(config.seed))


def aps_equivariance(name: str, peak: str, config: PresetConfig, paper: bool) -> Preset:
    """NMSE, PSNR and SSIM between the output for a rolled image and the rolled output.

    There is one random roll per image.

    Source: Chaman and Dokmanic 2021, Truly shift-equivariant convolutional neural networks with adaptive
    polyphase upsampling (arXiv 2105.04040).

    Args:
      name: Name of the measurement.
      peak: "": the range is the largest minus the smallest value, as in the original's CT program. "_of_max":
        the range is the largest value, as in its MRI program.
      config: Settings of the preset.
      paper: Whether to compute it exactly as the original.
    """
    columns = {"nmse": "moved_nmse", "psnr": f"moved_psnr{peak}", "ssim": f"moved_ssim{peak}"}
    reductions = tuple(MeanOf(column, f"mean_moved_{short}") for short, column in columns.items())
    figures = {short.upper(): figure(name, f"mean_moved_{short}") for short in columns}
    return Preset((Measurement(name, _own(1, config, paper), reductions=reductions),), figures)


def aps_psnr_shift(config: PresetConfig, paper: bool) -> Preset:
    """Largest change of an image's PSNR under ten random rolls: mean and maximum over images.

    Source: Chaman and Dokmanic 2021 (arXiv 2105.04040).

    Args:
      config: Settings; `side` and `seed` are used.
      paper: Whether to compute it exactly as the original.
    """
    name = "aps_psnr_shift"
    figures = {of: figure(name, "psnr_change", of) for of in ("mean", "max")}
    wanted = Measurement(name, _own(PSNR_SHIFTS, config, paper), reductions=(PsnrChange(),))
    return Preset((wanted,), figures)


OF_SEGMENTATION: dict[str, MakePreset] = {"lps_massc": lps_massc}
OF_REGRESSION: dict[str, MakePreset] = {
    "aps_equivariance": partial(aps_equivariance, "aps_equivariance", ""),
    "aps_equivariance_mri": partial(aps_equivariance, "aps_equivariance_mri", "_of_max"),
    "aps_psnr_shift": aps_psnr_shift,
}

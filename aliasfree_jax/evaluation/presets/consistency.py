"""Consistency of predictions under random shifts: metrics of BlurPool, APS, LPS, AFC and AFT, see `presets`.

As in the original, AFC's fractional shifts move the content up and left, and its rolls down and right.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.evaluation import measurements
from aliasfree_jax.evaluation.evaluator import Measurement
from aliasfree_jax.evaluation.presets import (
    Figure,
    MakePreset,
    Preset,
    PresetConfig,
    accuracies,
    draws,
    figure,
    two_each,
    windows,
)
from aliasfree_jax.evaluation.reductions import (
    ACCURACY,
    CONSISTENCY,
    PAIR_CONSISTENCY,
    TOP5_ACCURACY,
    UNSHIFTED,
    Change,
    MeanOfBatches,
    PerShift,
    Reduction,
)
from aliasfree_jax.evaluation.shift_sets import Grid, Stream
from aliasfree_jax.evaluation.shifting import Circular, Crop, Shifting, ZeroFilled

_STABLE: tuple[Reduction, ...] = (CONSISTENCY, ACCURACY, Change("probability_change"))
_SHIFTS = 8  # shifts per image, in the improved variants of metrics with one random shift
PASSES = 5  # passes of BlurPool's program over the data set
# Kinds of shifts for CIFAR-10, and the sign of the drawn numbers: windows of the zero-padded image move in
# the opposite direction of its content.
CIFAR_WAYS: dict[str, tuple[Shifting, int]] = {"shift": (ZeroFilled(), -1), "circular": (Circular(), 1)}


def blurpool_consistency(config: PresetConfig, paper: bool) -> Preset:
    """Share of images with the same class in two random windows of a larger image.

    The original program draws the windows for each batch, with offsets of 0 to 31, in five passes over the
    data.

    Source: Zhang 2019 (arXiv 1904.11486).

    Args:
      config: Settings; `side`, `seed` and `margin` are used.
      paper: Whether to compute it exactly as the original.
    """
    stream, name = np.random.RandomState(config.seed), "blurpool_consistency"
    passes = {f"pass {i + 1}": windows(stream, config.margin, 2) for i in range(PASSES)}
    shifts = passes if paper else two_each(config, config.margin)

    def consistency(results: Mapping[str, Any]) -> float:
        parts = results[name]["parts"].values()
        return 100 * sum(part["pair_consistency"] for part in parts) / PASSES

    wanted = Measurement(name, shifts, Crop(config.margin), (PAIR_CONSISTENCY,))
    return Preset((wanted,), {"Consistency": consistency}, "bilinear")


def blurpool_diagonal(config: PresetConfig, paper: bool) -> Preset:
    """Probability of the label and accuracy for all 2 margin + 1 windows along the diagonal.

    Source: code of Zhang 2019 (arXiv 1904.11486).

    Args:
      config: Settings; `margin` is used.
      paper: Has no effect: both variants are equal.
    """
    steps, name = config.margin - np.arange(2 * config.margin + 1), "blurpool_diagonal"
    reductions = (ACCURACY, TOP5_ACCURACY, Change("true_probability"), PerShift())
    diagonal = Grid(np.stack([steps, steps], axis=1))
    figures = {
        "Prob": figure(name, "true_probability", "mean", unit=100),
        "Acc@1": figure(name, "accuracy", unit=100),
        "Acc@5": figure(name, "top5_accuracy", unit=100),
    }
    return Preset((Measurement(name, diagonal, Crop(config.margin), reductions),), figures, "bilinear")


def aps_consistency(config: PresetConfig, paper: bool) -> Preset:
    """Share of images with the same class under two random rolls.

    The original program draws the rolls for each batch, from -32 to 31 on each axis.

    Source: Chaman and Dokmanic 2021 (arXiv 2011.14214).

    Args:
      config: Settings; `side` and `seed` are used.
      paper: Whether to compute it exactly as the original.
    """
    stream, name = np.random.RandomState(config.seed), "aps_consistency"
    shifts = draws(stream, -32, 32, 2) if paper else two_each(config, 32)
    figures = {
        "top1": figure(name, "unshifted_accuracy", unit=100),
        "top5": figure(name, "unshifted_top5_accuracy", unit=100),
        "consistency": figure(name, "pair_consistency", unit=100),
    }
    wanted = Measurement(name, shifts, reductions=(PAIR_CONSISTENCY, *UNSHIFTED))
    return Preset((wanted,), figures, "bilinear")


def aps_cifar(name: str, way: str, config: PresetConfig, paper: bool) -> Preset:
    """Share of images with the same class under two random shifts up to 3 pixels.

    The original program draws the shifts for each batch, from -3 to 2 on each axis. It reports the mean of
    the batches' means.

    Source: Chaman and Dokmanic 2021 (arXiv 2011.14214).

    Args:
      name: Name of the measurement.
      way: A key of `CIFAR_WAYS`.
      config: Settings of the preset.
      paper: Whether to compute it exactly as the original.
    """
    shifting, sign = CIFAR_WAYS[way]
    stream, reductions = np.random.RandomState(config.seed), (PAIR_CONSISTENCY, *UNSHIFTED)
    figures = {
        "accuracy": figure(name, "mean_of_batches_unshifted_accuracy"),
        "consistency": figure(name, "mean_of_batches_pair_consistency"),
    }
    if paper:
        shifts, reductions = draws(stream, -3, 3, 2, sign), tuple(map(MeanOfBatches, reductions))
    else:
        shifts = two_each(config, 3)
    return Preset((Measurement(name, shifts, shifting, reductions),), figures)


def lps_consistency(config: PresetConfig, paper: bool) -> Preset:
    """Share of images with the same class in two windows, and under two rolls of the larger image.

    For the rolls the network's input is the whole larger image. In the original program both draw in turn
    from one random generator: offsets of 0 to 31 for the windows, and -32 to 31 on each axis for the rolls.

    Source: Rojas-Gomez et al. 2022 (arXiv 2210.08001).

    Args:
      config: Settings; `side`, `seed` and `margin` are used.
      paper: Whether to compute it exactly as the original.
    """
    stream = np.random.RandomState(config.seed)
    if paper:
        moved, rolled = windows(stream, config.margin, 2), draws(stream, -32, 32, 2)
    else:
        moved, rolled = two_each(config, config.margin), two_each(config, 32)
    wanted = (
        Measurement("lps_shift", moved, Crop(config.margin), (PAIR_CONSISTENCY,)),
        Measurement("lps_circular", rolled, Circular(), (PAIR_CONSISTENCY,)),
    )
    figures = {
        f"test_{way}_consistency": figure(f"lps_{way}", "pair_consistency", unit=100)
        for way in ("shift", "circular")
    }
    return Preset(wanted, figures, "bilinear")


def lps_cifar_consistency(config: PresetConfig, paper: bool) -> Preset:
    """Metric of LPS on CIFAR-10: share of images with the same class under two random shifts up to 3 pixels.

    It is measured for windows of the zero-padded image and for rolls. The results are proportions. The
    original program uses shifts of -3 to 2 pixels. It draws them from torch's generator without a seed, so
    that its draws cannot be reproduced.

    Source: Rojas-Gomez et al. 2022 (arXiv 2210.08001).

    Args:
      config: Settings; `side` and `seed` are used.
      paper: Whether to compute it exactly as the original.
    """
    stream, wanted, figures = np.random.RandomState(config.seed), [], {}
    for way, (shifting, sign) in CIFAR_WAYS.items():
        name = f"lps_cifar_{way}"
        shifts = draws(stream, -3, 3, 2, sign) if paper else two_each(config, 3)
        wanted.append(Measurement(name, shifts, shifting, (PAIR_CONSISTENCY,)))
        figures[f"test_{way}_consistency"] = figure(name, "pair_consistency")
    return Preset(tuple(wanted), figures)


def _degradation(before: Figure, after: Figure) -> Figure:
    """Loss of accuracy in percent of the accuracy `before`."""

    def lost(results: Mapping[str, Any]) -> float:
        first, second = before(results), after(results)
        return 100 * (first - second) / first if first else float("nan")

    return lost


def afc_evaluate(config: PresetConfig, paper: bool) -> Preset:
    """Accuracy, loss, and consistency under random rolls.

    The original program draws one roll for each batch, from -32 to 31 on each axis.

    Source: Michaeli et al. 2023 (arXiv 2303.08085).

    Args:
      config: Settings; `side` and `seed` are used.
      paper: Whether to compute it exactly as the original.
    """
    name = "afc_evaluate"
    if not paper:
        return Preset(
            (measurements.integer_shifts(config.side, shifts=_SHIFTS, max_shift=32, seed=config.seed),)
        )
    shifts = draws(np.random.RandomState(config.seed), -32, 32, 1)
    reductions = (CONSISTENCY, *UNSHIFTED, *map(MeanOfBatches, UNSHIFTED))
    figures = accuracies(name) | {
        "loss": figure(name, "mean_of_batches_unshifted_loss"),
        "consist": figure(name, "consistency", unit=100),
    }
    return Preset((Measurement(name, shifts, reductions=reductions),), figures, "bicubic")


def alias_free_consistency(family: str, config: PresetConfig, paper: bool) -> Preset:
    """Consistency under random rolls and fractional shifts.

    The original program uses one roll for the whole data set, and a shift by half a pixel more. AFT's
    program also reports accuracy and loss of the unshifted images.

    Source: Michaeli et al. 2023 (arXiv 2303.08085); Michaeli and Soudry 2025 (arXiv 2510.22673).

    Args:
      family: "afc" or "aft".
      config: Settings of the preset.
      paper: Whether to compute it exactly as the original.
    """
    if not paper:
        draw = {"shifts": _SHIFTS, "max_shift": 32, "seed": config.seed}
        return Preset(
            (
                measurements.integer_shifts(config.side, **draw),
                measurements.fractional_shifts(config.side, **draw),
            )
        )
    whole, half = f"{family}_shift", f"{family}_sub_pix_shift"
    roll = np.random.RandomState(config.seed).randint(-32, 32, size=2)[None]
    more = () if family == "afc" else tuple(map(MeanOfBatches, UNSHIFTED))
    wanted = (
        Measurement(whole, Grid(roll), reductions=(*_STABLE, *UNSHIFTED, *more)),
        Measurement(half, Grid(-(roll + 0.5)), reductions=_STABLE),
    )
    before = figure(whole, "unshifted_accuracy")
    figures = {
        "shift_consistency": figure(whole, "consistency"),
        "sub_pix_shift_consistency": figure(half, "consistency"),
        "shift_accuracy": figure(whole, "accuracy", unit=100),
        "sub_pix_shift_accuracy": figure(half, "accuracy", unit=100),
        "shift_mac": figure(whole, "probability_change", "mean"),
        "sub_pix_shift_mac": figure(half, "probability_change", "mean"),
        "shift_accuracy_degredation": _degradation(before, figure(whole, "accuracy")),
        "subpix_shift_accuracy_degredation": _degradation(before, figure(half, "accuracy")),
    }
    if more:
        figures |= {"loss": figure(whole, "mean_of_batches_unshifted_loss")} | accuracies(whole)
    return Preset(wanted, figures, "bicubic")


def afc_rand_shift(config: PresetConfig, paper: bool) -> Preset:
    """Consistency under random shifts by fractions of a pixel.

    The original program draws one shift for each batch: on each axis 1 to 31 pixels plus a multiple of
    1/finest, never whole pixels. The improved variant is `measurements.fractional_shifts`.

    Source: Michaeli et al. 2023 (arXiv 2303.08085).

    Args:
      config: Settings; `side`, `seed` and `finest` are used.
      paper: Whether to compute it exactly as the original.

    Raises:
      ConfigError: `config.finest` is below 2.
    """
    name, up = "afc_rand_shift", config.finest
    if up < 2:
        raise ConfigError(
            f"afc_rand_shift: eval.finest_fraction must be at least 2 (1/2 of a pixel), got {up}."
        )
    if not paper:
        return Preset(
            (measurements.fractional_shifts(config.side, shifts=_SHIFTS, max_shift=31, seed=config.seed),)
        )
    stream = np.random.RandomState(config.seed)

    def next_shift() -> np.ndarray:
        whole = stream.randint(1, 32, 2)
        return -((up * whole + stream.randint(1, up, 2)) / up)[None]

    figures = {
        "shift_consistency": figure(name, "consistency", unit=100),
        "shift_accuracy": figure(name, "accuracy", unit=100),
        "shift_mac": figure(name, "probability_change", "mean"),
        "shift_accuracy_degredation": _degradation(
            figure(name, "unshifted_accuracy"), figure(name, "accuracy")
        ),
    }
    wanted = Measurement(name, Stream(1, next_shift), reductions=(*_STABLE, *UNSHIFTED))
    return Preset((wanted,), figures, "bicubic")


PRESETS: dict[str, MakePreset] = {
    "blurpool_consistency": blurpool_consistency,
    "blurpool_diagonal": blurpool_diagonal,
    "aps_consistency": aps_consistency,
    "aps_cifar_circular": partial(aps_cifar, "aps_cifar_circular", "circular"),
    "aps_cifar_crop": partial(aps_cifar, "aps_cifar_crop", "shift"),
    "lps_consistency": lps_consistency,
    "lps_cifar_consistency": lps_cifar_consistency,
    "afc_evaluate": afc_evaluate,
    "afc_consistency": partial(alias_free_consistency, "afc"),
    "afc_rand_shift": afc_rand_shift,
    "aft_consistency": partial(alias_free_consistency, "aft"),
}

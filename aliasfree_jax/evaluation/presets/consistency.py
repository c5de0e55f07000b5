"""Agreement of predictions under random shifts: the metrics of BlurPool, APS and LPS, see `presets`."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from aliasfree_jax.evaluation.evaluator import Measurement
from aliasfree_jax.evaluation.presets.preset import Preset, Setting, draws, two_each, windows
from aliasfree_jax.evaluation.reductions import (
    ACCURACY,
    TOP5_ACCURACY,
    Change,
    MeanOfBatches,
    PerShift,
    SameUnderAll,
    Unshifted,
)
from aliasfree_jax.evaluation.shift_sets import Grid
from aliasfree_jax.evaluation.shifting import Circular, Crop, Shifting, ZeroFilled


def blurpool_consistency(setting: Setting, paper: bool = False) -> Preset:
    """Agreement of two random windows of a larger image; the original: of a batch, in five passes."""
    way, reductions, passes = Crop(setting.margin), (SameUnderAll(),), 5
    if not paper:
        return Preset(
            (Measurement("blurpool_consistency", two_each(setting, setting.margin), way, reductions),)
        )
    stream = np.random.RandomState(setting.seed)
    sets = {f"pass {i + 1}": windows(stream, setting.margin, 2) for i in range(passes)}

    def published(results: Mapping[str, Any]) -> dict[str, float]:
        parts = results["blurpool_consistency"]["parts"].values()
        return {"Consistency": 100 * sum(part["pair_consistency"] for part in parts) / passes}

    return Preset((Measurement("blurpool_consistency", sets, way, reductions),), published)


def blurpool_diagonal(setting: Setting, paper: bool = False) -> Preset:
    """Windows along the diagonal, all 2 margin + 1 of them: probability of the label, accuracy."""
    steps = setting.margin - np.arange(2 * setting.margin + 1)
    reductions = (ACCURACY, TOP5_ACCURACY, Change("true_probability"), PerShift())
    diagonal = Grid(np.stack([steps, steps], axis=1))

    def published(results: Mapping[str, Any]) -> dict[str, float]:
        found = results["blurpool_diagonal"]
        return {
            "Prob": 100 * found["true_probability"]["mean"],
            "Acc@1": 100 * found["accuracy"],
            "Acc@5": 100 * found["top5_accuracy"],
        }

    wanted = (Measurement("blurpool_diagonal", diagonal, Crop(setting.margin), reductions),)
    return Preset(wanted, published) if paper else Preset(wanted)


def aps_consistency(setting: Setting, paper: bool = False) -> Preset:
    """Agreement of two random rolls; the original: of a batch, each axis -32 ... 31."""
    reductions = (SameUnderAll(), Unshifted())
    if not paper:
        return Preset((Measurement("aps_consistency", two_each(setting, 32), reductions=reductions),))
    shifts = draws(np.random.RandomState(setting.seed), -32, 32, 2)

    def published(results: Mapping[str, Any]) -> dict[str, float]:
        found = results["aps_consistency"]
        return {
            "top1": 100 * found["unshifted_accuracy"],
            "top5": 100 * found["unshifted_top5_accuracy"],
            "consistency": 100 * found["pair_consistency"],
        }

    return Preset((Measurement("aps_consistency", shifts, reductions=reductions),), published)


def _cifar(name: str, shifting: Shifting, sign: int, setting: Setting, paper: bool) -> Preset:
    """Agreement of two shifts of -3 ... 2 pixels; the originals' is the mean of the batches' means."""
    if not paper:
        return Preset((Measurement(name, two_each(setting, 3), shifting, (SameUnderAll(), Unshifted())),))
    shifts = draws(np.random.RandomState(setting.seed), -3, 3, 2, sign)
    reductions = (MeanOfBatches(SameUnderAll()), MeanOfBatches(Unshifted()))

    def published(results: Mapping[str, Any]) -> dict[str, float]:
        found = results[name]
        return {
            "accuracy": found["mean_of_batches_unshifted_accuracy"],
            "consistency": found["mean_of_batches_pair_consistency"],
        }

    return Preset((Measurement(name, shifts, shifting, reductions),), published)


def aps_cifar_circular(setting: Setting, paper: bool = False) -> Preset:
    """APS's test of its circular CIFAR-10 networks."""
    return _cifar("aps_cifar_circular", Circular(), 1, setting, paper)


def aps_cifar_crop(setting: Setting, paper: bool = False) -> Preset:
    """APS's test of its zero-padded CIFAR-10 networks: windows of the zero-padded image."""
    return _cifar("aps_cifar_crop", ZeroFilled(), -1, setting, paper)


def lps_consistency(setting: Setting, paper: bool = False) -> Preset:
    """Agreement of two windows, and of two rolls of the larger image, which draw in turn from one stream."""
    names, reductions = ("shift", "circular"), (SameUnderAll(),)
    stream = np.random.RandomState(setting.seed)
    if paper:
        sets = (windows(stream, setting.margin, 2), draws(stream, -32, 32, 2))
    else:
        sets = (two_each(setting, setting.margin), two_each(setting, 32))
    ways: tuple[Shifting, ...] = (
        Crop(setting.margin),
        Circular(),
    )  # the rolls are of the larger image, and the network's input too
    wanted = tuple(
        Measurement(f"lps_{name}", shifts, way, reductions)
        for name, shifts, way in zip(names, sets, ways, strict=True)
    )

    def published(results: Mapping[str, Any]) -> dict[str, float]:
        keys = {"lps_shift": "test_shift_consistency", "lps_circular": "test_circular_consistency"}
        return {key: 100 * results[name]["pair_consistency"] for name, key in keys.items()}

    return Preset(wanted, published) if paper else Preset(wanted)


def lps_cifar_consistency(setting: Setting, paper: bool = False) -> Preset:
    """The same on CIFAR-10: -3 ... 2 pixels, windows of the zero-padded image; shares.

    The original draws from torch's generator, whose numbers are not reproduced.
    """
    stream = np.random.RandomState(setting.seed)
    ways: dict[str, tuple[Shifting, int]] = {"shift": (ZeroFilled(), -1), "circular": (Circular(), 1)}
    wanted = tuple(
        Measurement(
            f"lps_cifar_{name}",
            draws(stream, -3, 3, 2, sign) if paper else two_each(setting, 3),
            way,
            (SameUnderAll(),),
        )
        for name, (way, sign) in ways.items()
    )

    def published(results: Mapping[str, Any]) -> dict[str, float]:
        return {f"test_{n}_consistency": results[f"lps_cifar_{n}"]["pair_consistency"] for n in ways}

    return Preset(wanted, published) if paper else Preset(wanted)

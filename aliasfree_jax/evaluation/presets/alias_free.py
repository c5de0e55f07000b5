"""The metrics of Alias-Free ConvNets (Michaeli et al., CVPR 2023), see `presets`.

The original's fractional shifts move the content up and left, its rolls down and right; that is kept.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.evaluation import measurements as sane
from aliasfree_jax.evaluation.evaluator import Measurement
from aliasfree_jax.evaluation.presets.preset import Preset, Setting, draws
from aliasfree_jax.evaluation.reductions import (
    ACCURACY,
    CONSISTENCY,
    Change,
    MeanOfBatches,
    Reduction,
    Unshifted,
    WorstCase,
)
from aliasfree_jax.evaluation.shift_sets import Grid, Stream, product, random_integer, square
from aliasfree_jax.evaluation.shifting import Crop

_WORST: tuple[Reduction, ...] = (WorstCase(),)
_STABLE: tuple[Reduction, ...] = (CONSISTENCY, ACCURACY, Change("probability_change"))
_SHIFTS = 8  # of every image, in the sane variants of metrics with one random shift
WHOLE = np.arange(1, 32)  # the original's rolls: fixed, and none along one axis only


def _degradation(before: float, after: float) -> float:
    return 100 * (before - after) / before if before else float("nan")


def evaluate(setting: Setting, paper: bool = False) -> Preset:
    """Accuracy, loss, and agreement with one random roll; the original: of a batch, each axis -32 ... 31."""
    if not paper:
        draw = {"shifts": _SHIFTS, "max_shift": 32, "seed": setting.seed}
        return Preset((sane.integer_shifts(setting.side, **draw),))
    shifts = draws(np.random.RandomState(setting.seed), -32, 32, 1)
    reductions = (CONSISTENCY, Unshifted(), MeanOfBatches(Unshifted()))

    def published(results: Mapping[str, Any]) -> dict[str, float]:
        found = results["afc_evaluate"]
        return {
            "acc1": 100 * found["unshifted_accuracy"],
            "acc5": 100 * found["unshifted_top5_accuracy"],
            "loss": found["mean_of_batches_unshifted_loss"],
            "consist": 100 * found["consistency"],
        }

    return Preset((Measurement("afc_evaluate", shifts, reductions=reductions),), published)


def consistency(setting: Setting, paper: bool = False) -> Preset:
    """Random rolls and fractional shifts; the original: one roll for the whole set, and half a pixel more."""
    if not paper:
        draw = {"shifts": _SHIFTS, "max_shift": 32, "seed": setting.seed}
        return Preset(
            (sane.integer_shifts(setting.side, **draw), sane.fractional_shifts(setting.side, **draw))
        )
    roll = np.random.RandomState(setting.seed).randint(-32, 32, size=2)[None]
    wanted = (
        Measurement("afc_shift", Grid(roll), reductions=(*_STABLE, Unshifted())),
        Measurement("afc_sub_pix_shift", Grid(-(roll + 0.5)), reductions=_STABLE),
    )

    def published(results: Mapping[str, Any]) -> dict[str, float]:
        whole, half = results["afc_shift"], results["afc_sub_pix_shift"]
        before = whole["unshifted_accuracy"]
        return {
            "shift_consistency": whole["consistency"],
            "sub_pix_shift_consistency": half["consistency"],
            "shift_accuracy": 100 * whole["accuracy"],
            "sub_pix_shift_accuracy": 100 * half["accuracy"],
            "shift_mac": whole["probability_change"]["mean"],
            "sub_pix_shift_mac": half["probability_change"]["mean"],
            "shift_accuracy_degredation": _degradation(before, whole["accuracy"]),
            "subpix_shift_accuracy_degredation": _degradation(before, half["accuracy"]),
        }

    return Preset(wanted, published)


def fraction(setting: Setting, paper: bool = False) -> Preset:
    """Worst case over fractions of a pixel; the original leaves shifts along one axis out."""
    if not paper:
        return Preset((sane.adversarial_fraction(setting.finest),))
    sets = {}
    for n in sane.distinct_factors(setting.finest):
        part = np.arange(1, n)
        sets[f"1/{n}"] = Grid(-product(part, part) / n)

    def published(results: Mapping[str, Any]) -> dict[str, float]:
        return {"sub_shift_robust_score": results["afc_fraction"]["worst_case_accuracy"]}

    return Preset((Measurement("afc_fraction", sets, reductions=_WORST),), published)


def integer(setting: Setting, paper: bool = False) -> Preset:
    """Worst case over rolls; the original: 1 ... 31 on both axes."""
    if not paper:
        return Preset((sane.adversarial_integer(setting.side, setting.radius),))

    def published(results: Mapping[str, Any]) -> dict[str, float]:
        return {"full_adversarial_shift_robust_score": results["afc_integer"]["worst_case_accuracy"]}

    return Preset((Measurement("afc_integer", Grid(product(WHOLE, WHOLE)), reductions=_WORST),), published)


def full(setting: Setting, paper: bool = False) -> Preset:
    """Worst case over rolls and half pixels; the original: 1 ... 31, and half a pixel less, on both axes."""
    side, radius = setting.side, setting.radius
    if not paper:
        return Preset((sane.adversarial_integer(side, radius), sane.adversarial_half(side, radius)))
    rolls = product(WHOLE, WHOLE)
    sets = {"integer": Grid(rolls), "half": Grid(-(rolls - 0.5))}

    def published(results: Mapping[str, Any]) -> dict[str, float]:
        total, parts = results["afc_full"], results["afc_full"]["parts"]
        scores = {
            "shift_robust_score": parts["integer"],
            "sub_shift_robust_score": parts["half"],
            "total_robust_score": total,
        }
        return {f"full_adversarial_{name}": part["worst_case_accuracy"] for name, part in scores.items()}

    return Preset((Measurement("afc_full", sets, reductions=_WORST),), published)


def integer_rand10(setting: Setting, paper: bool = False) -> Preset:
    """Worst case over ten random rolls; the original: of a batch, 1 ... 31 on both axes."""
    name, count = "afc_integer_rand10", 10
    if not paper:
        most = sane.largest_shift(31, setting.side)
        shifts = random_integer(count, most, jax.random.key(setting.seed))
        return Preset((Measurement(name, shifts, reductions=_WORST),))
    ten = draws(np.random.RandomState(setting.seed), 1, 32, count)

    def published(results: Mapping[str, Any]) -> dict[str, float]:
        return {"full_adversarial_shift_robust_score": results[name]["worst_case_accuracy"]}

    return Preset((Measurement(name, ten, reductions=_WORST),), published)


def rand_shift(setting: Setting, paper: bool = False) -> Preset:
    """Random shifts by multiples of 1/finest of a pixel; the original: of a batch, no whole pixels.

    `finest` 0 are whole pixels. The original crashes at 1, which is an error here.
    """
    up, draw = setting.finest, {"shifts": _SHIFTS, "max_shift": 31, "seed": setting.seed}
    if up == 1:
        raise ConfigError("afc_rand_shift: fractions are 1/2 of a pixel or finer; 0 shifts by whole pixels.")
    if not paper:
        make = sane.fractional_shifts if up else sane.integer_shifts
        return Preset((make(setting.side, **draw),))
    stream = np.random.RandomState(setting.seed)

    def next_shift() -> np.ndarray:
        whole = stream.randint(1, 32, 2)
        return -((up * whole + stream.randint(1, up, 2)) / up if up else whole)[None]

    def published(results: Mapping[str, Any]) -> dict[str, float]:
        found = results["afc_rand_shift"]
        return {
            "shift_consistency": 100 * found["consistency"],
            "shift_accuracy": 100 * found["accuracy"],
            "shift_mac": found["probability_change"]["mean"],
            "shift_accuracy_degredation": _degradation(found["unshifted_accuracy"], found["accuracy"]),
        }

    reductions = (*_STABLE, Unshifted())
    wanted = Measurement("afc_rand_shift", Stream(1, next_shift), reductions=reductions)
    return Preset((wanted,), published)


def crop_shift(setting: Setting, paper: bool = False) -> Preset:
    """Worst case over all windows of a larger image; the original leaves offset 0 out."""
    margin = setting.margin
    name, way = "afc_crop_shift", Crop(margin)
    if not paper:
        return Preset((Measurement(name, square(margin), way, _WORST),))
    offsets = margin - product(*(np.arange(1, 2 * margin + 1),) * 2)

    def published(results: Mapping[str, Any]) -> dict[str, float]:
        return {"adversarial_crop_shift_shift_robust_score": 100 * results[name]["worst_case_accuracy"]}

    return Preset((Measurement(name, Grid(offsets), way, _WORST),), published)

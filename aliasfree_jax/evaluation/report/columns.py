"""What a table has of results: its columns and their explanations, and the results of unshifted images."""

from collections.abc import Callable, Mapping
from typing import Any

from aliasfree_jax.evaluation.equivariance import NO_DIFFERENCE


def percent(share: float) -> str:
    """Two decimals; 100.00% only where there is no exception at all."""
    return f"{share if share == 1 else min(share, 0.9999):.2%}"


Text = Callable[[Any], str]


def decibels(value: float) -> str:
    """One decimal; "none" for no difference at all."""
    return "none" if abs(value) >= -NO_DIFFERENCE else f"{value:.1f} dB"


def _exponent(statistic: str) -> Text:
    return lambda change: f"{change[statistic]:.1e}"


# What there is of unshifted images, by task: key of the result, in words, and its value as text. The first of
# a task tells results of that task.
OVERALL: dict[str, tuple[tuple[str, str, Text], ...]] = {
    "classification": (("accuracy", "accuracy", percent),),
    "segmentation": (("mean_iou", "mean IoU", percent), ("pixel_accuracy", "pixel accuracy", percent)),
    "regression": (
        ("psnr", "PSNR", decibels),
        ("ssim", "SSIM", lambda value: f"{value:.4f}"),
        ("nmse", "NMSE", lambda value: f"{value:.3g}"),
    ),
}


def task_of(results: Mapping[str, Any]) -> str:
    """The task that results are of; "" if they are no results."""
    return next((task for task, ((key, *_), *_) in OVERALL.items() if key in results), "")


def overall(results: Mapping[str, Any]) -> dict[str, str]:
    """What there is of the unshifted images, in words."""
    return {words: text(results[key]) for key, words, text in OVERALL[task_of(results)]}


# Heading, key of the result it stands for, and that as text.
COLUMNS: tuple[tuple[str, str, Text], ...] = (
    ("pairs", "pairs", str),
    ("consistency", "consistency", percent),
    ("two agree", "pair_consistency", percent),
    ("lowest", "worst_consistency", percent),
    ("accuracy", "accuracy", percent),
    ("worst case", "worst_case_accuracy", percent),
    ("mean IoU", "mean_iou", percent),
    ("error", "equivariance_db", decibels),
    ("worst error", "worst_equivariance_db", decibels),
    ("PSNR", "psnr", decibels),
    ("PSNR change", "psnr_change", lambda change: f"{change['mean']:.2f} dB"),
    ("PSNR of shift", "moved_psnr", decibels),
    ("NMSE of shift", "mean_moved_nmse", lambda value: f"{value:.2e}"),
    ("SSIM of shift", "mean_moved_ssim", lambda value: f"{value:.4f}"),
    ("mean PSNR of shift", "mean_moved_psnr", decibels),
    ("attacked", "attacked_accuracy", percent),
    ("mean dp", "probability_change", _exponent("mean")),
    ("max dp", "probability_change", _exponent("max")),
    ("mean dz", "logit_change", _exponent("mean")),
    ("max dz", "logit_change", _exponent("max")),
)
NOTES = {
    "consistency": "consistency: share of (image, shift) pairs whose class is that of the unshifted image.",
    "worst_consistency": "lowest: the mean over images of the least consistent shift.",
    "pair_consistency": "two agree: share of images with the same class under all their shifts.",
    "accuracy": "accuracy: of the shifted images.",
    "worst_case_accuracy": "worst case: right unshifted and under all shifts of the row.",
    "attacked_accuracy": "attacked: under the first wrong shift, if its loss is larger than without a shift.",
    "probability_change": "dp: change of the predicted class's probability.",
    "logit_change": "dz: max |z(shifted) - z| / max |z| of the logits z.",
    "equivariance_db": "error: 10 log10 of |f(shifted x) - shifted f(x)|^2 / |f(x)|^2, summed over all "
    "pairs; more negative is better; none: bit for bit the same.",
    "worst_equivariance_db": "worst error: of one pair.",
    "psnr": "PSNR: of the shifted image's output, moved back, against the target.",
    "psnr_change": "PSNR change: the largest of an image's PSNR over its shifts, mean over images.",
    "moved_psnr": "PSNR of shift: of the mean error of the shifted image's output to the shifted output.",
    "mean_moved_psnr": "... of shift: of the shifted image's output against the shifted output.",
}
# Of pixels the same words mean something else.
NOTES_OF_PIXELS = NOTES | {
    "consistency": "consistency: share of pixels whose class is that of the unshifted image, moved along.",
    "accuracy": "accuracy, mean IoU: of the pixels of the shifted images, moved back.",
    "worst_case_accuracy": "worst case: the mean over images of the lowest pixel accuracy under a shift.",
}

"""Columns of the tables of results, their explanations, and the results of unshifted images."""

from collections.abc import Callable, Mapping
from typing import Any

from aliasfree_jax.evaluation.equivariance import NO_DIFFERENCE


def percent(share: float) -> str:
    """Formats a share with two decimals. Only a share of exactly 1 is shown as 100.00%."""
    return f"{share if share == 1 else min(share, 0.9999):.2%}"


Text = Callable[[Any], str]


def decibels(value: float) -> str:
    """Formats decibels with one decimal; "none" if there is no difference at all."""
    return "none" if abs(value) >= -NO_DIFFERENCE else f"{value:.1f} dB"


def _exponent(statistic: str) -> Text:
    return lambda change: f"{change[statistic]:.1e}"


# Results of unshifted images by task: key of the result, its name, and the format of its value. The first key
# of a task identifies results of this task.
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
    """The task of results; "" if they are not results of an evaluation."""
    return next((task for task, ((key, *_), *_) in OVERALL.items() if key in results), "")


def overall(results: Mapping[str, Any]) -> dict[str, str]:
    """The results of the unshifted images as text, by name."""
    return {words: text(results[key]) for key, words, text in OVERALL[task_of(results)]}


# Heading of a column, key of its result, and the format of its value.
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
    "consistency": "consistency: share of (image, shift) pairs with the class of the unshifted image.",
    "worst_consistency": "lowest: lowest consistency over the shifts of an image, mean over images.",
    "pair_consistency": "two agree: share of images with the same class under all their shifts.",
    "accuracy": "accuracy: accuracy of the shifted images.",
    "worst_case_accuracy": "worst case: share of images that are correct unshifted and under all shifts.",
    "attacked_accuracy": "attacked: accuracy under the first shift with a wrong class; the unshifted image "
    "counts if its loss is not smaller.",
    "probability_change": "dp: change of the predicted class's probability.",
    "logit_change": "dz: max |z(shifted) - z| / max |z| of the logits z.",
    "equivariance_db": "error: 10 log10 of |f(shifted x) - shifted f(x)|^2 / |f(x)|^2, summed over all "
    "pairs; smaller is better; none: the two are equal bit for bit.",
    "worst_equivariance_db": "worst error: largest error of one pair.",
    "psnr": "PSNR: compares the output for the shifted image, moved back, with the target.",
    "psnr_change": "PSNR change: largest change of an image's PSNR over its shifts, mean over images.",
    "moved_psnr": "PSNR of shift: compares the output for the shifted image with the shifted output; mean "
    "of the squared errors.",
    "mean_moved_psnr": "... of shift: compares the output for the shifted image with the shifted output.",
}
# For segmentation some columns have another meaning.
NOTES_OF_PIXELS = NOTES | {
    "consistency": "consistency: share of pixels with the class of the unshifted image's output, shifted.",
    "accuracy": "accuracy, mean IoU: results of the outputs for shifted images, moved back.",
    "worst_case_accuracy": "worst case: lowest pixel accuracy over the shifts of an image, mean over images.",
}

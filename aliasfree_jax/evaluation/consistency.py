"""Accuracy and stability of a classifier under circular shifts, for any `predict(images) -> logits`.

Shifted and unshifted images go through the very same compiled function, in batches of the same
size, so that a difference comes from the network and not from the compiler. Predictions are compared
on the host in float64; ratios are formed once, at the end; padding (mask 0) never counts.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.errors import AliasFreeError, ConfigError, DataError, ShapeError
from aliasfree_jax.evaluation.shifts import GRIDS, fractional_shifts, integer_shifts, shift_images

Batch = Mapping[str, Any]
Predict = Callable[[jax.Array], Any]


class Comparison(NamedTuple):
    """Predictions for a batch and for its shifted copy, image by image: arrays [B]."""

    unchanged: np.ndarray  # same class
    correct: np.ndarray  # class of the shifted image is the label
    probability_change: np.ndarray  # |p(shifted) - p|, p: probability of the unshifted image's class
    logit_change: np.ndarray  # max |z(shifted) - z| / max |z|, over classes


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def compare(reference: np.ndarray, shifted: np.ndarray, label: np.ndarray) -> Comparison:
    """Compares the logits [B, K] of shifted images with those of the unshifted ones."""
    predicted = reference.argmax(-1)
    rows = np.arange(len(reference))
    change = np.abs(_softmax(shifted)[rows, predicted] - _softmax(reference)[rows, predicted])
    largest = np.maximum(np.abs(reference).max(-1), np.finfo(np.float32).tiny)  # all logits may be 0
    return Comparison(
        unchanged=shifted.argmax(-1) == predicted,
        correct=shifted.argmax(-1) == label,
        probability_change=change,
        logit_change=np.abs(shifted - reference).max(-1) / largest,
    )


@dataclass
class Tally:
    """Sums over (image, shift) pairs."""

    pairs: int = 0
    unchanged: int = 0
    correct: int = 0
    probability_sum: float = 0.0
    probability_max: float = 0.0
    logit_sum: float = 0.0
    logit_max: float = 0.0

    def add(self, comparison: Comparison, mask: np.ndarray) -> None:
        """Counts the images of a batch where the boolean `mask` [B] is set."""
        unchanged, correct, probability, logit = (array[mask] for array in comparison)
        self.pairs += int(mask.sum())
        self.unchanged += int(unchanged.sum())
        self.correct += int(correct.sum())
        self.probability_sum += float(probability.sum())
        self.logit_sum += float(logit.sum())
        self.probability_max = max(self.probability_max, float(probability.max(initial=0.0)))
        self.logit_max = max(self.logit_max, float(logit.max(initial=0.0)))

    def summary(self) -> dict[str, Any]:
        """Shares in [0, 1], means and largest values, ready for JSON."""
        return {
            "pairs": self.pairs,
            "consistency": self.unchanged / self.pairs,
            "accuracy": self.correct / self.pairs,
            "probability_change": {"mean": self.probability_sum / self.pairs, "max": self.probability_max},
            "logit_change": {"mean": self.logit_sum / self.pairs, "max": self.logit_max},
        }


def _logits(raw: Any, batch: int) -> np.ndarray:
    logits = np.asarray(raw, np.float64)
    if logits.ndim != 2 or logits.shape[0] != batch:
        raise ShapeError(f"expected logits [{batch}, classes], got shape {list(logits.shape)}.")
    if not np.isfinite(logits).all():
        bad = int((~np.isfinite(logits).all(-1)).sum())
        raise AliasFreeError(
            f"the logits of {bad} of {batch} images are not finite: the network is unusable."
        )
    return logits


def largest_shift(max_shift: int, shape: tuple[int, ...]) -> int:
    """`max_shift`, or the shorter side of images [N, H, W, C] less one pixel if that is smaller.

    A circular shift by a whole side is no shift.
    """
    return min(max_shift, min(shape[1:3]) - 1)


class _Draws:
    """The shifts of one kind ("integer" or "fractional") and what they changed, over all batches."""

    def __init__(self, kind: str, shifts: int, max_shift: int, seed: int) -> None:
        grids = ["integer"] if kind == "integer" else [*GRIDS]
        self.kind, self.max_shift = kind, max_shift
        # Fractional shifts take turns on the grids: the cost is that of `shifts` integer ones.
        self.counts = {grid: len(range(i, shifts, len(grids))) for i, grid in enumerate(grids) if i < shifts}
        key = jax.random.fold_in(jax.random.key(seed), ("integer", "fractional").index(kind))
        self.keys = {grid: jax.random.fold_in(key, i) for i, grid in enumerate(grids)}
        self.tallies = {grid: Tally() for grid in self.counts}
        self.total, self.worst = Tally(), 0

    def shifted(self, images: jax.Array, first: int) -> Iterator[tuple[str, jax.Array]]:
        """Yields (grid, images shifted by the next draw); `first` is the number of the first image."""
        batch = images.shape[0]
        self.max_shift = largest_shift(self.max_shift, images.shape)
        for grid, count in self.counts.items():
            if grid == "integer":
                drawn = integer_shifts(self.keys[grid], count, batch, self.max_shift, first)
            else:
                drawn = fractional_shifts(self.keys[grid], count, batch, self.max_shift, GRIDS[grid], first)
            for shift in np.asarray(drawn):
                yield grid, shift_images(images, shift)

    def summary(self, images: int) -> dict[str, Any]:
        """Results over all shifts of the kind, then by grid."""
        result = self.total.summary() | {
            "worst_case_accuracy": self.worst / images,
            "max_shift": self.max_shift,
        }
        if self.kind == "fractional":
            result["grids"] = {grid: tally.summary() for grid, tally in self.tallies.items()}
        return result


def _count_batch(predict: Predict, batch: Batch, kinds: list[_Draws], first: int) -> tuple[int, int]:
    """Adds a batch to the tallies of all `kinds`; returns (images, correct ones), padding left out."""
    images, label = jnp.asarray(batch["image"]), np.asarray(batch["label"])
    mask = np.asarray(batch["mask"]) > 0
    size = images.shape[0]
    reference = _logits(predict(images), size)
    hit = (reference.argmax(-1) == label) & mask
    for draws in kinds:
        always = hit.copy()
        # All predictions are under way before the first is read: the host works beside the device.
        under_way = [(grid, predict(shifted)) for grid, shifted in draws.shifted(images, first)]
        for grid, raw in under_way:
            comparison = compare(reference, _logits(raw, size), label)
            draws.tallies[grid].add(comparison, mask)
            draws.total.add(comparison, mask)
            always &= comparison.correct
        draws.worst += int(always.sum())
    return int(mask.sum()), int(hit.sum())


def evaluate(
    predict: Predict,
    batches: Iterable[Batch],
    *,
    integer: bool = False,
    fractional: bool = False,
    shifts: int = 8,
    max_shift: int = 32,
    seed: int = 0,
) -> dict[str, Any]:
    """Measures accuracy and, for the kinds asked for, what random circular shifts change.

    Args:
      predict: images [B, H, W, C] to logits [B, K]; compile it beforehand (`jax.jit`). It may also
        be a function of another library that takes and returns numpy arrays.
      batches: dictionaries image [B, H, W, C], label [B], mask [B] (0 = padding); read once. Images may
        lie on devices (`training.mesh.evaluated_batches`); they are shifted there.
      integer: shift by whole pixels (`shifts.integer_shifts`).
      fractional: shift by fractions of a pixel (`shifts.fractional_shifts`): the draws take turns on
        halves, thirds, quarters and real numbers.
      shifts: draws an image and kind.
      max_shift: pixels, whole part; reduced to `largest_shift`.
      seed: of the draws.

    Returns:
      {"images", "accuracy"} and for each kind {"pairs", "consistency": share of (image, shift) pairs
      whose class is that of the unshifted image, "accuracy": of the shifted images,
      "worst_case_accuracy": share of images that are right unshifted and under all their shifts,
      "probability_change" and "logit_change": {"mean", "max"}, see `Comparison`, "max_shift": as
      used}, for fractional shifts also {"grids": the same by grid}. Shares are in [0, 1].

    Raises:
      AliasFreeError: logits that are not finite.
      ConfigError: shifts below 1, or max_shift below 1 for integer shifts.
      DataError: no image in `batches`.
    """
    if shifts < 1:
        raise ConfigError(f"shifts must be at least 1 an image, got {shifts}.")
    wanted = [kind for kind, on in (("integer", integer), ("fractional", fractional)) if on]
    kinds = [_Draws(kind, shifts, max_shift, seed) for kind in wanted]
    images, correct, first = 0, 0, 0
    for batch in batches:
        counted, hits = _count_batch(predict, batch, kinds, first)
        images, correct, first = images + counted, correct + hits, first + len(batch["label"])
    if not images:
        raise DataError("there is no image to evaluate: check data.eval_split and data.eval_limit.")
    return {"images": images, "accuracy": correct / images} | {
        draws.kind: draws.summary(images) for draws in kinds
    }

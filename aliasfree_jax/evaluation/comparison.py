"""What a shift changed, pair by pair: outputs of shifted images beside those of the unshifted ones.

Logits and features are compared on the host in float64, so that changes of the size of float32 rounding are
seen as such. Outputs that are maps: `pixel_classes`, `image_pairs`.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.errors import AliasFreeError, ConfigError, DataError, ShapeError
from aliasfree_jax.evaluation.reductions import STABILITY, Change, Mean, Reduction
from aliasfree_jax.evaluation.shifting import Shifting
from aliasfree_jax.evaluation.table import Columns
from aliasfree_jax.ops.resample import ideal_resample
from aliasfree_jax.ops.shift import fractional_shift


class Reference(NamedTuple):
    """What the outputs for shifted images are compared with: outputs and labels of the unshifted [B, ...]."""

    outputs: Any
    label: Any


class Comparison:
    """What is asked of the outputs of a network; injected into `evaluator.evaluate`.

    Attributes:
      overall: results of the unshifted images.
      of_shifts: what shifts are measured by where nothing else is asked for.
    """

    overall: tuple[Reduction, ...] = ()
    of_shifts: tuple[Reduction, ...] = ()

    def reference(self, outputs: Any, label: np.ndarray, shifting: Shifting) -> Reference:
        """From the outputs for the unshifted view of a batch, and the batch's labels."""
        return Reference(np.asarray(outputs, np.float64), label)

    def __call__(
        self, reference: Reference, rows: np.ndarray, outputs: Any, where: np.ndarray, shifting: Shifting
    ) -> Columns:
        """Compares pairs of image and shift.

        Args:
          reference: of the batch.
          rows: [n], the pairs' images, as positions in the batch.
          outputs: [B, ...] for the shifted images: the first n are those of the pairs.
          where: [n, parameters], the shifts.
          shifting: how images moved.
        """
        raise NotImplementedError


def filled(rows: np.ndarray, where: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """`rows` [n] and shifts `where` [n, parameters], both filled up with zeros to `size`."""
    filling = size - len(rows)
    rows = np.concatenate([rows, np.zeros(filling, rows.dtype)]).astype(np.int32)
    return rows, np.concatenate([where, np.zeros((filling, where.shape[1]), where.dtype)])


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def check_logits(raw: Any, batch: int) -> np.ndarray:
    """`raw` as float64 [batch, K].

    Raises:
      ShapeError: another shape.
      AliasFreeError: numbers that are not finite.
    """
    logits = np.asarray(raw, np.float64)
    if logits.ndim != 2 or logits.shape[0] != batch:
        raise ShapeError(f"expected logits [{batch}, classes], got shape {list(logits.shape)}.")
    check_finite(_finite(logits), "logits")
    return logits


def _finite(outputs: np.ndarray) -> np.ndarray:
    return np.isfinite(outputs).reshape(len(outputs), -1).all(-1)


def check_finite(finite: np.ndarray, name: str) -> None:
    """Raises `AliasFreeError` unless the outputs of all images are finite, [n]; `name` says what they are."""
    if not finite.all():
        raise AliasFreeError(
            f"the {name} of {int((~finite).sum())} of {len(finite)} images are not finite: "
            "the network is unusable."
        )


def compare_logits(reference: np.ndarray, logits: np.ndarray, label: np.ndarray) -> Columns:
    """Compares logits [n, K] of shifted images with those of the unshifted ones, [n, K].

    Returns:
      predicted: class of the shifted image; unchanged: it is that of the unshifted one; correct, in_top5:
      the label is the first, one of the first five; probability_change: |p(shifted) - p|, p the probability
      of the unshifted image's class; logit_change: max |z(shifted) - z| / max |z| over classes;
      true_probability and loss: of the label, shifted; margin: its logit less the largest other one.

    Raises:
      ShapeError, AliasFreeError: see `check_logits`.
      DataError: a label that the network has no logit for.
    """
    logits, rows = check_logits(logits, len(label)), np.arange(len(label))
    if label.size and not 0 <= label.min() <= label.max() < logits.shape[1]:
        raise DataError(
            f"labels reach from {label.min()} to {label.max()}, but the network has {logits.shape[1]} "
            "classes: check that the class folders or the label file are those that it was trained on."
        )
    predicted, before = logits.argmax(-1), reference.argmax(-1)
    probability = _softmax(logits)
    of_label = logits[rows, label]
    others = logits.copy()
    others[rows, label] = -np.inf
    largest = np.maximum(np.abs(reference).max(-1), np.finfo(np.float32).tiny)  # all logits may be 0
    true_probability = probability[rows, label]
    return {
        "predicted": predicted,
        "unchanged": predicted == before,
        "correct": predicted == label,
        "in_top5": (logits > of_label[:, None]).sum(-1) < 5,
        "probability_change": np.abs(probability[rows, before] - _softmax(reference)[rows, before]),
        "logit_change": np.abs(logits - reference).max(-1) / largest,
        "true_probability": true_probability,
        "loss": -np.log(np.maximum(true_probability, np.finfo(np.float64).tiny)),
        "margin": of_label - others.max(-1),
    }


class CompareLogits(Comparison):
    """Classes of images, see `compare_logits`."""

    overall = (Mean("accuracy", lambda table: table.still["correct"]),)
    of_shifts = STABILITY

    def __call__(
        self, reference: Reference, rows: np.ndarray, outputs: Any, where: np.ndarray, shifting: Shifting
    ) -> Columns:
        """See `Comparison`."""
        found = np.asarray(outputs)[: len(rows)]
        return compare_logits(reference.outputs[rows], found, reference.label[rows])


@dataclass(frozen=True)
class CompareFeatures(Comparison):
    """Compares feature maps [n, h, w, C] after undoing the shift, or feature vectors [n, C] as they are.

    As in the demonstration of alias_free_convnets: maps are enlarged to the image's `side` by ideal
    interpolation, moved back, and compared there. Not for polyphase networks, whose maps move by the
    nearest whole pixels: `audit` knows both.

    Columns: feature_error, the mean absolute difference; feature_change, the largest relative to the largest
    feature.
    """

    side: int
    of_shifts = (Change("feature_error"), Change("feature_change"))

    def __call__(
        self, reference: Reference, rows: np.ndarray, outputs: Any, where: np.ndarray, shifting: Shifting
    ) -> Columns:
        """See `Comparison`."""
        features, still = np.asarray(outputs, np.float64)[: len(rows)], reference.outputs[rows]
        if features.ndim not in (2, 4) or len(features) != len(rows):
            raise ShapeError(
                f"expected feature maps [{len(rows)}, h, w, C] or vectors [{len(rows)}, C], got shape "
                f"{list(features.shape)}."
            )
        check_finite(_finite(features), "features")
        moved = features
        if features.ndim == 4:
            if where.shape[1] != 2:
                raise ConfigError("feature maps can be moved back for shifts only, not for other warps.")
            back = fractional_shift(self._enlarged(features), -jnp.asarray(where, jnp.float32))
            still, moved = np.asarray(self._enlarged(still)), np.asarray(back)
        still, moved = (x.astype(np.float64).reshape(len(rows), -1) for x in (still, moved))
        difference = np.abs(moved - still)
        largest = np.maximum(np.abs(still).max(-1), np.finfo(np.float32).tiny)
        return {"feature_error": difference.mean(-1), "feature_change": difference.max(-1) / largest}

    def _enlarged(self, maps: np.ndarray) -> jax.Array:
        return ideal_resample(jnp.asarray(maps, jnp.float32), (self.side, self.side))

"""Compares the outputs for shifted images with the outputs for unshifted images.

Logits and features are compared on the host in float64, so that changes as small as float32 rounding are
measured correctly. For networks whose outputs are maps see `pixel_classes` and `image_pairs`.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.errors import ConfigError, DataError, NotFiniteError, ShapeError
from aliasfree_jax.evaluation.reductions import STABILITY, Change, Mean, Reduction
from aliasfree_jax.evaluation.shifting import Shifting
from aliasfree_jax.evaluation.table import Columns
from aliasfree_jax.ops.resample import ideal_resample
from aliasfree_jax.ops.shift import fractional_shift


class Reference(NamedTuple):
    """Reference of a comparison.

    Attributes:
      outputs: Outputs for the unshifted images, `[B, ...]`.
      label: Labels of the images, `[B, ...]`.
    """

    outputs: Any
    label: Any


class Comparison:
    """Base class of all comparisons of outputs; passed to `evaluator.evaluate`.

    Attributes:
      overall: Reductions for the unshifted images.
      of_shifts: Default reductions for shifts.
    """

    overall: tuple[Reduction, ...] = ()
    of_shifts: tuple[Reduction, ...] = ()

    def reference(self, outputs: Any, label: np.ndarray, shifting: Shifting) -> Reference:
        """Makes the reference of a batch.

        Args:
          outputs: Outputs for the unshifted view of the batch, `[B, ...]`.
          label: Labels of the batch, `[B, ...]`.
          shifting: The kind of shifts.
        """
        return Reference(np.asarray(outputs, np.float64), label)

    def __call__(
        self, reference: Reference, rows: np.ndarray, outputs: Any, where: np.ndarray, shifting: Shifting
    ) -> Columns:
        """Compares n pairs of image and shift.

        Args:
          reference: Reference of the batch.
          rows: Position of each pair's image in the batch, `[n]`.
          outputs: Outputs for the shifted images, `[B, ...]`. The first n belong to the pairs.
          where: The shifts, `[n, parameters]`.
          shifting: The kind of shifts.

        Returns:
          Columns with one value per pair.
        """
        raise NotImplementedError


def filled(rows: np.ndarray, where: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Pads `rows` `[n]` and shifts `where` `[n, parameters]` with zeros to `size`."""
    filling = size - len(rows)
    rows = np.concatenate([rows, np.zeros(filling, rows.dtype)]).astype(np.int32)
    return rows, np.concatenate([where, np.zeros((filling, where.shape[1]), where.dtype)])


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def check_logits(raw: Any, batch: int) -> np.ndarray:
    """Converts logits to a float64 array `[batch, K]`.

    Raises:
      ShapeError: The logits have another shape.
      NotFiniteError: A number is not finite.
    """
    logits = np.asarray(raw, np.float64)
    if logits.ndim != 2 or logits.shape[0] != batch:
        raise ShapeError(f"expected logits [{batch}, classes], got shape {list(logits.shape)}.")
    check_finite(_finite(logits), "logits")
    return logits


def _finite(outputs: np.ndarray) -> np.ndarray:
    return np.isfinite(outputs).reshape(len(outputs), -1).all(-1)


def check_finite(finite: np.ndarray, name: str) -> None:
    """Raises `NotFiniteError` unless the outputs of all images are finite.

    Args:
      finite: Whether each image's output is finite, `[n]`.
      name: Name of the outputs, for the message.
    """
    if not finite.all():
        raise NotFiniteError(
            f"the {name} of {int((~finite).sum())} of {len(finite)} images are not finite: "
            "the network cannot be evaluated. Its training diverged, or its number format is too small."
        )


def compare_logits(reference: np.ndarray, logits: np.ndarray, label: np.ndarray) -> Columns:
    """Compares the logits of shifted images with those of the unshifted images.

    The columns of the result:

    - `predicted`: class of the shifted image;
    - `unchanged`: whether it equals the class of the unshifted image;
    - `correct` and `in_top5`: whether the label is the first class, or one of the first five;
    - `probability_change`: |p(shifted) - p|, where p is the probability of the unshifted image's class;
    - `logit_change`: max |z(shifted) - z| / max |z| over classes;
    - `true_probability` and `loss`: probability and cross-entropy of the label, for the shifted image;
    - `margin`: logit of the label minus the largest other logit.

    Source: this package.

    Args:
      reference: Logits of the unshifted images, `[n, K]`.
      logits: Logits of the shifted images, `[n, K]`.
      label: Labels, `[n]`.

    Returns:
      Columns `[n]`.

    Raises:
      ShapeError: The logits have another shape.
      NotFiniteError: A logit is not finite.
      DataError: The network has no logit for a label.
    """
    logits, rows = check_logits(logits, len(label)), np.arange(len(label))
    if label.size and not 0 <= label.min() <= label.max() < logits.shape[1]:
        raise DataError(
            f"labels reach from {label.min()} to {label.max()}, but the network has {logits.shape[1]} "
            "classes: use the class folders or the label file with which it was trained."
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
    """Compares classes of images, see `compare_logits`. The result of the unshifted images is `accuracy`.

    Source: this package.
    """

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
    """Compares feature maps `[n, h, w, C]` after undoing the shift, or feature vectors `[n, C]` directly.

    Maps are enlarged to the image's side by ideal interpolation, shifted back, and compared there. Do not use
    this for polyphase networks: their maps move by whole samples. `audit` supports both kinds of networks.

    Columns: `feature_error` is the mean absolute difference. `feature_change` is the largest absolute
    difference, divided by the largest absolute feature.

    Source: demonstration in the code of Michaeli et al. 2023 (arXiv 2303.08085).

    Attributes:
      side: Side of the images in pixels.
      of_shifts: See `Comparison`.
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
                raise ConfigError(
                    "feature maps can be moved back only after shifts, not after other warps: use another "
                    "kind of shifts."
                )
            back = fractional_shift(self._enlarged(features), -jnp.asarray(where, jnp.float32))
            still, moved = np.asarray(self._enlarged(still)), np.asarray(back)
        still, moved = (x.astype(np.float64).reshape(len(rows), -1) for x in (still, moved))
        difference = np.abs(moved - still)
        largest = np.maximum(np.abs(still).max(-1), np.finfo(np.float32).tiny)
        return {"feature_error": difference.mean(-1), "feature_change": difference.max(-1) / largest}

    def _enlarged(self, maps: np.ndarray) -> jax.Array:
        return ideal_resample(jnp.asarray(maps, jnp.float32), (self.side, self.side))

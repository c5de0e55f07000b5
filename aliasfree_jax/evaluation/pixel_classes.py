"""Measures networks that output one class per pixel under shifts.

Logits are moved first, then their argmax is the map of classes. Moves by whole pixels are exact; other moves
use ideal interpolation. The classes for a shifted image are compared with those of the moved logits of the
unshifted image. They are also moved back and compared with the labels. If a shift moves part of the image
outside, only the overlap counts.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from aliasfree_jax.data.sources import IGNORED
from aliasfree_jax.errors import DataError, ShapeError
from aliasfree_jax.evaluation.comparison import Comparison, Reference
from aliasfree_jax.evaluation.equivariance import EquivarianceError
from aliasfree_jax.evaluation.reductions import CONSISTENCY, Counts, Lowest, Reduction
from aliasfree_jax.evaluation.shifting import Shifting, centre
from aliasfree_jax.evaluation.table import Columns, Table
from aliasfree_jax.evaluation.trial import collected, compared_maps, divided, everywhere, mesh_of


@partial(jax.jit, static_argnums=(0, 1))
def _compared(
    shifting: Shifting,
    mesh: Mesh | None,
    reference: Reference,
    rows: jax.Array,
    outputs: jax.Array,
    where: jax.Array,
) -> dict[str, jax.Array]:
    outputs = divided(outputs, mesh)
    still, label = reference.outputs[rows], reference.label[rows]
    back, inside = shifting.along(outputs, -where)
    moved, known = shifting.along(still, where)
    found, classes = back.argmax(-1), jnp.arange(outputs.shape[-1])
    labelled = (inside & (label != IGNORED))[..., None]
    right, given = labelled & (label[..., None] == classes), labelled & (found[..., None] == classes)
    areas = jnp.stack([(right & given).sum((1, 2)), right.sum((1, 2)), given.sum((1, 2))], axis=1)
    columns = {
        "areas": areas,
        # Maps that are moved back are not used here: moving twice loses the Nyquist frequency.
        "unchanged": (known & (outputs.argmax(-1) == moved.argmax(-1))).sum((1, 2)) / known.sum((1, 2)),
        "accuracy": areas[:, 0].sum(-1) / areas[:, 1].sum(-1),
        "error": jnp.square(jnp.where(known[..., None], outputs - moved, 0)).sum((1, 2, 3)),
        "energy": jnp.square(jnp.where(inside[..., None], still, 0)).sum((1, 2, 3)),
        "finite": jnp.isfinite(outputs).all((1, 2, 3)),
    }
    return {name: collected(column, mesh) for name, column in columns.items()}


class CompareClasses(Comparison):
    """Compares maps of classes. For the results of unshifted images see `Overlap`.

    Columns:

    - `areas` `[n, 3, K]`: for each class the number of correctly predicted, labelled, and predicted pixels;
    - `accuracy`: share of labelled pixels with the correct class; nan if no pixel is labelled;
    - `unchanged`: share of the overlap's pixels that have the class of the unshifted image, moved along;
    - `error` and `energy` of the logits: see `EquivarianceError`.

    Source: this package.

    Args:
      class_names: Names in the order of the logits; default: their numbers.
    """

    def __init__(self, class_names: tuple[str, ...] = ()):
        self.overall, self.of_shifts = (Overlap(class_names),), STABILITY

    def reference(self, outputs: Any, label: np.ndarray, shifting: Shifting) -> Reference:
        """See `Comparison`. The labels belong to the images with their margin.

        Raises:
          ShapeError: Outputs or labels are not maps of the image's size.
          DataError: The network has no logit for a label.
        """
        if outputs.ndim != 4:
            raise ShapeError(f"expected a map of logits [N, H, W, classes], got {list(outputs.shape)}.")
        if label.ndim != 3:
            raise ShapeError(f"expected one class per pixel, [N, H, W], got labels {list(label.shape)}.")
        label = centre(label[..., None], shifting.margin)[..., 0]
        if label.shape != outputs.shape[:3]:
            raise ShapeError(
                f"the network's output has {outputs.shape[1]} x {outputs.shape[2]} pixels, but the labels "
                f"have {label.shape[1]} x {label.shape[2]}: they must be equal."
            )
        classes, labelled = outputs.shape[-1], label[label != IGNORED]
        if labelled.size and not 0 <= labelled.min() <= labelled.max() < classes:
            raise DataError(
                f"labels of pixels reach from {labelled.min()} to {labelled.max()}, but the network has "
                f"{classes} classes ({IGNORED} marks ignored pixels): use masks with the classes of its "
                "training."
            )
        label = label.astype(np.int32)
        mesh = mesh_of(outputs)
        return Reference(jnp.asarray(outputs), everywhere(label, mesh))

    def __call__(
        self, reference: Reference, rows: np.ndarray, outputs: Any, where: np.ndarray, shifting: Shifting
    ) -> Columns:
        """See `Comparison`."""
        compare = partial(_compared, shifting)
        return compared_maps(compare, reference, rows, outputs, where, "logits")


def intersection_over_union(areas: np.ndarray) -> np.ndarray:
    """Intersection over union of each class.

    Source: Everingham et al. 2010, The Pascal Visual Object Classes Challenge.

    Args:
      areas: Pixels per class, `[3, K]`: correctly predicted, labelled, and predicted (see `CompareClasses`).

    Returns:
      `[K]`: nan for a class that does not occur.
    """
    both, labelled, found = np.asarray(areas, np.float64)
    with np.errstate(invalid="ignore"):
        return both / (labelled + found - both)


class Overlap(Reduction):
    """Quality of segmentation over all pixels of all images, without ignored pixels.

    Results:

    - `mean_iou`: mean intersection over union of the classes that occur;
    - `pixel_accuracy`: share of pixels with the correct class;
    - `mean_accuracy`: mean over the labelled classes of the accuracy of their pixels;
    - `class_iou`: intersection over union by class name; None for a class that does not occur.

    Source: Everingham et al. 2010, The Pascal Visual Object Classes Challenge, for the IoU.

    Args:
      class_names: Names of the classes; default: their numbers.
    """

    def __init__(self, class_names: tuple[str, ...] = ()):
        self.class_names = class_names

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        return Counts({"areas": table.still["areas"].sum(0, dtype=np.int64)})

    def result(self, counts: Counts) -> dict[str, Any]:
        """See `Reduction.result`."""
        areas = counts.total["areas"]
        check_labelled(areas)
        union = intersection_over_union(areas)
        names = self.class_names if len(self.class_names) == len(union) else map(str, range(len(union)))
        labelled = areas[1] > 0
        return {
            "mean_iou": float(np.nanmean(union)),
            "pixel_accuracy": float(areas[0].sum() / areas[1].sum()),
            "mean_accuracy": float((areas[0][labelled] / areas[1][labelled]).mean()),
            "class_iou": {
                name: None if np.isnan(value) else float(value)
                for name, value in zip(names, union, strict=True)
            },
        }


def check_labelled(areas: np.ndarray) -> None:
    """Raises `DataError` if no pixel has a label."""
    if not areas[1].sum():
        raise DataError(
            f"no pixel has a label: all have the value {IGNORED}, which means ignored. Check the masks."
        )


class ShiftedOverlap(Reduction):
    """Results `accuracy` and `mean_iou` of the shifted images.

    Outputs are moved back first. All pairs of image and shift count, each in its overlap.

    Source: this package.
    """

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        return Counts({"areas": table.all_shifts("areas").sum(0, dtype=np.int64)})

    def result(self, counts: Counts) -> dict[str, Any]:
        """See `Reduction.result`."""
        areas = counts.total["areas"]
        check_labelled(areas)
        return {
            "accuracy": float(areas[0].sum() / areas[1].sum()),
            "mean_iou": float(np.nanmean(intersection_over_union(areas))),
        }


# Default reductions for every kind of shift.
STABILITY: tuple[Reduction, ...] = (
    CONSISTENCY,
    ShiftedOverlap(),
    Lowest("worst_consistency", "unchanged"),
    Lowest("worst_case_accuracy", "accuracy"),
    EquivarianceError(),
)

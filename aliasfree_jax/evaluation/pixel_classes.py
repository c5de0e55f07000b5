"""Networks that give a class for each pixel, under shifts.

Maps of classes are the argmax of logits that are moved first: by whole pixels bit for bit, else by ideal
interpolation. The class for a shifted image is compared with that of the moved logits of the unshifted one,
and, moved back, with the labels. Where something of the image left at a border, the overlap counts.
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
        # Not of maps moved back: there and back loses what lies at the Nyquist frequency.
        "unchanged": (known & (outputs.argmax(-1) == moved.argmax(-1))).sum((1, 2)) / known.sum((1, 2)),
        "accuracy": areas[:, 0].sum(-1) / areas[:, 1].sum(-1),
        "error": jnp.square(jnp.where(known[..., None], outputs - moved, 0)).sum((1, 2, 3)),
        "energy": jnp.square(jnp.where(inside[..., None], still, 0)).sum((1, 2, 3)),
        "finite": jnp.isfinite(outputs).all((1, 2, 3)),
    }
    return {name: collected(column, mesh) for name, column in columns.items()}


class CompareClasses(Comparison):
    """Compares maps of classes. The results of unshifted images: see `Overlap`, with the classes' names.

    Columns: areas [n, 3, K], for each class the labelled pixels that are found, all labelled and all found
    ones; accuracy, the share of labelled pixels that are right (nan without any); unchanged, the share of all
    pixels of the overlap whose class is that of the unshifted image; error and energy of the logits, see
    `EquivarianceError`.

    Args:
      class_names: in the order of the logits; by default their numbers.
    """

    def __init__(self, class_names: tuple[str, ...] = ()):
        self.overall, self.of_shifts = (Overlap(class_names),), STABILITY

    def reference(self, outputs: Any, label: np.ndarray, shifting: Shifting) -> Reference:
        """See `Comparison`; labels are of the images with their margin.

        Raises:
          ShapeError: outputs or labels that are no maps of the image's size.
          DataError: labels that the network has no logits for.
        """
        if outputs.ndim != 4:
            raise ShapeError(f"expected a map of logits [N, H, W, classes], got {list(outputs.shape)}.")
        if label.ndim != 3:
            raise ShapeError(f"expected a class for each pixel, [N, H, W], got labels {list(label.shape)}.")
        label = centre(label[..., None], shifting.margin)[..., 0]
        if label.shape != outputs.shape[:3]:
            raise ShapeError(
                f"the network gives maps of {outputs.shape[1]} x {outputs.shape[2]} pixels for labels of "
                f"{label.shape[1]} x {label.shape[2]}."
            )
        classes, labelled = outputs.shape[-1], label[label != IGNORED]
        if labelled.size and not 0 <= labelled.min() <= labelled.max() < classes:
            raise DataError(
                f"labels of pixels reach from {labelled.min()} to {labelled.max()}, but the network has "
                f"{classes} classes (and {IGNORED} for pixels that do not count): check that the masks are "
                "of the classes that it was trained on."
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
    """Of each class, [K], from `areas` [3, K] (see `CompareClasses`); nan where a class does not occur."""
    both, labelled, found = np.asarray(areas, np.float64)
    with np.errstate(invalid="ignore"):
        return both / (labelled + found - both)


class Overlap(Reduction):
    """How the found areas cover the labelled ones, over all pixels of all images; ignored ones left out.

    Results: mean_iou, the mean over the classes that occur of intersection over union; pixel_accuracy;
    mean_accuracy, the mean over the labelled classes of their pixels' accuracy; class_iou by the class's
    name, None where it does not occur.
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
            f"no pixel of the images has a label: all are {IGNORED}, which counts nowhere. Check the masks."
        )


class ShiftedOverlap(Reduction):
    """accuracy and mean_iou of the shifted images' pixels, over all pairs; moved back, in the overlap."""

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


# What every kind of shift is measured by.
STABILITY: tuple[Reduction, ...] = (
    CONSISTENCY,
    ShiftedOverlap(),
    Lowest("worst_consistency", "unchanged"),
    Lowest("worst_case_accuracy", "accuracy"),
    EquivarianceError(),
)

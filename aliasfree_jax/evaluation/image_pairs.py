"""Measures networks from images to images under shifts.

The normalisation is undone first, so that PSNR and NMSE have their usual meaning for images in [0, 1]. The
output for a shifted image is compared with the shifted output. It is also moved back and compared with the
target. If a shift moves part of the image outside, only the overlap counts.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from aliasfree_jax.errors import DataError, ShapeError
from aliasfree_jax.evaluation.comparison import Comparison, Reference
from aliasfree_jax.evaluation.equivariance import NO_DIFFERENCE, EquivarianceError, decibels
from aliasfree_jax.evaluation.image_quality import WINDOW, energy, psnr, spread, ssim
from aliasfree_jax.evaluation.reductions import Counts, Reduction
from aliasfree_jax.evaluation.shifting import Shifting, centre
from aliasfree_jax.evaluation.table import Columns, Table
from aliasfree_jax.evaluation.trial import collected, compared_maps, divided, everywhere, mesh_of


def _qualities(target: jax.Array, found: jax.Array, inside: jax.Array, prefix: str) -> dict[str, jax.Array]:
    (largest, span), power = spread(target, inside), energy(target, inside)
    return {
        f"{prefix}psnr": psnr(target, found, span, inside),
        f"{prefix}psnr_of_max": psnr(target, found, largest, inside),
        f"{prefix}ssim": ssim(target, found, span, inside),
        f"{prefix}ssim_of_max": ssim(target, found, largest, inside),
        f"{prefix}nmse": jnp.where(power > 0, energy(found - target, inside) / power, jnp.nan),
    }


@partial(jax.jit, static_argnums=(0, 1))
def _compared(
    shifting: Shifting,
    mesh: Mesh | None,
    reference: Reference,
    rows: jax.Array,
    outputs: jax.Array,
    where: jax.Array,
    mean: jax.Array,
    std: jax.Array,
) -> dict[str, jax.Array]:
    outputs = divided(outputs, mesh)
    found, still, target = (x * std + mean for x in (outputs, *(y[rows] for y in reference)))
    moved, known = shifting.along(still, where)
    back, inside = shifting.along(found, -where)
    columns = {
        "error": energy(found - moved, known),
        "energy": energy(still, inside),
        "finite": jnp.isfinite(outputs).all((1, 2, 3)),
    }
    columns |= _qualities(target, back, inside, "") | _qualities(moved, found, known, "moved_")
    return {name: collected(column, mesh) for name, column in columns.items()}


class CompareImages(Comparison):
    """Compares images. The results of the unshifted images are the means of `psnr`, `ssim` and `nmse`.

    The columns compare the target with the output for the shifted image, moved back:

    - `psnr` and `ssim`: their range is the largest minus the smallest value of the target;
    - `psnr_of_max` and `ssim_of_max`: their range is the largest value of the target;
    - `nmse`: |target - output|^2 / |target|^2;
    - `moved_psnr` and so on: the same, but they compare the shifted output of the unshifted image with the
      output for the shifted image;
    - `error` and `energy`: see `EquivarianceError`.

    PSNR and SSIM are nan if their range is 0.

    Source: PSNR and SSIM as in `image_quality`; the comparison under shifts is from this package.

    Args:
      mean: Mean per channel of the normalisation of outputs and targets.
      std: Standard deviation per channel of this normalisation.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self.mean, self.std = (np.asarray(numbers, np.float32) for numbers in (mean, std))
        self.overall = tuple(MeanOf(column, unshifted=True) for column in ("psnr", "ssim", "nmse"))
        self.of_shifts = STABILITY

    def reference(self, outputs: Any, label: np.ndarray, shifting: Shifting) -> Reference:
        """See `Comparison`. The labels are images with their margin.

        Raises:
          ShapeError: Outputs and labels are not images of the same size, their number of channels differs
            from the number of means, or the images are too small for SSIM.
        """
        if outputs.ndim != 4 or label.ndim != 4:
            raise ShapeError(
                f"expected images [N, H, W, C] as outputs and as targets, got {list(outputs.shape)} and "
                f"{list(label.shape)}."
            )
        target = centre(label, shifting.margin)
        if outputs.shape != target.shape:
            raise ShapeError(
                f"the network's output has {_size(outputs)}, but the target has {_size(target)} (height x "
                "width x channels): they must be equal."
            )
        if outputs.shape[-1] != len(self.mean):
            raise ShapeError(
                f"the network has {outputs.shape[-1]} output channels, but data.mean and data.std have "
                f"{len(self.mean)} numbers: the normalisation is undone before the images are measured, so "
                "set one number per channel."
            )
        if min(outputs.shape[1:3]) < WINDOW:
            raise ShapeError(
                f"SSIM compares windows of {WINDOW} x {WINDOW} pixels, got images of {_size(outputs)}: use "
                "larger images."
            )
        mesh = mesh_of(outputs)
        return Reference(jnp.asarray(outputs), everywhere(target, mesh))

    def __call__(
        self, reference: Reference, rows: np.ndarray, outputs: Any, where: np.ndarray, shifting: Shifting
    ) -> Columns:
        """See `Comparison`."""
        compare = partial(_compared, shifting, mean=self.mean, std=self.std)
        return compared_maps(compare, reference, rows, outputs, where, "outputs")


def _size(images: Any) -> str:
    return " x ".join(map(str, images.shape[1:]))


def bounded(values: np.ndarray) -> np.ndarray:
    """Limits PSNRs to +-400 dB, the value for no error; nan stays nan."""
    return np.clip(values.astype(np.float64), NO_DIFFERENCE, -NO_DIFFERENCE)


class MeanOf(Reduction):
    """Mean of a column over all pairs of image and shift, without nan.

    Source: this package.

    Args:
      column: Name of the column. A PSNR counts as at most 400 dB.
      name: Name of the result; default: the column's name.
      unshifted: Average over the unshifted images instead.
    """

    def __init__(self, column: str, name: str = "", *, unshifted: bool = False):
        self.column, self.name, self.unshifted = column, name or column, unshifted

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        values = bounded(table.still[self.column] if self.unshifted else table.all_shifts(self.column))
        return Counts({"number": int((~np.isnan(values)).sum()), "sum": float(np.nansum(values))})

    def result(self, counts: Counts) -> dict[str, float]:
        """See `Reduction.result`.

        Raises:
          DataError: Every image is constant.
        """
        number = counts.total["number"]
        if not number:
            raise DataError(f"every target is constant, so {self.column} is not defined: check data.path.")
        return {self.name: counts.total["sum"] / number}


class MovedPsnr(Reduction):
    """Result `moved_psnr`: PSNR of the mean squared error over all pairs, each relative to its range.

    It compares the output for the shifted image with the shifted output. The errors are averaged, not the
    PSNRs: a single pair without an error would make the mean PSNR infinite.

    Source: this package.
    """

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        errors = 10 ** (-bounded(table.all_shifts("moved_psnr")) / 10)
        return Counts({"pairs": int((~np.isnan(errors)).sum()), "sum": float(np.nansum(errors))})

    def result(self, counts: Counts) -> dict[str, float]:
        """See `Reduction.result`."""
        return {"moved_psnr": -float(decibels(counts.total["sum"] / max(1, counts.total["pairs"])))}


class PsnrChange(Reduction):
    """Result `psnr_change`: largest |PSNR(shifted) - PSNR| over the shifts of an image.

    The result has the mean and the maximum over images.

    Source: this package.

    Args:
      column: Name of the column with the PSNR.
    """

    def __init__(self, column: str = "psnr"):
        self.column = column

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        still, moved = bounded(table.still[self.column]), bounded(table.columns[self.column])
        changes = np.where(table.visited, np.abs(moved - still), np.nan)
        largest = np.fmax.reduce(changes, axis=0)
        found = largest[~np.isnan(largest)]
        return Counts({"images": len(found), "sum": float(found.sum())}, {"max": float(found.max(initial=0))})

    def result(self, counts: Counts) -> dict[str, dict[str, float]]:
        """See `Reduction.result`."""
        mean = counts.total["sum"] / max(1, counts.total["images"])
        return {"psnr_change": {"mean": mean, "max": counts.largest["max"]}}


# Default reductions for every kind of shift.
STABILITY: tuple[Reduction, ...] = (
    EquivarianceError(),
    MovedPsnr(),
    MeanOf("psnr"),
    PsnrChange(),
)

"""Networks that give an image for an image, under shifts.

Images are measured as they were before their normalisation, in [0, 1], so that PSNR and NMSE are what people
mean by them. An output for a shifted image is compared with the shifted output, and, moved back, with the
target. Where something of the image left at a border, the overlap counts.
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
    """Compares images. Results of the unshifted ones: the means over them of psnr, ssim and nmse.

    Columns, of the target and the shifted image's output, moved back: psnr and ssim, whose range is the
    largest value of the target less the smallest; psnr_of_max and ssim_of_max, whose range is the largest
    value; nmse, |target - output|^2 / |target|^2. With moved_ before the name: the same of the shifted
    output, in the target's place, and the shifted image's. error and energy: see `EquivarianceError`. Where
    a range is 0, psnr and ssim are nan.

    Args:
      mean, std: of the normalisation of outputs and targets, one number a channel.
    """

    def __init__(self, mean: Sequence[float], std: Sequence[float]):
        self.mean, self.std = (np.asarray(numbers, np.float32) for numbers in (mean, std))
        self.overall = tuple(MeanOf(column, unshifted=True) for column in ("psnr", "ssim", "nmse"))
        self.of_shifts = STABILITY

    def reference(self, outputs: Any, label: np.ndarray, shifting: Shifting) -> Reference:
        """See `Comparison`; labels are images with their margin.

        Raises:
          ShapeError: outputs or labels that are no images of one size, or of another number of channels than
            there are means; images too small for SSIM.
        """
        if outputs.ndim != 4 or label.ndim != 4:
            raise ShapeError(
                f"expected images [N, H, W, C] as outputs and as targets, got {list(outputs.shape)} and "
                f"{list(label.shape)}."
            )
        target = centre(label, shifting.margin)
        if outputs.shape != target.shape:
            raise ShapeError(
                f"the network gives images of {_size(outputs)} for targets of {_size(target)} (height x "
                "width x channels)."
            )
        if outputs.shape[-1] != len(self.mean):
            raise ShapeError(
                f"the network gives {outputs.shape[-1]} channels, but data.mean and data.std have "
                f"{len(self.mean)} numbers: images are measured as they were before their normalisation."
            )
        if min(outputs.shape[1:3]) < WINDOW:
            raise ShapeError(f"SSIM compares windows of {WINDOW} x {WINDOW} pixels, got {_size(outputs)}.")
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
    """PSNRs in dB of at most 400, that of no error at all; nan stays."""
    return np.clip(values.astype(np.float64), NO_DIFFERENCE, -NO_DIFFERENCE)


class MeanOf(Reduction):
    """The mean of a column over all pairs, or of the unshifted images; nan is left out.

    Args:
      column: its name; a psnr counts as 400 dB at most.
      name: of the result; by default the column's.
      unshifted: of the unshifted images.
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
          DataError: there is no image whose values differ.
        """
        number = counts.total["number"]
        if not number:
            raise DataError(f"no target has values that differ, so there is no {self.column}.")
        return {self.name: counts.total["sum"] / number}


class MovedPsnr(Reduction):
    """moved_psnr: the PSNR of the mean over all pairs of the squared errors, each relative to its range.

    The mean of the PSNRs themselves would tell little: a single pair without an error is infinite.
    """

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        errors = 10 ** (-bounded(table.all_shifts("moved_psnr")) / 10)
        return Counts({"pairs": int((~np.isnan(errors)).sum()), "sum": float(np.nansum(errors))})

    def result(self, counts: Counts) -> dict[str, float]:
        """See `Reduction.result`."""
        return {"moved_psnr": -float(decibels(counts.total["sum"] / max(1, counts.total["pairs"])))}


class PsnrChange(Reduction):
    """psnr_change: the largest |PSNR(shifted) - PSNR| of an image over its shifts; mean and max over images.

    Args:
      column: the PSNR's.
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


# What every kind of shift is measured by.
STABILITY: tuple[Reduction, ...] = (
    EquivarianceError(),
    MovedPsnr(),
    MeanOf("psnr"),
    PsnrChange(),
)

"""How far a network's map of a shifted image is from the shifted map, in decibels."""

from typing import Any

import numpy as np

from aliasfree_jax.evaluation.reductions import Counts, Reduction
from aliasfree_jax.evaluation.table import Table

NO_DIFFERENCE = -400.0  # dB; nothing that is computed comes near: float64's rounding is at -313


def decibels(ratio: float | np.ndarray) -> Any:
    """10 log10 of a ratio of energies, within +-400 dB: no difference at all is -400."""
    limit = 10 ** (NO_DIFFERENCE / 10)
    return 10 * np.log10(np.clip(np.asarray(ratio, np.float64), limit, 1 / limit))


class EquivarianceError(Reduction):
    """10 log10 of sum |f(shift x) - shift f(x)|^2 / sum |f(x)|^2, from the columns error and energy.

    Results: equivariance_db, of the sums over all pairs of image and shift; worst_equivariance_db, the
    largest of a pair. More negative is better.
    """

    def count(self, table: Table) -> Counts:
        """See `Reduction.count`."""
        error, energy = (table.all_shifts(column).astype(np.float64) for column in ("error", "energy"))
        ratio = error / np.maximum(energy, np.finfo(np.float32).tiny)
        sums = {"error": float(error.sum()), "energy": float(energy.sum())}
        return Counts(sums, {"worst": float(ratio.max(initial=0))})

    def result(self, counts: Counts) -> dict[str, float]:
        """See `Reduction.result`."""
        ratio = counts.total["error"] / max(counts.total["energy"], float(np.finfo(np.float32).tiny))
        return {
            "equivariance_db": float(decibels(ratio)),
            "worst_equivariance_db": float(decibels(counts.largest["worst"])),
        }

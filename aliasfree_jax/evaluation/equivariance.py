"""Equivariance error of a network whose output is a map, in decibels."""

from typing import Any

import numpy as np

from aliasfree_jax.evaluation.reductions import Counts, Reduction
from aliasfree_jax.evaluation.table import Table

NO_DIFFERENCE = -400.0  # dB; below every computed value, because float64 rounding is at -313


def decibels(ratio: float | np.ndarray) -> Any:
    """Converts a ratio of energies to decibels, 10 log10, limited to +-400 dB. A ratio of 0 is -400 dB."""
    limit = 10 ** (NO_DIFFERENCE / 10)
    return 10 * np.log10(np.clip(np.asarray(ratio, np.float64), limit, 1 / limit))


class EquivarianceError(Reduction):
    """Equivariance error in dB: 10 log10 of sum |f(shift x) - shift f(x)|^2 / sum |f(x)|^2.

    Results: `equivariance_db` uses the sums over all pairs of image and shift. `worst_equivariance_db` is the
    largest value of one pair. Smaller (more negative) is better.

    Source: this package.
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

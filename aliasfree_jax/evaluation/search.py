"""Searches for worst cases over all real-valued shifts by gradient ascent from the worst points of a grid.

Moving an image is differentiable in the shift, and so is the network. The search lowers the margin of each
image: the label's logit minus the largest other logit. Many images and starts share a batch.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.evaluation.comparison import check_logits
from aliasfree_jax.evaluation.shifting import Shifting
from aliasfree_jax.evaluation.table import Table
from aliasfree_jax.evaluation.trial import Trial, collected, mesh_of, moved_rows

Descend = Callable[[jax.Array, np.ndarray, np.ndarray, np.ndarray], tuple[jax.Array, jax.Array]]


def _margin(logits: jax.Array, label: jax.Array) -> jax.Array:
    """The label's logit minus the largest other logit, `[n]`."""
    is_label = jax.nn.one_hot(label, logits.shape[-1], dtype=bool)
    return jnp.where(is_label, logits, 0).sum(-1) - jnp.where(is_label, -jnp.inf, logits).max(-1)


@lru_cache(maxsize=1)  # compiled once for all batches
def _descend(predict: Callable[[jax.Array], Any], shifting: Shifting, mesh: Mesh | None) -> Descend:
    """Compiles (images, rows `[n]`, labels `[n]`, where `[n, P]`) -> margins `[n]`, gradients `[n, P]`."""

    def total(where: jax.Array, images: jax.Array, rows: jax.Array, label: jax.Array) -> Any:
        margin = _margin(predict(moved_rows(shifting, mesh, images, rows, where)), label)
        return margin.sum(), margin

    def descend(images: jax.Array, rows: jax.Array, label: jax.Array, where: jax.Array) -> Any:
        gradient, margin = jax.grad(total, has_aux=True)(where, images, rows, label)
        return collected(margin, mesh), collected(gradient, mesh)

    return jax.jit(descend)


def spread_points(low: tuple[float, ...], high: tuple[float, ...], count: int) -> np.ndarray:
    """Spreads points evenly over a box, without a lattice (Roberts' R sequence).

    Source: Roberts 2018, The unreasonable effectiveness of quasirandom sequences.

    Args:
      low: Lower bound of each parameter.
      high: Upper bound of each parameter.
      count: Number of points.

    Returns:
      The points `[count, P]`.
    """
    dimensions = len(low)
    base = 1.5
    for _ in range(64):  # the root of x^(d+1) = x + 1
        base = (1 + base) ** (1 / (dimensions + 1))
    steps = base ** -np.arange(1, dimensions + 1)
    place = (0.5 + np.outer(np.arange(count), steps)) % 1
    return (np.asarray(low) + place * (np.asarray(high) - np.asarray(low))).astype(np.float32)


@dataclass(frozen=True)
class Ascent:
    """Searches for worse shifts by gradient ascent; a `Refine`.

    For each image that is still correct, the search starts from its worst shifts so far. A step moves every
    parameter against the sign of the margin's gradient. The length of the steps decreases to a hundredth. At
    the end the worst point of each path is evaluated with the usual forward pass; only this result counts.

    Source: this package.

    Attributes:
      low: Lower bound of each parameter.
      high: Upper bound of each parameter.
      step: Length of the first step as a share of the box's side.
      starts: Number of starts per image.
      steps: Number of steps per start.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    step: float = 0.05
    starts: int = 4
    steps: int = 20

    @property
    def count(self) -> int:
        """See `Refine.count`: all steps of every start, and the evaluation of its worst point."""
        return self.starts * (self.steps + 1)

    def __call__(self, trial: Trial, table: Table) -> Table:
        """See `Refine`."""
        alive = trial.mask & trial.still["correct"] & ~table.fooled
        margin = np.where(table.visited, table.columns["margin"], np.inf)
        starts = np.argsort(margin, axis=0)[: self.starts]  # [S, B]
        best = np.take_along_axis(table.where, starts[..., None], axis=0).astype(np.float32)
        lowest = np.take_along_axis(margin, starts, axis=0)
        pairs = np.flatnonzero(np.broadcast_to(alive, starts.shape))
        flat, values = best.reshape(starts.size, -1), lowest.reshape(-1)
        trial.advance(self.starts * self.steps * int(trial.mask.sum()) - len(pairs) * self.steps)
        self._search(trial, pairs, flat, values)
        return trial.run(flat.reshape(best.shape), among=alive)

    def _search(self, trial: Trial, pairs: np.ndarray, best: np.ndarray, lowest: np.ndarray) -> None:
        """Lowers the margins of `pairs`; writes the worst points to `best` and their margins to `lowest`."""
        low, high = np.asarray(self.low, np.float32), np.asarray(self.high, np.float32)
        size, at = len(trial.label), best.copy()
        try:
            descend = _descend(trial.predict, trial.shifting, mesh_of(trial.images))
            for step in range(self.steps if len(pairs) else 0):
                length = np.float32(self.step * 0.01 ** (step / max(1, self.steps - 1))) * (high - low)
                for chunk in np.split(pairs, range(size, len(pairs), size)):
                    margin, gradient = self._forward(descend, trial, chunk, at)
                    worse = margin < lowest[chunk]
                    best[chunk[worse]], lowest[chunk[worse]] = at[chunk[worse]], margin[worse]
                    at[chunk] = np.clip(at[chunk] - length * np.sign(gradient), low, high)
                    trial.advance(len(chunk))
                fooled = np.unique(pairs[lowest[pairs] < 0] % size)
                left = pairs[~np.isin(pairs % size, fooled)]
                trial.advance((len(pairs) - len(left)) * (self.steps - 1 - step))
                pairs = left
                if not len(pairs):
                    break
        except jax.errors.JAXTypeError as error:
            raise ConfigError(
                "the search over all real-valued shifts differentiates the network, so the network must be a "
                "JAX function: measure the adversarial grids instead."
            ) from error

    @staticmethod
    def _forward(
        descend: Descend, trial: Trial, chunk: np.ndarray, at: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Margins and gradients of a chunk of pairs, padded to a batch of the usual size."""
        rows, where = trial.filled(chunk % len(trial.label), at[chunk])
        found = descend(trial.images, rows, trial.label[rows].astype(np.int32), where)
        margin, gradient = (np.asarray(array)[: len(chunk)] for array in found)
        check_logits(margin[:, None], len(chunk))  # raises if a margin is not finite
        return margin.astype(np.float64), np.nan_to_num(gradient)

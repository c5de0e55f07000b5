"""The answers of one batch of images under many shifts, before they are reduced."""

from dataclasses import dataclass

import numpy as np

from aliasfree_jax.errors import ConfigError

Columns = dict[str, np.ndarray]  # one value a pair of image and shift: arrays [n], or [n, ...]


@dataclass(frozen=True)
class Table:
    """What one batch of B images did under K shifts.

    Attributes:
      where: the shifts, [K, B, parameters].
      visited: which pairs were looked at, bool [K, B]; False for padding and where the answer was known.
      columns: see `comparison`, each [K, B] or [K, B, ...].
      still: the same of the unshifted images, each [B] or [B, ...].
      mask: which images count, bool [B].
    """

    where: np.ndarray
    visited: np.ndarray
    columns: Columns
    still: Columns
    mask: np.ndarray

    def all_shifts(self, column: str) -> np.ndarray:
        """The values of a column at the visited pairs."""
        if column not in self.columns:
            raise ConfigError(
                f"there is no {column!r} to reduce: there are {', '.join(sorted(self.columns))}."
            )
        return self.columns[column][self.visited]

    @property
    def fooled(self) -> np.ndarray:
        """Which images were classified wrongly under a shift, bool [B]."""
        return np.any(self.visited & ~self.columns["correct"], axis=0)

    def of_images(self) -> "Table":
        """The same without padding."""
        kept = self.mask
        columns = {name: values[:, kept] for name, values in self.columns.items()}
        still = {name: values[kept] for name, values in self.still.items()}
        return Table(self.where[:, kept], self.visited[:, kept], columns, still, kept[kept])

    def joined(self, other: "Table") -> "Table":
        """The shifts of both, of the same images."""
        columns = {name: np.concatenate([own, other.columns[name]]) for name, own in self.columns.items()}
        where = np.concatenate([self.where, other.where])
        return Table(where, np.concatenate([self.visited, other.visited]), columns, self.still, self.mask)


def unshifted(still: Columns, mask: np.ndarray) -> Table:
    """The table of images under no shift at all, without padding."""
    nowhere = np.zeros((0, len(mask), 2), np.int32)
    return Table(nowhere, np.zeros((0, len(mask)), bool), {}, still, mask).of_images()

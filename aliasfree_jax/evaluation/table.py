"""Table of the results of one batch of images under many shifts, before its reduction."""

from dataclasses import dataclass

import numpy as np

from aliasfree_jax.errors import ConfigError

Columns = dict[str, np.ndarray]  # one value per pair of image and shift: arrays [n] or [n, ...]


@dataclass(frozen=True)
class Table:
    """Results of a batch of B images under K shifts.

    Attributes:
      where: The shifts, `[K, B, parameters]`.
      visited: Evaluated pairs of image and shift, bool `[K, B]`. False for padding and skipped shifts.
      columns: Columns of the comparison, each `[K, B]` or `[K, B, ...]`.
      still: The same columns for the unshifted images, each `[B]` or `[B, ...]`.
      mask: Images that count, bool `[B]`. False for padding.
    """

    where: np.ndarray
    visited: np.ndarray
    columns: Columns
    still: Columns
    mask: np.ndarray

    def all_shifts(self, column: str) -> np.ndarray:
        """Values of a column for all evaluated pairs.

        Raises:
          ConfigError: There is no such column.
        """
        if column not in self.columns:
            raise ConfigError(
                f"the comparison has no column {column!r}: it has {', '.join(sorted(self.columns))}. Use "
                "another reduction or another comparison."
            )
        return self.columns[column][self.visited]

    @property
    def fooled(self) -> np.ndarray:
        """Images with a wrong class under at least one shift, bool `[B]`."""
        return np.any(self.visited & ~self.columns["correct"], axis=0)

    def of_images(self) -> "Table":
        """Returns the table without padding."""
        kept = self.mask
        columns = {name: values[:, kept] for name, values in self.columns.items()}
        still = {name: values[kept] for name, values in self.still.items()}
        return Table(self.where[:, kept], self.visited[:, kept], columns, still, kept[kept])

    def joined(self, other: "Table") -> "Table":
        """Joins the shifts of two tables of the same images."""
        columns = {name: np.concatenate([own, other.columns[name]]) for name, own in self.columns.items()}
        where = np.concatenate([self.where, other.where])
        return Table(where, np.concatenate([self.visited, other.visited]), columns, self.still, self.mask)


def unshifted(still: Columns, mask: np.ndarray) -> Table:
    """Returns a table of unshifted images, without shifts and without padding."""
    nowhere = np.zeros((0, len(mask), 2), np.int32)
    return Table(nowhere, np.zeros((0, len(mask)), bool), {}, still, mask).of_images()

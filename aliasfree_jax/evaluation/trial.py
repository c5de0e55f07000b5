"""Evaluates one batch of images under many shifts, in full batches of (image, shift) pairs.

Shifted and unshifted images use the same compiled function with the same batch size. Differences therefore
come from the network and not from the compiler.

Every device holds all images of a batch, and the devices divide the work. With several processes, all run the
same evaluation on the same batches (`training.mesh.evaluated_batches`). Each process holds its part of a
batch, and all get the same results.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.evaluation.comparison import Comparison, Reference, check_finite, filled
from aliasfree_jax.evaluation.shifting import Shifting
from aliasfree_jax.evaluation.table import Columns, Table
from aliasfree_jax.training.mesh import BATCH_AXES, replicate, replicated, split

Predict = Callable[[jax.Array], Any]
# Forward passes that run before the first result is read, so that host and device work at the same time.
AHEAD = 2


def mesh_of(images: Any) -> Mesh | None:
    """The mesh of `training.mesh` on which images lie; None if they lie on no mesh."""
    mesh = getattr(getattr(images, "sharding", None), "mesh", None)
    return mesh if isinstance(mesh, Mesh) and set(BATCH_AXES) <= set(mesh.axis_names) else None


def everywhere(array: Any, mesh: Mesh | None) -> jax.Array:
    """Copies an array to each device of a mesh."""
    return replicate(array, mesh) if mesh else jnp.asarray(array)


def divided(array: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Divides a batch over the devices, inside a compiled function."""
    return jax.lax.with_sharding_constraint(array, split(mesh)) if mesh else array


def collected(array: jax.Array, mesh: Mesh | None) -> jax.Array:
    """Copies a whole result to every device, and so to every process, inside a compiled function."""
    return jax.lax.with_sharding_constraint(array, replicated(mesh)) if mesh else array


def compared_maps(
    compare: Callable[..., Mapping[str, jax.Array]],
    reference: Reference,
    rows: np.ndarray,
    outputs: Any,
    where: np.ndarray,
    what: str,
) -> Columns:
    """Compares outputs that are maps, on the devices where they lie.

    Args:
      compare: Compiled function (mesh, reference, rows, outputs, where) -> columns `[B, ...]` with "finite".
      reference: See `Comparison`.
      rows: See `Comparison`.
      outputs: See `Comparison`.
      where: See `Comparison`.
      what: Name of the outputs, for the message if they are not finite.

    Returns:
      The columns without "finite".
    """
    filled_rows, filled_where = filled(rows, where, len(reference.label))
    found = compare(mesh_of(outputs), reference, filled_rows, jnp.asarray(outputs), filled_where)
    columns = {name: np.asarray(column)[: len(rows)] for name, column in found.items()}
    check_finite(columns.pop("finite"), what)
    return columns


@partial(jax.jit, static_argnums=(0, 1))
def moved_rows(
    shifting: Shifting, mesh: Mesh | None, images: jax.Array, rows: jax.Array, where: jax.Array
) -> jax.Array:
    """Selects images and moves each of them.

    Args:
      shifting: The kind of shifts.
      mesh: Devices that divide the work, see `mesh_of`.
      images: `[B, H, W, C]`.
      rows: Positions of the selected images, `[N]`.
      where: Their shifts, `[N, parameters]`.
    """
    return divided(shifting.move(images[rows], where), mesh)


def tell_nobody(pairs: int) -> None:
    """Ignores the number of completed pairs."""


@dataclass
class Trial:
    """One batch of one measurement.

    Attributes:
      predict: Function from images to outputs.
      compare: How outputs are compared.
      shifting: The kind of shifts.
      images: `[B, H, W, C]` with their margins, see `everywhere`.
      reference: Reference of the comparison.
      still: Columns of the unshifted images, each `[B]` or `[B, ...]`.
      label: Labels, `[B, ...]`.
      mask: Images that count, bool `[B]`. False for padding.
      numbers: Index of each image in the data set, `[B]`. Padding has the index of the next image.
      until_fooled: Skip the remaining shifts of an image after its first wrong class.
      advance: Called with the number of (image, shift) pairs that were completed or skipped.
    """

    predict: Predict
    compare: Comparison
    shifting: Shifting
    images: jax.Array
    reference: Reference
    still: Columns
    label: np.ndarray
    mask: np.ndarray
    numbers: np.ndarray
    until_fooled: bool
    advance: Callable[[int], None] = tell_nobody

    def filled(self, rows: np.ndarray, where: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Pads at most B `rows` `[n]` and their shifts `where` `[n, parameters]` with zeros to B."""
        return filled(rows, where, len(self.mask))

    def forward(self, rows: np.ndarray, where: np.ndarray) -> Any:
        """Outputs `[B, ...]` for at most B `rows` `[n]`, moved by `where`; the other outputs are padding."""
        moved = (self.images, *self.filled(rows, where))
        return self.predict(moved_rows(self.shifting, mesh_of(self.images), *moved))

    def run(self, where: np.ndarray, among: np.ndarray | None = None) -> Table:
        """Evaluates the batch under shifts, one shift after the other, in full batches of pairs.

        With `until_fooled`, pairs of images with a known wrong class are dropped. Other pairs fill the batch.

        Args:
          where: The shifts `[K, B, parameters]`.
          among: The images to evaluate, bool `[B]`; default: all.

        Returns:
          The table of results.

        Raises:
          ConfigError: The images cannot be moved by these shifts, or `until_fooled` is set without classes.
        """
        count, size = where.shape[:2]
        self.shifting.check(self.images.shape, where)
        if self.until_fooled and "correct" not in self.still:
            raise ConfigError("worst cases need classes of images: use CompareLogits, not features or maps.")
        alive = self.mask if among is None else self.mask & among
        if self.until_fooled:
            alive = alive & self.still["correct"]
        pending = np.flatnonzero(np.broadcast_to(alive, (count, size)))
        flat = where.reshape(count * size, -1)
        visited = np.zeros(count * size, bool)
        columns = {
            name: np.zeros((count * size, *values.shape[1:]), values.dtype)
            for name, values in self.still.items()
        }
        done = count * int(self.mask.sum()) - len(pending)
        under_way: deque[tuple[np.ndarray, Any]] = deque()
        while len(pending) or under_way:
            while len(pending) and len(under_way) < AHEAD:
                pairs, pending = pending[:size], pending[size:]
                under_way.append((pairs, self.forward(pairs % size, flat[pairs])))
            pairs, outputs = under_way.popleft()
            rows = pairs % size
            found = self.compare(self.reference, rows, outputs, flat[pairs], self.shifting)
            for name, values in found.items():
                columns[name][pairs] = values
            visited[pairs] = True
            done += len(pairs)
            if self.until_fooled and not found["correct"].all():
                alive = alive.copy()
                alive[rows[~found["correct"]]] = False
                left = pending[alive[pending % size]]
                done, pending = done + len(pending) - len(left), left
            self.advance(done)
            done = 0
        self.advance(done)
        visited = visited.reshape(count, size)
        # Pairs computed after an image's first wrong class depend on the batch, so they do not count.
        if self.until_fooled:
            wrong = visited & ~columns["correct"].reshape(count, size)
            visited &= np.cumsum(wrong, axis=0) - wrong == 0
        shaped = {name: column.reshape(count, size, *column.shape[1:]) for name, column in columns.items()}
        return Table(where, visited, shaped, self.still, self.mask)


class Refine(Protocol):
    """Interface of searches for worse shifts, which start from the results of a table."""

    @property
    def count(self) -> int:
        """Forward passes per image, including skipped ones, as reported to `Trial.advance`."""

    def __call__(self, trial: Trial, table: Table) -> Table:
        """Evaluates the batch under further shifts.

        Args:
          trial: The batch.
          table: The results so far.

        Returns:
          The table of the further shifts.
        """

"""One batch of images and many shifts: forwards in full batches of (image, shift) pairs.

Shifted and unshifted images go through the very same compiled function, in batches of the same size, so that
a difference comes from the network and not from the compiler.

Images lie whole on every device, and the work is divided over the devices. With several processes, all run
the same evaluation on the same batches (`training.mesh.evaluated_batches`), of which each holds its part; all
get the same results.
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
# Forwards that are under way before the first is read: the host works beside the device.
AHEAD = 2


def mesh_of(images: Any) -> Mesh | None:
    """The mesh (of `training.mesh`) that images lie on, over which work is divided; None if on none."""
    mesh = getattr(getattr(images, "sharding", None), "mesh", None)
    return mesh if isinstance(mesh, Mesh) and set(BATCH_AXES) <= set(mesh.axis_names) else None


def everywhere(array: Any, mesh: Mesh | None) -> jax.Array:
    """The array whole on each of the devices of a mesh."""
    return replicate(array, mesh) if mesh else jnp.asarray(array)


def divided(array: jax.Array, mesh: Mesh | None) -> jax.Array:
    """In a compiled function: every device computes its part of a batch."""
    return jax.lax.with_sharding_constraint(array, split(mesh)) if mesh else array


def collected(array: jax.Array, mesh: Mesh | None) -> jax.Array:
    """In a compiled function: the whole result comes to every device, and so to every process."""
    return jax.lax.with_sharding_constraint(array, replicated(mesh)) if mesh else array


def compared_maps(
    compare: Callable[..., Mapping[str, jax.Array]],
    reference: Reference,
    rows: np.ndarray,
    outputs: Any,
    where: np.ndarray,
    what: str,
) -> Columns:
    """The columns of pairs whose outputs are maps, which are compared where they lie.

    Args:
      compare: compiled: (mesh, reference, rows, outputs, where) -> columns [B, ...] with "finite".
      reference, rows, outputs, where: see `Comparison`.
      what: the outputs, for a message if they are not finite.
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
    """Those of `images` [B, H, W, C] that `rows` [N] names, each moved by its own `where` [N, parameters].

    Every device of `mesh` computes a part of them, see `mesh_of`.
    """
    return divided(shifting.move(images[rows], where), mesh)


def tell_nobody(pairs: int) -> None:
    """Tells nobody how many pairs are done."""


@dataclass
class Trial:
    """One batch under one measurement: what `run` needs, and a `Refine` may use.

    Attributes:
      images: [B, H, W, C] with their margins, see `everywhere`.
      reference: what shifted images are compared with.
      still: columns of the unshifted images, each [B] or [B, ...].
      label, mask, numbers: [B]; numbers are the images' places in the data set, of filling the next one's.
      until_fooled: leave out the further shifts of an image once it is classified wrongly.
      advance: told how many (image, shift) pairs are done or left out.
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
        """At most B `rows` [n] and their shifts `where` [n, parameters], both filled up with zeros to [B]."""
        return filled(rows, where, len(self.mask))

    def forward(self, rows: np.ndarray, where: np.ndarray) -> Any:
        """Outputs [B, ...] for at most B `rows` [n] moved by `where` [n, parameters]; the rest is filling."""
        moved = (self.images, *self.filled(rows, where))
        return self.predict(moved_rows(self.shifting, mesh_of(self.images), *moved))

    def run(self, where: np.ndarray, among: np.ndarray | None = None) -> Table:
        """The answers under the shifts [K, B, parameters], shift by shift, in full batches of pairs.

        With `until_fooled`, pairs of images that are known to be fooled are dropped, and the others move up.
        `among` [B] leaves out images from the start.
        """
        count, size = where.shape[:2]
        self.shifting.check(self.images.shape, where)
        if self.until_fooled and "correct" not in self.still:
            raise ConfigError("worst cases need classes of images: compare logits, not features or maps.")
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
        if self.until_fooled:  # what was under way beyond an image's first failure depends on the batch
            wrong = visited & ~columns["correct"].reshape(count, size)
            visited &= np.cumsum(wrong, axis=0) - wrong == 0
        shaped = {name: column.reshape(count, size, *column.shape[1:]) for name, column in columns.items()}
        return Table(where, visited, shaped, self.still, self.mask)


class Refine(Protocol):
    """Looks for further shifts, knowing what the first ones did."""

    @property
    def count(self) -> int:
        """Passes of an image through the network, those left out included: what `Trial.advance` is told."""

    def __call__(self, trial: Trial, table: Table) -> Table:
        """The answers under the further shifts."""

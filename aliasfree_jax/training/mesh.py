"""The devices of a run as one mesh, over which every batch is split, and parameters if asked.

The step is an ordinary `jax.jit` over this mesh: every operation of the networks keeps the batch
local (resampling is done by matrix products; jax 0.10 gathers the batch for an FFT), so the compiler only
adds all-reduces. With sharded parameters (ZeRO, Rajbhandari et al. 2020, arXiv 1910.02054) it gathers each
where it is used, and every device updates its own part.

The mesh spans the devices of all processes (`aliasfree_jax.processes`), each process's side by side, so that
the rows that a process reads are those that its devices need.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from aliasfree_jax.checkpoint import PyTree
from aliasfree_jax.data import Batch, BatchStream, ProcessPart, Source, eval_batches
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.processes import gathered

DATA, SHARD = "data", "shard"
BATCH_AXES = (DATA, SHARD)  # a batch is split over all devices
# Arrays with fewer elements are kept whole on every device: gathering them takes longer than they are worth.
SMALLEST_SHARDED = 4096


def make_mesh(devices: int = 0, shards: int = 1) -> Mesh:
    """A mesh of the first `devices` devices (0 = all): axes "data" x "shard", the latter of length `shards`.

    Raises:
      ConfigError: there are fewer devices, some processes would have none, or `shards` does not divide them.
    """
    available = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if not 0 <= devices <= len(available):
        raise ConfigError(f"train.devices = {devices}, but there are {len(available)}; 0 uses all.")
    if devices and jax.process_count() > 1 and devices < len(available):
        raise ConfigError(
            f"train.devices = {devices} of {len(available)} would leave processes without: with several "
            "processes use all (0), and start fewer processes."
        )
    chosen = np.array(available[: devices or None])
    if shards < 1 or chosen.size % shards:
        raise ConfigError(
            f"train.parameter_shards = {shards} must be at least 1 and divide the {chosen.size} device(s)."
        )
    # make_mesh of jax would default to Explicit axes
    return Mesh(chosen.reshape(-1, shards), (DATA, SHARD), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The first axis of an array divided over the devices: batches."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def sharding_of(shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """How an array of the training state lies: its longest divisible axis over "shard", if it is large."""
    shards = mesh.shape[SHARD]
    axes = [axis for axis, size in enumerate(shape) if size % shards == 0]
    if shards == 1 or not axes or np.prod(shape) < SMALLEST_SHARDED:
        return replicated(mesh)
    longest = max(axes, key=lambda axis: shape[axis])
    return NamedSharding(mesh, PartitionSpec(*(None,) * longest, SHARD))


def state_shardings(tree: PyTree, mesh: Mesh) -> PyTree:
    """`sharding_of` every leaf of a training state, or of a part of one."""
    return jax.tree.map(lambda leaf: sharding_of(leaf.shape, mesh), tree)


def own_part() -> ProcessPart:
    """The rows of each batch that this process reads."""
    return ProcessPart(jax.process_index(), jax.process_count())


def own_eval_batches(source: Source, data: ConfigDict, batch_size: int, *, skip: bool = False) -> BatchStream:
    """`eval_batches` of this process's rows; `batch_size` is that of all processes together."""
    return eval_batches(source, data, batch_size=batch_size, part=own_part(), skip=skip)


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Starts moving a batch of host arrays, this process's rows, to the devices, first axis divided."""
    sharding = split(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """`tree` whole on every device; host arrays in it must be the same in all processes."""

    def portable(leaf: Any) -> Any:  # what one process alone holds cannot enter a common computation
        return np.asarray(leaf) if getattr(leaf, "is_fully_addressable", True) else leaf

    return jax.jit(lambda values: values, out_shardings=replicated(mesh))(jax.tree.map(portable, tree))


def evaluated_batches(batches: Iterable[Batch], mesh: Mesh) -> Iterator[dict[str, Any]]:
    """Evaluation batches as all processes see them: images on the devices, labels and masks of all rows.

    Args:
      batches: this process's rows; filled up with masked zeros to a multiple of its devices.
      mesh: devices that the images are divided over.
    """
    local = len(mesh.local_devices)
    for batch in batches:
        missing = -len(batch["label"]) % local
        filled = {
            name: np.pad(array, [(0, missing)] + [(0, 0)] * (array.ndim - 1)) if missing else array
            for name, array in batch.items()
        }
        images = put_batch({"image": filled["image"]}, mesh)
        yield images | {name: gathered(filled[name]) for name in ("label", "mask")}


def check_batch(batch_size: int, accumulation_steps: int, mesh: Mesh) -> None:
    """Checks that every device gets equally many examples of every micro-batch.

    Raises:
      ConfigError: it does not work out.
    """
    unit = accumulation_steps * mesh.size
    if batch_size % unit:
        below = batch_size - batch_size % unit
        near = " or ".join(str(size) for size in (below, below + unit) if size)
        raise ConfigError(
            f"train.batch_size = {batch_size} cannot be divided over {mesh.size} device(s) x "
            f"train.accumulation_steps = {accumulation_steps}: use a multiple of {unit}, e.g. {near}."
        )

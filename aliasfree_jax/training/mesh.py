"""The devices of a run as one mesh. Every batch is divided over it, and on request the parameters too.

The step is an ordinary `jax.jit` over this mesh. Every operation of the networks keeps the batch local, so
the compiler only adds all-reduces. (Resampling uses matrix products; jax 0.10 would gather the batch for an
FFT.) With sharded parameters (ZeRO, Rajbhandari et al. 2020, arXiv 1910.02054) the compiler gathers each
parameter where it is used, and every device updates its part.

The mesh contains the devices of all processes (`aliasfree_jax.processes`). The devices of a process are
adjacent, so that a process reads exactly the rows that its devices need.
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
# Smaller arrays are kept whole on every device: gathering them takes too long for the memory saved.
SMALLEST_SHARDED = 4096


def make_mesh(devices: int = 0, shards: int = 1) -> Mesh:
    """A mesh of the first `devices` devices, with the axes "data" and "shard".

    Args:
      devices: number of devices; 0 uses all.
      shards: length of the axis "shard".

    Raises:
      ConfigError: there are fewer devices, some processes would have none, or `shards` does not divide them.
    """
    available = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if not 0 <= devices <= len(available):
        raise ConfigError(
            f"train.devices = {devices}, but there are {len(available)} device(s): use 0 for all, or fewer."
        )
    if devices and jax.process_count() > 1 and devices < len(available):
        raise ConfigError(
            f"train.devices = {devices} of {len(available)} would leave processes without a device: set "
            "train.devices = 0 (all), and start fewer processes if you want fewer devices."
        )
    chosen = np.array(available[: devices or None])
    if shards < 1 or chosen.size % shards:
        raise ConfigError(
            f"train.parameter_shards = {shards} must be at least 1 and divide the {chosen.size} device(s)."
        )
    # jax.make_mesh would default to Explicit axes.
    return Mesh(chosen.reshape(-1, shards), (DATA, SHARD), axis_types=(AxisType.Auto,) * 2)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that is whole on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The sharding of a batch: the first axis is divided over the devices."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def sharding_of(shape: tuple[int, ...], mesh: Mesh) -> NamedSharding:
    """The sharding of an array of the training state.

    If the array is large, its longest divisible axis is divided over "shard".
    """
    shards = mesh.shape[SHARD]
    axes = [axis for axis, size in enumerate(shape) if size % shards == 0]
    if shards == 1 or not axes or np.prod(shape) < SMALLEST_SHARDED:
        return replicated(mesh)
    longest = max(axes, key=lambda axis: shape[axis])
    return NamedSharding(mesh, PartitionSpec(*(None,) * longest, SHARD))


def state_shardings(tree: PyTree, mesh: Mesh) -> PyTree:
    """`sharding_of` for every leaf of a training state, or of a part of it."""
    return jax.tree.map(lambda leaf: sharding_of(leaf.shape, mesh), tree)


def own_part() -> ProcessPart:
    """The rows of each batch that this process reads."""
    return ProcessPart(jax.process_index(), jax.process_count())


def own_eval_batches(source: Source, data: ConfigDict, batch_size: int, *, skip: bool = False) -> BatchStream:
    """`eval_batches` of this process's rows. `batch_size` counts the rows of all processes."""
    return eval_batches(source, data, batch_size=batch_size, part=own_part(), skip=skip)


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Starts to move this process's rows of a batch from the host to the devices, first axis divided."""
    sharding = split(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, array) for name, array in batch.items()}


def replicate(tree: PyTree, mesh: Mesh) -> PyTree:
    """Puts `tree` whole on every device. Host arrays in it must be equal in all processes."""

    def portable(leaf: Any) -> Any:  # arrays of a single process cannot enter a common computation
        return np.asarray(leaf) if getattr(leaf, "is_fully_addressable", True) else leaf

    return jax.jit(lambda values: values, out_shardings=replicated(mesh))(jax.tree.map(portable, tree))


def evaluated_batches(batches: Iterable[Batch], mesh: Mesh) -> Iterator[dict[str, Any]]:
    """Evaluation batches for all processes: images on the devices, labels and masks of all rows.

    Args:
      batches: this process's rows. They are padded with masked zeros to a multiple of its devices.
      mesh: devices that share the images.
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
    """Checks that every device receives equally many examples of every micro-batch.

    Raises:
      ConfigError: this is impossible.
    """
    unit = accumulation_steps * mesh.size
    if batch_size % unit:
        below = batch_size - batch_size % unit
        near = " or ".join(str(size) for size in (below, below + unit) if size)
        raise ConfigError(
            f"train.batch_size = {batch_size} cannot be divided over {mesh.size} device(s) x "
            f"train.accumulation_steps = {accumulation_steps}: use a multiple of {unit}, e.g. {near}."
        )

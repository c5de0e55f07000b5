"""The devices of a run as one named axis, over which every batch is split.

The step is an ordinary `jax.jit` over this mesh: every operation of the networks keeps the batch
local (resampling is done by matrix products; jax 0.10 gathers the batch for an FFT), so the compiler only
adds all-reduces.
"""

from collections.abc import Mapping

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from aliasfree_jax.errors import ConfigError

AXIS = "data"


def make_mesh(devices: int = 0) -> Mesh:
    """A mesh of the first `devices` devices (0 = all) along one axis.

    Raises:
      ConfigError: there are fewer devices.
    """
    available = jax.devices()
    if not 0 <= devices <= len(available):
        raise ConfigError(f"train.devices = {devices}, but there are {len(available)}; 0 uses all.")
    chosen = np.array(available[: devices or None])
    return Mesh(chosen, (AXIS,), axis_types=(AxisType.Auto,))  # make_mesh would default to Explicit


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device: parameters and everything else that is no batch."""
    return NamedSharding(mesh, PartitionSpec())


def split(mesh: Mesh) -> NamedSharding:
    """The first axis of an array divided over the devices: batches."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


def put_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Starts moving a batch of host arrays to the devices, first axis divided."""
    return jax.device_put(dict(batch), split(mesh))


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

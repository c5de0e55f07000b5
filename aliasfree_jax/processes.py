"""Several processes that train or evaluate as one: joining them, and what they agree upon.

Every process runs the same program on the same arguments; arrays that span all devices are computed by all
of them together. Files are written by the first process. With one process all functions here are trivial.
"""

import json
import os
from collections.abc import Callable, Mapping
from itertools import takewhile
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from aliasfree_jax.errors import AliasFreeError, ConfigError, unknown
from aliasfree_jax.startup import LAUNCHER_COUNTS, TPU_HOSTS

LAUNCHERS = ("auto", "none", *LAUNCHER_COUNTS, "tpu")

# Where the GPUs are listed that a process may use, and what in such a list is none.
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
_NO_DEVICE = ("", "-1", "NoDevFiles")
# Numbers in SLURM's environment, and what counts where they are missing.
_SLURM_NUMBERS = {"STEP_NUM_TASKS": 1, "STEP_NUM_NODES": 1, "GPUS_ON_NODE": 0, "GPUS_PER_TASK": 0}


def detect(environment: Mapping[str, str]) -> str:
    """The launcher that started this process as one of several; "none" if it runs alone.

    A TPU virtual machine is recognised where its environment lists several workers (GKE, queued resources
    with that variable set); elsewhere ask for "tpu".
    """
    for launcher, variable in LAUNCHER_COUNTS.items():
        if int(environment.get(variable, "1")) > 1:
            return launcher
    return "tpu" if "," in environment.get(TPU_HOSTS, "") else "none"


def _visible(environment: Mapping[str, str]) -> int | None:
    """How many GPUs this process is shown; None if nothing limits them."""
    lists = [environment[name].split(",") for name in _VISIBLE if name in environment]
    # As CUDA reads it: the list ends at the first name of no device.
    counts = [len([*takewhile(lambda name: name.strip() not in _NO_DEVICE, names)]) for names in lists]
    return min(counts, default=None)


def _own_devices(visible: int, tasks: int, rank: int, on_node: int) -> list[int]:
    """Which of the visible GPUs are those of the task `rank` of so many on a node that has `on_node`.

    Either the launcher shows every task its own ones, which it numbers from 0, or all tasks see the same
    ones and share them out.
    """
    if visible < tasks or visible * tasks <= on_node:
        return list(range(visible))
    share = visible // tasks
    return list(range(rank * share, (rank + 1) * share))


def _initialize_arguments(launcher: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """What `jax.distributed.initialize` does not find out by itself under a launcher."""
    visible = _visible(environment)
    if launcher == "slurm":
        number = {
            name: int(environment.get(f"SLURM_{name}", least)) for name, least in _SLURM_NUMBERS.items()
        }
        tasks = -(-number["STEP_NUM_TASKS"] // number["STEP_NUM_NODES"])
        on_node = max(number["GPUS_ON_NODE"], tasks * number["GPUS_PER_TASK"])
        if visible is None and tasks == 1:
            visible = number["GPUS_ON_NODE"]
        # JAX gives a task the GPU of its number on the node, also if it sees one only or is alone.
        rank = int(environment["SLURM_LOCALID"]) if visible and tasks > 1 else 0
        return {"local_device_ids": _own_devices(visible, tasks, rank, on_node)} if visible else {}
    if launcher == "openmpi":  # not through JAX, which looks for variables that Open MPI 5 no longer sets
        ranks = [int(environment[f"OMPI_COMM_WORLD_{name}"]) for name in ("SIZE", "RANK", "LOCAL_RANK")]
        here = int(environment.get("OMPI_COMM_WORLD_LOCAL_SIZE", ranks[2] + 1))
        own = _own_devices(visible, here, ranks[2], on_node=0) if visible else [ranks[2]]
        return {"num_processes": ranks[0], "process_id": ranks[1], "local_device_ids": own}
    return {}


def connect(launcher: str = "auto", *, coordinator: str = "", count: int = 0, index: int = -1) -> None:
    """Joins the processes of this job; to be called before anything else touches a device.

    Either a launcher tells everything (SLURM: `srun python train.py ...`; Open MPI: `mpirun`; TPU pods), or
    the arguments do, the same for all processes but `index`. Open MPI 5 needs `coordinator` besides.

    Args:
      launcher: one of `LAUNCHERS`; "auto" looks for traces of one, "none" ignores them.
      coordinator: host:port of process 0, reachable by all, with a free port.
      count: number of processes.
      index: of this one, 0 to count - 1.

    Raises:
      ConfigError: incomplete or contradictory arguments, or the processes do not find each other.
    """
    if launcher not in LAUNCHERS:
        raise ConfigError(unknown("launcher", launcher, LAUNCHERS))
    if launcher == "auto":
        launcher = "none" if count else detect(os.environ)
    if launcher == "none" and not (coordinator or count or index >= 0):
        return
    try:
        arguments = _initialize_arguments(launcher, os.environ)
    except (KeyError, ValueError) as error:
        raise ConfigError(
            f"--launcher={launcher}, but its environment variable {error} is missing or no number: start the "
            "program by that launcher, or give --coordinator, --process_count and --process_index."
        ) from error
    if launcher == "none":
        if not (coordinator and count > 0 and 0 <= index < count):
            raise ConfigError(
                "processes that no launcher starts need --coordinator=HOST:PORT, --process_count=N and "
                f"--process_index=0..N-1, got {coordinator!r}, {count} and {index}."
            )
        arguments = {"num_processes": count, "process_id": index}
    if coordinator:
        arguments["coordinator_address"] = coordinator
    try:
        jax.distributed.initialize(**arguments)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"this process could not join the others (launcher {launcher}, {arguments}): {error}. "
            "Give --coordinator=HOST:PORT of the first process's machine, or --launcher=none to run alone."
        ) from error


def is_first() -> bool:
    """Whether this is the process that writes files and speaks."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until all processes have come here; `name` is the same for all."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def from_first(value: Any) -> Any:
    """The first process's `value`, which JSON can write, in all of them; numbers are exact."""
    if jax.process_count() == 1:
        return value
    content = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(content.size)))
    shared = content if is_first() else np.zeros(size, np.uint8)
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(shared), np.uint8)))


def of_first(act: Callable[[], Any]) -> Any:
    """What `act`, which the first process alone calls, gives there: `from_first`, in all of them.

    Raises:
      AliasFreeError: what it raises in the first process; in the others a `ConfigError` that says the same.
    """
    result, fault = None, None
    if is_first():
        try:
            result = act()
        except AliasFreeError as error:
            fault = error
    result, told = from_first([result, fault and str(fault)])
    if told is not None:
        raise fault or ConfigError(told)
    return result


def total(number: int) -> int:
    """The sum of the processes' numbers, below 2**31, in all of them."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).sum())


def gathered(array: Any) -> np.ndarray:
    """The whole of an array whose first axis is divided over the processes, in all of them."""
    if jax.process_count() == 1:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))

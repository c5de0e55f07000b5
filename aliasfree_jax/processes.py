"""Connects several processes that train or evaluate together, and exchanges values between them.

Every process runs the same program with the same arguments. All processes together compute the arrays that
span all devices. The first process writes the files. With only one process all functions here are trivial.
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

# Variables that list the GPUs a process may use, and the entries of such a list that mean "no GPU".
_VISIBLE = ("CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
_NO_DEVICE = ("", "-1", "NoDevFiles")
# Numbers in SLURM's environment, with the value to use if one is missing.
_SLURM_NUMBERS = {"STEP_NUM_TASKS": 1, "STEP_NUM_NODES": 1, "GPUS_ON_NODE": 0, "GPUS_PER_TASK": 0}


def detect(environment: Mapping[str, str]) -> str:
    """Detects the launcher that started this process as one of several; "none" if it runs alone.

    A TPU virtual machine is detected if its environment lists several workers (GKE, queued resources
    with that variable set). Otherwise the user has to pass "tpu".
    """
    for launcher, variable in LAUNCHER_COUNTS.items():
        if int(environment.get(variable, "1")) > 1:
            return launcher
    return "tpu" if "," in environment.get(TPU_HOSTS, "") else "none"


def _visible(environment: Mapping[str, str]) -> int | None:
    """Number of GPUs visible to this process; None if nothing limits them."""
    lists = [environment[name].split(",") for name in _VISIBLE if name in environment]
    # Like CUDA: the list ends at the first entry that is not a device.
    counts = [len([*takewhile(lambda name: name.strip() not in _NO_DEVICE, names)]) for names in lists]
    return min(counts, default=None)


def _own_devices(visible: int, tasks: int, rank: int, on_node: int) -> list[int]:
    """Indices of the visible GPUs that belong to one task on a node with `on_node` GPUs.

    Some launchers show each task only its GPUs, numbered from 0. With others all tasks see the same GPUs and
    divide them.
    """
    if visible < tasks or visible * tasks <= on_node:
        return list(range(visible))
    share = visible // tasks
    return list(range(rank * share, (rank + 1) * share))


def _initialize_arguments(launcher: str, environment: Mapping[str, str]) -> dict[str, Any]:
    """Arguments of `jax.distributed.initialize` that JAX does not detect under a launcher."""
    visible = _visible(environment)
    if launcher == "slurm":
        number = {
            name: int(environment.get(f"SLURM_{name}", least)) for name, least in _SLURM_NUMBERS.items()
        }
        tasks = -(-number["STEP_NUM_TASKS"] // number["STEP_NUM_NODES"])
        on_node = max(number["GPUS_ON_NODE"], tasks * number["GPUS_PER_TASK"])
        if visible is None and tasks == 1:
            visible = number["GPUS_ON_NODE"]
        # JAX would assign each task the GPU with the task's number on the node. This is wrong if the task
        # sees only one GPU, or if it is the only task of the node.
        rank = int(environment["SLURM_LOCALID"]) if visible and tasks > 1 else 0
        return {"local_device_ids": _own_devices(visible, tasks, rank, on_node)} if visible else {}
    if launcher == "openmpi":  # JAX looks for variables that Open MPI 5 no longer sets
        ranks = [int(environment[f"OMPI_COMM_WORLD_{name}"]) for name in ("SIZE", "RANK", "LOCAL_RANK")]
        here = int(environment.get("OMPI_COMM_WORLD_LOCAL_SIZE", ranks[2] + 1))
        own = _own_devices(visible, here, ranks[2], on_node=0) if visible else [ranks[2]]
        return {"num_processes": ranks[0], "process_id": ranks[1], "local_device_ids": own}
    return {}


def connect(launcher: str = "auto", *, coordinator: str = "", count: int = 0, index: int = -1) -> None:
    """Joins the processes of this job. Call it before anything else uses a device.

    A launcher provides all values (SLURM: `srun python train.py ...`; Open MPI: `mpirun`; TPU pods).
    Without a launcher, pass them as arguments. All processes pass the same values, except `index`.
    Open MPI 5 also needs `coordinator`.

    Args:
      launcher: One of `LAUNCHERS`. "auto" detects it, "none" ignores launchers.
      coordinator: host:port of process 0. All processes must reach it, and the port must be free.
      count: Number of processes.
      index: Index of this process, 0 to count - 1.

    Raises:
      ConfigError: Arguments are missing or contradictory, or the processes cannot connect.
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
            f"--launcher={launcher}, but its environment variable {error} is missing or not a number: start "
            "the program with that launcher, or pass --coordinator, --process_count and --process_index."
        ) from error
    if launcher == "none":
        if not (coordinator and count > 0 and 0 <= index < count):
            raise ConfigError(
                "several processes without a launcher need --coordinator=HOST:PORT, --process_count=N and "
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
            "Pass --coordinator=HOST:PORT of the first process's machine, or --launcher=none to run alone."
        ) from error


def is_first() -> bool:
    """Whether this is the process that writes files and prints."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until all processes have reached the barrier of this name."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def from_first(value: Any) -> Any:
    """Returns the first process's `value` in all processes. It must be valid JSON; numbers stay exact."""
    if jax.process_count() == 1:
        return value
    content = np.frombuffer(json.dumps(value).encode(), np.uint8)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(content.size)))
    shared = content if is_first() else np.zeros(size, np.uint8)
    return json.loads(bytes(np.asarray(multihost_utils.broadcast_one_to_all(shared), np.uint8)))


def of_first(act: Callable[[], Any]) -> Any:
    """Calls `act` only in the first process and returns its result in all processes.

    Raises:
      AliasFreeError: `act` raised it in the first process. The others raise a `ConfigError` with its text.
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
    """Returns the sum of all processes' numbers in every process. The sum must be below 2**31."""
    if jax.process_count() == 1:
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).sum())


def gathered(array: Any) -> np.ndarray:
    """Returns a whole array, whose first axis is divided over the processes, in every process."""
    if jax.process_count() == 1:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))

"""Tests of joining processes: arguments for each launcher, and errors. tests/training uses real processes."""

import jax
import numpy as np
import pytest

from aliasfree_jax import processes
from aliasfree_jax.errors import ConfigError, DataError
from aliasfree_jax.processes import connect, detect

SLURM = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "4", "SLURM_GPUS_ON_NODE": "8"}
MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
# The second of four tasks on one node with eight GPUs, for different visible GPUs.
FOUR = {
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "1",
    "SLURM_LOCALID": "1",
    "SLURM_GPUS_ON_NODE": "8",
}
LIST, UUID = "CUDA_VISIBLE_DEVICES", "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
EIGHT = "0,1,2,3,4,5,6,7"
SLURM_GPUS = [
    (FOUR | {LIST: "1"}, [0]),  # one GPU per task (bound, or in a cgroup): JAX sees it as number 0
    (FOUR | {LIST: "0", "SLURM_GPUS_ON_NODE": "4"}, [0]),
    (FOUR | {LIST: "0", "SLURM_GPUS_ON_NODE": "1"}, [0]),
    (FOUR | {LIST: UUID}, [0]),
    (FOUR | {"ROCR_VISIBLE_DEVICES": "3"}, [0]),
    (FOUR | {"ROCR_VISIBLE_DEVICES": "0,1", "HIP_VISIBLE_DEVICES": "1"}, [0]),
    (FOUR | {LIST: "2,-1,3"}, [0]),  # CUDA ignores the entries after -1
    (FOUR | {LIST: "2,3"}, [0, 1]),  # --gpus-per-task=2
    (FOUR | {LIST: "0,1,2,3", "SLURM_GPUS_ON_NODE": "4"}, [1]),  # all tasks see all GPUs and divide them
    (FOUR | {LIST: "0,1,2,3"}, [1]),
    (FOUR | {LIST: EIGHT}, [2, 3]),
    ({k: v for k, v in FOUR.items() if k != "SLURM_GPUS_ON_NODE"} | {LIST: "0,1,2,3,4"}, [1]),
    (FOUR | {LIST: "4,5,6,7", "SLURM_GPUS_ON_NODE": "0", "SLURM_GPUS_PER_TASK": "4"}, [0, 1, 2, 3]),
    (SLURM_ALONE := FOUR | {"SLURM_STEP_NUM_NODES": "4", "SLURM_LOCALID": "0", LIST: EIGHT}, list(range(8))),
    (SLURM_ALONE | {LIST: "5"}, [0]),
]
MPI_RANKS = {"num_processes": 4, "process_id": 2}
MPI_GPUS = [
    (MPI | {LIST: "1"}, [0]),
    (MPI | {LIST: "", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, [1]),  # no GPU: JAX ignores the index
    (MPI | {LIST: "0,1,2,3", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, [1]),
    (MPI | {LIST: EIGHT, "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, [2, 3]),
    (MPI | {LIST: EIGHT, "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, [4, 5, 6, 7]),
    (MPI | {LIST: "0,1", "OMPI_COMM_WORLD_LOCAL_SIZE": "4"}, [0, 1]),
]
TPU = {"TPU_WORKER_HOSTNAMES": "10.0.0.1,10.0.0.2"}


@pytest.fixture
def joined(monkeypatch):
    """Arguments of the calls of `jax.distributed.initialize`. The environment starts without variables."""
    shown = (LIST, "ROCR_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL")
    for name in (*SLURM, *FOUR, *MPI, *TPU, *shown, "SLURM_GPUS_PER_TASK", "OMPI_COMM_WORLD_LOCAL_SIZE"):
        monkeypatch.delenv(name, raising=False)
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: calls.append(arguments))
    return calls


@pytest.mark.parametrize(
    ("environment", "launcher"),
    [
        ({}, "none"),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, "none"),  # a batch script without srun
        ({"SLURM_STEP_NUM_TASKS": "1"}, "none"),
        (SLURM, "slurm"),
        (MPI, "openmpi"),
        (TPU, "tpu"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, "none"),
    ],
)
def test_traces_of_a_launcher(environment, launcher):
    assert detect(environment) == launcher


@pytest.mark.parametrize(
    ("environment", "arguments"),
    [
        # One task per node: all GPUs, not only the first. One task per GPU: JAX's rule.
        (SLURM, {"local_device_ids": list(range(8))}),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "32"}, {}),
        (FOUR | {LIST: ""}, {}),  # runs on the CPU
        (FOUR | {LIST: "NoDevFiles"}, {}),
        (MPI, {"num_processes": 4, "process_id": 2, "local_device_ids": [1]}),
        (TPU, {}),
        *((environment, {"local_device_ids": own}) for environment, own in SLURM_GPUS),
        *((environment, MPI_RANKS | {"local_device_ids": own}) for environment, own in MPI_GPUS),
    ],
)
def test_a_launcher_tells_everything(joined, monkeypatch, environment, arguments):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    connect()
    connect("none")
    assert joined == [arguments]


def test_alone_or_by_arguments(joined, monkeypatch):
    connect()
    assert joined == []
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    connect(coordinator="node0:1234", count=2, index=1)  # arguments have priority over the environment
    assert joined == [{"coordinator_address": "node0:1234", "num_processes": 2, "process_id": 1}]


def test_what_cannot_work_is_refused(joined, monkeypatch):
    with pytest.raises(ConfigError, match="unknown launcher 'slrm'. Did you mean 'slurm'"):
        connect("slrm")
    for arguments in ({"count": 2}, {"coordinator": "a:1", "count": 2, "index": 2}, {"coordinator": "a:1"}):
        with pytest.raises(ConfigError, match="need --coordinator=HOST:PORT, --process_count=N and"):
            connect(**arguments)
    with pytest.raises(ConfigError, match="--launcher=openmpi, but its environment variable 'OMPI_COMM"):
        connect("openmpi")
    assert joined == []

    def fails(**arguments):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", fails)
    with pytest.raises(ConfigError, match="could not join the others .launcher tpu.*Pass --coordinator="):
        connect("tpu")


def test_one_process_agrees_with_itself():
    assert processes.is_first()
    assert processes.total(3) == 3 and processes.from_first(0.1) == 0.1
    np.testing.assert_array_equal(processes.gathered(np.arange(3)), [0, 1, 2])
    processes.barrier("nobody else")


def test_what_the_first_process_does_is_known_to_all(monkeypatch):
    def refuse():
        raise DataError("nothing there")

    assert processes.of_first(lambda: {"a": [1, "b"]}) == {"a": [1, "b"]}
    with pytest.raises(DataError, match="nothing there"):
        processes.of_first(refuse)
    # In the other processes, which only receive the result.
    monkeypatch.setattr(processes, "is_first", lambda: False)
    monkeypatch.setattr(processes, "from_first", lambda mine: [7, None])
    assert processes.of_first(refuse) == 7
    monkeypatch.setattr(processes, "from_first", lambda mine: [None, "nothing there"])
    with pytest.raises(ConfigError, match="nothing there"):
        processes.of_first(refuse)

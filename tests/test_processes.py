"""Joining other processes: what each launcher's environment leads to, and the errors (real: training)."""

import jax
import numpy as np
import pytest

from aliasfree_jax import processes
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.processes import connect, detect

SLURM = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "4", "SLURM_GPUS_ON_NODE": "8"}
MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "2", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
TPU = {"TPU_WORKER_HOSTNAMES": "10.0.0.1,10.0.0.2"}


@pytest.fixture
def joined(monkeypatch):
    """What `jax.distributed.initialize` is called with; the environment is empty at first."""
    for name in (*SLURM, *MPI, *TPU):
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
        # One task a node: all of its GPUs, not the first. One task a GPU: JAX's own rule.
        (SLURM, {"local_device_ids": list(range(8))}),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "32"}, {}),
        (MPI, {"num_processes": 4, "process_id": 2, "local_device_ids": [1]}),
        (TPU, {}),
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
    connect(coordinator="node0:1234", count=2, index=1)  # what is said counts more than what is found
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
    with pytest.raises(ConfigError, match="could not join the others .launcher tpu.*Give --coordinator="):
        connect("tpu")


def test_one_process_agrees_with_itself():
    assert processes.is_first()
    assert processes.total(3) == 3 and processes.from_first(0.1) == 0.1
    np.testing.assert_array_equal(processes.gathered(np.arange(3)), [0, 1, 2])
    processes.barrier("nobody else")

"""train.py in one process and in two real processes that join each other: the same run."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from aliasfree_jax.checkpoint import finished_steps, load_model, named_leaves

ROOT = Path(__file__).resolve().parents[2]
# A small alias-free network with mixing and averages; 43 images do not fill the last evaluation batch.
ARGUMENTS = (
    "--config.model.options.depths=(1,)",
    "--config.model.options.widths=(32,)",  # its MLP is just large enough to be sharded
    "--config.data.train_limit=160",
    "--config.data.validation=0.2",
    "--config.data.eval_limit=43",
    "--config.train.batch_size=16",
    "--config.train.total_epochs=1.0",
    "--config.train.mixing.mixup=0.8",
    "--config.train.mixing.group=4",
    "--config.train.ema_decay=0.9",
    "--config.optimizer.warmup_epochs=0.5",
    "--config.eval.batch_size=16",
    "--config.eval.during=integer",
    "--config.eval.shifts=2",
    "--config.checkpoint.every_epochs=0.25",
    "--config.log.every_steps=1",
)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        return probe.getsockname()[1]


def start(workdir: Path, processes: int, devices: int, *arguments: str) -> list[subprocess.Popen]:
    """Starts train.py `processes` times, each with `devices` virtual devices."""
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    if processes > 1:  # with the cache, one process would run ahead, and Gloo does not wait long
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    command = [sys.executable, "train.py", f"--workdir={workdir}", *ARGUMENTS, *arguments]
    address = f"--coordinator=localhost:{free_port()}"
    own = [
        [address, f"--process_count={processes}", f"--process_index={index}"] if processes > 1 else []
        for index in range(processes)
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen([*command, *o], cwd=ROOT, env=environment, **pipes) for o in own]


def finish(started: list[subprocess.Popen], status: int = 0) -> list[tuple[str, str]]:
    """Waits for all processes. Returns the output of each."""
    printed = [process.communicate(timeout=300) for process in started]
    assert [process.returncode for process in started] == [status] * len(started), printed
    return printed


def events(workdir: Path, split: str) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["split"] == split]


def parameters(workdir: Path) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in named_leaves(load_model(workdir)[2]).items()}


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The run of one process with one device."""
    workdir = tmp_path_factory.mktemp("alone") / "run"
    finish(start(workdir, 1, 1))
    return workdir


# Gloo's threads write their lines in pieces, which mix with each other.
GLOO = r"\[Gloo\] Rank |\d+| is connected to | peer ranks\. Expected number of connected peer ranks is : "


@pytest.mark.slow
def test_processes_and_devices_change_nothing(alone, tmp_path):
    """The next test has sharded parameters."""
    printed = finish(start(tmp_path / "run", 2, 2, "--config.data.workers=1"))
    losses = [[event["loss"] for event in events(run, "train")] for run in (alone, tmp_path / "run")]
    assert len(losses[0]) == 8
    # Float32 sums in another order; the difference grows over eight updates.
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)
    mine, other = (json.loads((run / "results.json").read_text()) for run in (tmp_path / "run", alone))
    assert mine["images"] == other["images"] == 43  # every image once
    assert mine["integer"]["pairs"] == 86 and mine["accuracy"] == other["accuracy"]
    assert mine["fractional"]["consistency"] == other["fractional"]["consistency"]
    ((here,), (there,)) = (events(run, "validation") for run in (tmp_path / "run", alone))
    for name in ("images", "accuracy", "raw_accuracy", "integer_consistency", "raw_integer_consistency"):
        assert here[name] == there[name]
    assert here["images"] == 32
    whole, parts = parameters(alone), parameters(tmp_path / "run")
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name], value, rtol=0, atol=1e-5, err_msg=name)
    first, *others = (out for out, _ in printed)
    assert first.strip().splitlines()[-1].startswith("evaluate again")
    assert not any(re.sub(GLOO, "", out).strip() for out in others)


@pytest.mark.slow
def test_sigterm_to_any_process_stops_all_and_another_layout_goes_on(alone, tmp_path):
    workdir = tmp_path / "run"
    started = start(workdir, 2, 2, "--config.train.parameter_shards=2")
    while len(events(workdir, "train") if (workdir / "metrics.jsonl").exists() else []) < 3:
        assert all(process.poll() is None for process in started), finish(started)
        time.sleep(0.02)
    started[1].send_signal(signal.SIGTERM)
    printed = finish(started, status=143)
    assert all("terminated after step" in errors for _, errors in printed)
    stopped = finished_steps(workdir / "checkpoints")[-1]
    assert f"terminated after step {stopped} and" in printed[0][1] and 3 <= stopped < 8
    finish(start(workdir, 1, 1, "--config.train.parameter_shards=1"))
    assert [event["step"] for event in events(workdir, "train")] == list(range(1, 9))
    whole, parts = parameters(alone), parameters(workdir)
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name], value, rtol=0, atol=1e-6, err_msg=name)

"""`kill -9` at random moments: the run resumes each time, and ends with the same parameters as without."""

import json
import multiprocessing
import random
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pytest

from aliasfree_jax.checkpoint import finished_steps, load_model, named_leaves
from aliasfree_jax.training import loop
from configs import quickstart

KILLS, STEPS = 12, 64
# Separate processes, forked from one that has imported everything and started nothing.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([loop.__name__, quickstart.__name__, "sklearn.datasets"])
# One device: an array is saved in as many pieces as there are devices.
PROGRAM = """
import os

os.environ["XLA_FLAGS"] += " --xla_force_host_platform_device_count=1"
from aliasfree_jax.training import loop
from configs import quickstart

config = quickstart.get_config()
config.model.name = "resnet20_cifar"
config.model.options = {"depths": (1,), "widths": (4,)}
config.data.train_limit = 64
config.data.eval_limit = 32
config.train.batch_size = 32
config.train.total_epochs = steps / 2
config.train.ema_decay = 0.9
config.optimizer.warmup_epochs = 1.0
config.checkpoint.every_epochs = 1.0  # every 2 steps
config.log.every_steps = 1
loop.run(config, workdir)
"""


def start(workdir: Path) -> BaseProcess:
    process = PROCESSES.Process(target=exec, args=(PROGRAM, {"workdir": str(workdir), "steps": STEPS}))
    process.start()
    return process


def newest(workdir: Path) -> int:
    return (finished_steps(workdir / "checkpoints") or [0])[-1]


@pytest.mark.slow
def test_a_dozen_kills_change_nothing(tmp_path):
    draw = random.Random(0)
    undisturbed = start(tmp_path / "whole")
    undisturbed.join(timeout=300)
    assert undisturbed.exitcode == 0

    reached = [0]
    for _ in range(KILLS):
        process = start(tmp_path / "parts")
        # At random times between steps and while checkpoints are written; sometimes before the first step.
        goal = reached[-1] + 2 * draw.randint(0, 2)
        while newest(tmp_path / "parts") < goal and process.is_alive():
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.1))
        assert process.is_alive(), "the run ended before the last kill: make it longer"
        process.kill()
        process.join()
        reached.append(newest(tmp_path / "parts"))
    # The run never went back, and advanced in most of the attempts.
    assert reached == sorted(reached) and len(set(reached)) > KILLS / 2, reached
    assert reached[-1] < STEPS, "the run ended before the last kill: make it longer"
    last = start(tmp_path / "parts")
    last.join(timeout=300)
    assert last.exitcode == 0

    whole, parts = (named_leaves(load_model(tmp_path / run)[2]) for run in ("whole", "parts"))
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[name], value, err_msg=name)
    lines = [json.loads(line) for line in (tmp_path / "parts/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "train"] == list(range(1, STEPS + 1))

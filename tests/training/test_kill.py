"""`kill -9` at random moments: the run goes on each time, to the very parameters of an undisturbed one."""

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from aliasfree_jax.checkpoint import finished_steps, load_model, named_leaves

ROOT = Path(__file__).resolve().parents[2]
KILLS = 20
PROGRAM = """
import sys
from aliasfree_jax.training import loop
from configs import quickstart

config = quickstart.get_config()
config.model.name = "convnext_circular_micro"
config.model.options = {"depths": (1, 1), "widths": (8, 16)}
config.data.train_limit = 256
config.train.batch_size = 32
config.train.total_epochs = 25.0  # 200 steps
config.train.ema_decay = 0.9
config.optimizer.warmup_epochs = 1.0
config.checkpoint.every_epochs = 0.25  # every 2 steps
config.log.every_steps = 1
loop.run(config, sys.argv[1])
"""


def start(workdir: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, str(workdir)]
    return subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)


def newest(workdir: Path) -> int:
    return (finished_steps(workdir / "checkpoints") or [0])[-1]


@pytest.mark.slow
def test_twenty_kills_change_nothing(tmp_path):
    draw = random.Random(0)
    undisturbed = start(tmp_path / "whole")
    assert undisturbed.wait(timeout=300) == 0, undisturbed.stderr.read()

    reached = [0]
    for _ in range(KILLS):
        process = start(tmp_path / "parts")
        # At random between the steps, and while checkpoints are written; now and then before the first.
        goal = reached[-1] + 2 * draw.randint(0, 3)
        while newest(tmp_path / "parts") < goal and process.poll() is None:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.1))
        assert process.poll() is None, process.stderr.read()
        process.kill()
        process.communicate()
        reached.append(newest(tmp_path / "parts"))
    # It never went back, and got further in most of the attempts.
    assert reached == sorted(reached) and len(set(reached)) > KILLS / 2, reached
    assert reached[-1] < 200, "the run ended before the last kill: make it longer"
    last = start(tmp_path / "parts")
    errors = last.communicate(timeout=300)[1]
    assert last.returncode == 0, errors

    whole, parts = (named_leaves(load_model(tmp_path / run)[2]) for run in ("whole", "parts"))
    for name, value in whole.items():
        np.testing.assert_array_equal(parts[name], value, err_msg=name)
    lines = [json.loads(line) for line in (tmp_path / "parts/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == "train"] == list(range(1, 201))

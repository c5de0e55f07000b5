import json
import os
import time
from contextlib import closing

import jax.numpy as jnp
import pytest

from aliasfree_jax.errors import NotFiniteError
from aliasfree_jax.files import UnwritableError
from aliasfree_jax.training.progress import Progress
from aliasfree_jax.training.schedules import Plan

PLAN = Plan(batch_size=8, steps_per_epoch=10, total=40, warmup=0, evaluate_every=10, save_every=10)


def metrics(loss, rate=0.1, norm=1.0):
    values = {"loss": loss, "accuracy": 50, "learning_rate": rate, "grad_norm": norm}
    return {name: jnp.float32(value) for name, value in values.items()}


def read(tmp_path):
    return [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]


def test_a_line_is_the_mean_since_the_last_one(tmp_path):
    with closing(Progress(tmp_path, PLAN, start=0)) as progress:
        for loss, rate in ((1.0, 0.1), (2.0, 0.2), (6.0, 0.4)):
            progress.step(metrics(loss, rate))
        progress.log_steps()
        progress.log_steps()  # nothing new: no second line
    (line,) = read(tmp_path)
    assert (line["step"], line["epoch"], line["split"]) == (3, 0.3, "train")
    assert line["loss"] == 3.0 and line["learning_rate"] == pytest.approx(0.4)
    assert line["images_per_second"] > 0


def test_a_resumed_run_drops_later_and_broken_lines(tmp_path):
    lines = [json.dumps({"step": step, "split": "train"}) for step in (10, 20, 30)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + '\n{"step": 3')
    with closing(Progress(tmp_path, PLAN, start=20)) as progress:
        progress.step(metrics(1.0))
        progress.log_steps()
    assert [line["step"] for line in read(tmp_path)] == [10, 20, 21]


def test_the_step_that_diverged_is_named(tmp_path):
    with closing(Progress(tmp_path, PLAN, start=5)) as progress:
        progress.saved(tmp_path / "checkpoints" / "5")
        for loss in (1.0, float("inf"), float("nan")):
            progress.step(metrics(loss))
        with pytest.raises(
            NotFiniteError, match=r"loss of step 7 is inf. Last checkpoint: .*checkpoints/5\."
        ):
            progress.log_steps()


def test_a_gradient_that_is_not_a_number_ends_the_run_before_a_checkpoint(tmp_path):
    """The loss of its step is finite. An infinite norm is clipped, so the run goes on."""
    with closing(Progress(tmp_path, PLAN, start=5)) as progress:
        progress.step(metrics(1.0, norm=float("inf")))
        progress.log_steps()
        progress.step(metrics(1.0, norm=float("nan")))
        with pytest.raises(NotFiniteError, match=r"^the gradient of step 7 is nan\. Last checkpoint"):
            progress.log_steps()


def test_clock_leaves_out_what_is_not_training(tmp_path):
    with closing(Progress(tmp_path, PLAN, start=0)) as progress:
        progress.step(metrics(1.0))
        progress.restart_clock()
        progress.log_steps()
    assert "images_per_second" not in read(tmp_path)[0]


def test_waiting_for_data_is_told(tmp_path, capfd):
    with closing(Progress(tmp_path, PLAN, start=0)) as progress:
        with progress.waiting_for_data():
            time.sleep(0.05)
        progress.step(metrics(1.0))
        progress.log_steps()
        progress.step(metrics(1.0))
        progress.log_steps()
    first, second = read(tmp_path)
    assert first["data_wait"] > 0.5 and second["data_wait"] == 0  # the remaining time is microseconds


def test_a_full_disk_ends_the_run_and_keeps_the_lines(tmp_path):
    """/dev/full fails every write, like a full disk."""
    with closing(Progress(tmp_path, PLAN, start=0)) as progress:
        progress.saved(tmp_path / "checkpoints" / "5")
        progress._file.close()
        progress._file = full = open("/dev/full", "w")
        progress.step(metrics(1.0))
        with pytest.raises(UnwritableError, match=r"No space left.*Last checkpoint: .*/5\. Free some space"):
            progress.log_steps()
        progress._file = open(os.devnull, "w")
        with pytest.raises(OSError, match="No space left"):
            full.close()  # the unwritten text is still in it
    before = json.dumps({"step": 3}) + "\n"
    (tmp_path / "metrics.jsonl").write_text(before)
    (tmp_path / f".metrics.jsonl.{os.getpid()}.new").symlink_to("/dev/full")
    with pytest.raises(UnwritableError, match="No space left"):
        Progress(tmp_path, PLAN, start=3)
    assert (tmp_path / "metrics.jsonl").read_text() == before

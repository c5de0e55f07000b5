"""A disk that fills up while a run writes: the message is clear, and the last good state is kept."""

import subprocess
import sys
from pathlib import Path

import pytest

from aliasfree_jax.checkpoint import finished_steps, load_model

ROOT = Path(__file__).resolve().parents[2]
# From the first evaluation on, no file can grow beyond four kilobytes: the kernel refuses, as on a full disk.
# Files of a checkpoint are larger; `metrics.jsonl` is not.
PROGRAM = """
import resource, sys
from pathlib import Path
from aliasfree_jax.errors import CheckpointError
from aliasfree_jax.training import loop
from configs import quickstart

config = quickstart.get_config()
config.model.name = "convnext_circular_micro"
config.model.options = {"depths": (1, 1), "widths": (8, 16)}
config.data.train_limit, config.data.eval_limit = 64, 10
config.train.batch_size = 32
config.train.total_epochs = 3.0
config.optimizer.warmup_epochs = 1.0
config.checkpoint.every_epochs, config.checkpoint.best = 1.0, ""
config.log.every_steps = 100

def fill_disk(predict, batches):
    while not (Path(sys.argv[1]) / "checkpoints/2").exists():
        pass  # it is written in the background
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
    return {"accuracy": 0.5}

try:
    loop.run(config, sys.argv[1], evaluate=fill_disk)
except CheckpointError as error:
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    Path(sys.argv[1], "message").write_text(str(error))
    raise
"""


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_written(tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    # Read from a file: threads of tensorstore write to stderr at the same time, in the middle of words.
    message = (tmp_path / "message").read_text()
    assert message.startswith("cannot write checkpoint 6 to ") and "File too large" in message
    assert finished_steps(tmp_path / "checkpoints") == [2]
    assert load_model(tmp_path)[0].step == 2

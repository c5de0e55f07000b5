"""Recipes in miniature: what stays, what is shortened, and one complete run."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from aliasfree_jax import create_model
from aliasfree_jax.config import base_config
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.training.dry_run import shortened
from aliasfree_jax.training.schedules import make_plan
from aliasfree_jax.training.setup import model_options
from aliasfree_jax.validation import validate
from configs import cifar10_resnet, convnext_afc, imagenet_lps

ROOT = Path(__file__).resolve().parents[2]
PHOTOGRAPHS = ROOT.parent / "shared" / "data" / "imagenet-sample.tar"


@pytest.mark.parametrize("devices", [1, 4])
@pytest.mark.parametrize("recipe", [convnext_afc, imagenet_lps])
def test_three_updates_of_everything(recipe, devices):
    config = recipe.get_config()
    before = config.to_json()
    short = shortened(config, devices)
    validate(short)
    assert config.to_json() == before
    plan = make_plan(short, short.data.train_limit)
    assert (plan.total, plan.save_every) == (3, 1)
    assert short.train.batch_size % (devices * short.train.accumulation_steps) == 0
    flat, whole = (dict(c.to_dict()) for c in (short, config))
    assert flat["model"] == whole["model"]
    for name in ("rand_augment", "erase_probability", "crop", "flip", "circular_shift", "image_size"):
        assert flat["data"][name] == whole["data"][name]
    for name in ("ema_decay", "precision", "label_smoothing"):
        assert flat["train"][name] == whole["train"][name]
    assert flat["train"]["mixing"] == whole["train"]["mixing"] | {"group": 4}
    if config.optimizer.schedule == "step":
        assert max(short.optimizer.step_epochs) < 1
    assert short.optimizer.warmup_epochs < 0.1


def test_a_fault_of_the_recipe_is_not_hidden():
    config = base_config()
    config.train.batch_size, config.train.accumulation_steps = 10, 3
    with pytest.raises(ConfigError, match="not a multiple of"):
        shortened(config, 1)


@pytest.fixture
def photographs(tmp_path):
    """The 89 photographs of ../shared; without them, equally many smooth random images of the same size."""
    if PHOTOGRAPHS.exists():
        return PHOTOGRAPHS
    rng = np.random.default_rng(0)
    for number in range(89):
        folder = tmp_path / f"photographs/val/class{number % 4}"
        folder.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
        coarse.resize((500, 375), Image.Resampling.BICUBIC).save(folder / f"{number}.JPEG")
    return tmp_path / "photographs"


@pytest.mark.slow
def test_the_papers_recipe_on_photographs(tmp_path, photographs):
    """Everything except the size: a narrow network with one block in each stage, at 96 pixels."""
    data = [f"--config.data.path={photographs}", "--config.data.train_split=val"]
    config = [f"--config={ROOT}/configs/convnext_afc.py", "--config.dry_run=true"]
    config += [f"--config.model.options.{sizes}" for sizes in ("depths=(1,1,1,1)", "widths=(8,8,16,16)")]
    config.append("--config.data.image_size=96")
    command = [sys.executable, str(ROOT / "train.py"), *config, *data, f"--workdir={tmp_path}/run"]
    alone = os.environ | {"XLA_FLAGS": f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=alone)
    assert done.returncode == 0, done.stderr
    assert "step 3/3" in done.stderr and "fractional" in done.stdout
    assert Image.open(tmp_path / "run-dry-run/augmented.png").size == (8 * 98, 98)
    assert sorted(path.name for path in (tmp_path / "run-dry-run/checkpoints").iterdir()) == ["2", "3"]


@pytest.mark.parametrize("group", [32, 3, 64])
def test_groups_of_a_batch_norm_divide_the_shortened_batch(group):
    config = cifar10_resnet.get_config("resnet18")
    config.model.options.norm = {"name": "batch", "group": group}
    short = shortened(config, 2)
    assert config.model.options.norm.group == group
    options = model_options(short, num_classes=10) | {"depths": (1,), "widths": (4,)}
    module = create_model("resnet20_cifar", **options)
    images = np.zeros((short.train.batch_size, 8, 8, 3), np.float32)
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), images, train=False))
    jax.eval_shape(lambda v: module.apply(v, images, train=True, mutable=["batch_stats"]), variables)

"""The parts of docs/cifar_samplers.py that need no training."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

FILE = Path(__file__).parents[2] / "docs" / "cifar_samplers.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("cifar_samplers", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def options(script, monkeypatch, tmp_path):
    arguments = ["--data=none", "--images=128", "--epochs=5", "--batch_size=32", "--test_images=50"]
    monkeypatch.setattr(sys, "argv", ["cifar_samplers.py", *arguments, f"--out={tmp_path}/out.json"])
    return script.arguments()


def test_the_recipe_is_scaled_as_a_whole(script, options):
    config = script.recipe("lps", options)
    assert (config.train.total_epochs, config.optimizer.step_epochs) == (5, (2, 4))
    assert config.train.temperature.every_epochs == pytest.approx(10 / 50)
    assert config.optimizer.learning_rate == pytest.approx(0.1 / 8)
    assert config.eval.batch_size == 50
    assert (config.model.name, config.data.circular_shift) == ("resnet18_cifar_lps", 0)


def test_both_ways_get_the_same_shifts(script, options, monkeypatch):
    images = np.random.default_rng(0).normal(size=(6, 8, 8, 1)).astype(np.float32)
    batch = {"image": images, "label": np.zeros(6, int), "mask": np.ones(6)}
    monkeypatch.setattr(script, "open_source", lambda data, train: None)
    monkeypatch.setattr(script, "eval_batches", lambda *_, batch_size: [batch])
    invariant = lambda x: jnp.stack([x.mean((1, 2, 3)), jnp.zeros(len(x))], 1)  # noqa: E731
    monkeypatch.setattr(script, "predictor", lambda module, variables: invariant)
    results = script.measure(None, None, script.recipe("lps", options), draws=5)
    # Rolls keep the mean and its sign; where zeros come in it changes.
    assert results["circular_consistency"] == 1 > results["crop_consistency"]
    assert results["accuracy"] == (images.mean((1, 2, 3)) > 0).mean()


def test_a_finished_network_is_kept_and_other_settings_start_anew(script, options):
    begun = script.begin(options)
    assert begun["samplers"] == {}
    begun["samplers"]["plain"] = {"accuracy": 0.5}
    options.out.write_text(json.dumps(begun))
    assert script.begin(options)["samplers"] == {"plain": {"accuracy": 0.5}}
    other = argparse.Namespace(**{**vars(options), "epochs": 6.0})
    assert script.begin(other)["samplers"] == {}
    elsewhere = argparse.Namespace(**{**vars(options), "data": "/other/place"})
    assert script.begin(elsewhere)["samplers"] != {}


def test_the_table(script):
    row = {
        "model": "m",
        "accuracy": 0.5,
        "circular_consistency": 1,
        "crop_consistency": 0.75,
        "training_seconds": 90,
    }
    table = script.table({"samplers": {"aps": row}})
    assert "| m (aps) | 50.00 % | 100.00 % | 75.00 % | 2 min |" in table

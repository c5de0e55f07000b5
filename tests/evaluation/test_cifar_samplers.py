"""The parts of docs/cifar_samplers.py that need no training."""

import argparse
import importlib.util
import json
import sys
from pathlib import Path

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


@pytest.mark.parametrize("circular", [True, False])
def test_shifted_images(script, circular):
    images = np.arange(2 * 6 * 6, dtype=np.float32).reshape(2, 6, 6, 1) + 1
    out = script.moved(images, np.array([[0, 0], [2, -1]]), circular)
    np.testing.assert_array_equal(out[0], images[0])
    expected = np.roll(images[1], (2, -1), (0, 1))
    if not circular:
        expected[:2] = expected[:, -1:] = 0
    np.testing.assert_array_equal(out[1], expected)


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

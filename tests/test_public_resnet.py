"""Tests of the public ResNets: the stored results, and the command with generated files."""

import json

import golden
import numpy as np
import pytest
from PIL import Image

from aliasfree_jax.commands import program
from aliasfree_jax.conversion.to_files import torch_file
from aliasfree_jax.errors import DataError
from experiments import public_resnet
from experiments.public_resnet import ROLLS, WAYS, define, main, stored, table

# Results of PyTorch on the same images: accuracy, and shares of equal predictions after `ROLLS`.
PYTORCH = {
    "ResNet-20": (0.8103, (0.9050, 0.9040, 0.7935, 0.7700)),
    "ResNet-56": (0.8320, (0.9280, 0.9370, 0.8345, 0.7970)),
}


@pytest.mark.parametrize("network", PYTORCH)
def test_accuracy_and_rolls_are_pytorchs(network):
    found, (accuracy, shares) = stored()[network]["all images"], PYTORCH[network]
    # Tolerance: one image of 10,000, or of the 2,000 that are rolled. Two logits may differ only by rounding.
    assert found["images"] == 10_000 and found["accuracy"] == pytest.approx(accuracy, abs=1.5e-4)
    assert list(found["rolls"]) == list(map(str, ROLLS))
    assert list(found["rolls"].values()) == pytest.approx(shares, abs=7.5e-4)


@pytest.mark.parametrize("network", PYTORCH)
def test_what_is_stored_is_what_the_pages_say(network):
    ways = stored()[network]["ways"]
    assert {"as trained", "BlurPool-3", "polyphase", "ideal"} <= set(ways)
    assert all(found["options"] == WAYS[name] for name, found in ways.items())
    plain, polyphase = ways["as trained"], ways["polyphase"]
    assert polyphase["integer"]["consistency"] == 1 > 0.7 > plain["integer"]["consistency"]
    worst = polyphase["worst"]
    assert worst["adversarial_integer"]["worst_case_accuracy"] == worst["accuracy"] > 0.6
    assert plain["worst"]["adversarial_integer"]["worst_case_accuracy"] <= 0.05
    assert "all 1023 circular" in worst["adversarial_integer"]["about"]
    assert len(table(network)) == 1 + len(ways)


def test_without_results_there_is_no_table(monkeypatch, tmp_path):
    monkeypatch.setattr(public_resnet, "RESULTS", tmp_path / "none.json")
    with pytest.raises(
        DataError, match=r"none.json has no results .*Run python -m experiments\.public_resnet"
    ):
        table("ResNet-20")


@pytest.mark.slow
def test_the_command(monkeypatch, tmp_path, capsys):
    state = golden.load("aka_resnet20_32").state_dict
    weights = {f"module.{name}": np.asarray(value, order="C") for name, value in state.items()}
    (tmp_path / "weights.th").write_bytes(torch_file(weights, "state_dict"))
    for label in range(10):
        (tmp_path / f"data/test/class{label}").mkdir(parents=True)
        pixels = np.random.default_rng(label).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"data/test/class{label}/0.png")
    monkeypatch.setattr(public_resnet, "BATCH", 10)
    (tmp_path / "found.json").write_text('{"ResNet-56": {}}')
    arguments = [f"--weights={tmp_path}/weights.th", f"--data={tmp_path}/data", "--worst_images=1"]
    arguments += [f"--output={tmp_path}/found.json", "--way=as trained", "--way=polyphase"]
    assert program(define, main, None)(arguments) == 0, capsys.readouterr().err
    others, found = json.loads((tmp_path / "found.json").read_text()).values()
    assert others == {} and found["model"] == "resnet20_cifar"
    assert found["command"].endswith(
        "--weights=weights.th --data=data --images=0 --draws=1 --worst_images=1 "
        "--way='as trained' --way='polyphase'"
    )
    assert found["ways"]["polyphase"]["integer"]["consistency"] == 1
    assert found["all images"]["images"] == found["ways"]["as trained"]["images"] == 10

"""The public ResNet-20: its weights' places, what is stored of it, and the command on made-up files."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from aliasfree_jax.commands import program
from aliasfree_jax.conversion.to_files import torch_file
from aliasfree_jax.errors import DataError
from experiments import public_resnet
from experiments.public_resnet import WAYS, define, main, table
from experiments.resnet20 import ResNet20, variables_of


def state_dict():
    """Made-up weights under PyTorch's names, and the network's shapes."""
    shapes = jax.eval_shape(ResNet20().init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    leaves = {
        "kernel": "weight",
        "scale": "weight",
        "bias": "bias",
        "mean": "running_mean",
        "var": "running_var",
    }
    numbers, weights = np.random.default_rng(0), {}
    for path, leaf in jax.tree.flatten_with_path(shapes)[0]:
        _, *modules, name = (part.key for part in path)
        shape = leaf.shape if len(leaf.shape) == 1 else (*leaf.shape[:-3:-1], *leaf.shape[:-2])
        array = numbers.uniform(0.5, 1.5, shape) / np.prod(shape[1:], initial=1)
        weights[".".join([*modules, leaves[name]]).replace("_", ".", "_" in modules[0])] = array.astype(
            np.float32
        )
    return weights, shapes


def test_every_weight_has_its_place():
    weights, shapes = state_dict()
    assert "layer2.0.conv1.weight" in weights and "layer3.2.bn2.running_var" in weights
    variables = variables_of(weights)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, shapes)
    kernel = variables["params"]["layer2_0"]["conv1"]["kernel"]
    np.testing.assert_array_equal(kernel[2, 0, 5, 7], weights["layer2.0.conv1.weight"][7, 5, 2, 0])


def test_what_is_stored_is_what_the_readme_says():
    found = json.loads(public_resnet.RESULTS.read_text())["results"]
    assert list(found) == list(WAYS) and all(
        of_way["options"] == WAYS[name] for name, of_way in found.items()
    )
    plain, polyphase = found["as trained"], found["polyphase"]
    assert (
        plain["images"] == 10_000 and abs(plain["accuracy"] - 0.8103) <= 0.0005
    )  # PyTorch's, with this file
    assert polyphase["integer"]["consistency"] == 1 > 0.7 > plain["integer"]["consistency"]
    worst = polyphase["worst"]
    assert worst["adversarial_integer"]["worst_case_accuracy"] == worst["accuracy"]
    assert worst["accuracy"] == 0.73 and plain["worst"]["adversarial_integer"]["worst_case_accuracy"] == 0.05
    assert worst["images"] == 100 and "all 1023 circular" in worst["adversarial_integer"]["about"]
    assert round(sum(of_way["seconds"] for of_way in found.values()) / 60) == 43
    assert len(table()) == 1 + len(WAYS) and "| 81.03 |" in f"| {' | '.join(table()[1])} |"


def test_without_results_there_is_no_table(monkeypatch, tmp_path):
    monkeypatch.setattr(public_resnet, "RESULTS", tmp_path / "none.json")
    with pytest.raises(DataError, match=r"none.json has no results .*experiments.public_resnet makes them"):
        table()


@pytest.mark.slow
def test_the_command(monkeypatch, tmp_path, capsys):
    weights, _ = state_dict()
    (tmp_path / "weights.th").write_bytes(
        torch_file({f"module.{name}": a for name, a in weights.items()}, "state_dict")
    )
    for label in range(10):
        (tmp_path / f"data/test/class{label}").mkdir(parents=True)
        pixels = np.random.default_rng(label).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"data/test/class{label}/0.png")
    monkeypatch.setattr(public_resnet, "WAYS", {name: WAYS[name] for name in ("as trained", "polyphase")})
    monkeypatch.setattr(public_resnet, "BATCH", 10)
    files = [f"--weights={tmp_path}/weights.th", f"--data={tmp_path}/data", f"--output={tmp_path}/found.json"]
    assert program(define, main, None)([*files, "--worst_images=1"]) == 0, capsys.readouterr().err
    stored = json.loads((tmp_path / "found.json").read_text())
    assert stored["command"].endswith(
        "--weights=weights.th --data=data --images=0 --draws=1 --worst_images=1"
    )
    assert stored["results"]["polyphase"]["integer"]["consistency"] == 1
    assert stored["results"]["as trained"]["images"] == 10

"""Tests of the audit's tables, picture and command line, with a user's file."""

import json
import sys
import uuid

import jax
import numpy as np
import pytest
from in_process import run
from PIL import Image

from aliasfree_jax.checkpoint import ModelCard, abstract_variables, save_model
from aliasfree_jax.conversion import audit_command as command
from aliasfree_jax.errors import AliasFreeError, ConfigError, MissingPackageError
from aliasfree_jax.files import PathError
from aliasfree_jax.models import create_model

SOURCE = """
from __future__ import annotations
import flax.linen as nn
import jax.numpy as jnp

class Mine(nn.Module):
    features: int = 2

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Conv(2, (3, 3), padding="CIRCULAR", name="first")(x)
        x = nn.Conv(2, (2, 2), strides=2, name="down")(x)
        return x.mean((1, 2))

def make_network():
    return Mine()

def with_variables():
    kernels = {n: {"kernel": jnp.ones(s), "bias": jnp.zeros(2)} for n, s in
               (("first", (3, 3, 1, 2)), ("down", (2, 2, 2, 2)))}
    return Mine(), {"params": kernels}, {"train": False}

def nothing():
    return {"params": {}}

def badly():
    return Mine(), [1, 2]

def wrong_arguments():
    return Mine(), None, 3

number = 7
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Name of a user's module on the path, which no other test has imported."""
    name = f"mine_{uuid.uuid4().hex}"
    (tmp_path / f"{name}.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(tmp_path)
    return name


def test_the_command_tells_the_first_layer_and_writes_what_it_found(module, tmp_path, capsys):
    out, picture = tmp_path / "audit.json", tmp_path / "audit.png"
    targets = [f"{module}:make_network", f"{tmp_path}/{module}.py:with_variables"]
    options = ["--image=8,8,1", "--shift=1,0", f"--output={out}", f"--plot={picture}"]
    run(command, *targets, *options)
    text = capsys.readouterr().out
    assert "make_network, image shifted by (1, 0)" in text and "down (conv_general_dilated)" in text
    lines = [line for line in text.splitlines() if line.endswith("breaks first")]
    assert len(lines) == 1 and lines[0].startswith(
        "down"
    )  # in the other network the mean is exact, so the error is mended
    assert "make_network: down (conv_general_dilated) at " in text
    assert "with_variables: Nothing breaks under a shift by (1, 0)." in text

    first, second = json.loads(out.read_text())["audits"]
    assert first["network"] == "make_network" and first["first_break"] == "down"
    assert second["first_break"] is None and first["shift"] == [1, 0]
    layer = next(layer for layer in first["layers"] if layer["path"] == "down")
    assert layer["path"] == "down" and layer["state"] == "breaks" and layer["after"] > 1e-3
    page = out.with_suffix(".md").read_text()
    assert (
        "## make_network, image shifted by (1, 0)" in page
        and "| down (conv_general_dilated) | 4x4x2 |" in page
    )
    pixels = np.asarray(Image.open(picture).convert("L"))
    assert pixels.shape[1] > 800 and (pixels < 200).mean() > 0.005  # the picture is not blank


def test_a_run_is_audited_on_images_of_its_size(tmp_path, capsys):
    options = {"num_classes": 2, "depths": (1,), "widths": (2,)}
    module, three = create_model("resnet20_cifar", **options), (0.5, 0.5, 0.5)
    shapes = abstract_variables(module, image_size=8, channels=3)
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    card = ModelCard("resnet20_cifar", options, ("a", "b"), 8, 3, three, three, 1.0, 0, "a test")
    save_model(tmp_path / "net", card, variables)
    run(command, f"--checkpoint={tmp_path}/net", "--shift=1,1")
    assert "8x8x2" in capsys.readouterr().out


@pytest.mark.parametrize("task", ["segmentation", "regression"])
def test_a_run_that_gives_maps_is_audited(task, tmp_path, capsys):
    options = {"num_classes": 0, "global_pool": "", "depths": (1,), "widths": (2,)}
    module, three = create_model("resnet20_cifar", **options), (0.5, 0.5, 0.5)
    shapes = abstract_variables(module, image_size=8, channels=3)
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
    card = ModelCard("resnet20_cifar", options, ("a", "b"), 8, 3, three, three, 1.0, 0, "a test", task=task)
    save_model(tmp_path / "net", card, variables)
    run(command, f"--checkpoint={tmp_path}/net", "--shift=1,1", f"--output={tmp_path}/audit.json")
    assert "output (the result)" in capsys.readouterr().out
    assert "| output (the result) | 8x8x2 |" in (tmp_path / "audit.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to audit: pass --checkpoint=runs/mine"),
        (["--checkpoint=/nowhere/run"], "no checkpoint at /nowhere/run"),
        (["{}"], "is neither my_file.py:make_network nor a network of this package"),
        (["no_such_package.file:make"], "there is no module 'no_such_package.file'"),
        (["nowhere.py:make"], "there is no file nowhere.py"),
        (["{}:make_networks"], "unknown function 'make_networks'. Did you mean 'make_network'?"),
        (["{}:number"], "is not a function but int"),
        (["{}:nothing"], "nothing() returned dict: expected a flax.linen.Module"),
        (["{}:badly"], "returned variables of type list"),
        (["{}:wrong_arguments"], "returned arguments of type int"),
        (["{}:with_variables", "--image=8,8,3"], "with_variables does not run on images of 8,8,3 ("),
        (["{}:make_network", "--image=8,8"], "--image=8,8: expected rows,columns,channels"),
        (["{}:make_network", "--shift=1"], "--shift=1: expected rows,columns in pixels"),
        (
            ["{}:make_network", "--image=8,8,1", "--shift=8,0"],
            "a circular shift by (8, 0) does not change images of (8, 8)",
        ),
    ],
)
def test_mistakes_are_explained(arguments, message, module):
    with pytest.raises(AliasFreeError) as raised:
        run(command, *(argument.format(module) for argument in arguments))
    assert message in str(raised.value)


def test_weights_are_audited_by_their_name(capsys):
    run(command, "--checkpoint=resnet20_cifar_aps", "--image=8,8,3", "--shift=1,0")
    assert "resnet20_cifar_aps: Nothing breaks under a shift by (1, 0)." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--output=", "--output is .*, a directory. Pass the name of a file in it."),
        ("--output=a.md", "--output is .*a.md, a file that is written beside it. Pass .*a.json for the"),
        ("--plot=", "--plot is .*, a directory. Pass the name of a file in it."),
        ("--plot=a.jpeg", r"--plot is .*a.jpeg: the ending must be .png or .pdf or .svg"),
    ],
)
def test_files_are_checked_before_the_measurement(argument, message, module, monkeypatch, tmp_path):
    monkeypatch.setattr(command, "audit", None)  # a call would raise another error
    flag, _, name = argument.partition("=")
    with pytest.raises(ConfigError, match=message):
        run(command, f"{module}:make_network", "--image=8,8,1", f"{flag}={tmp_path / name}")


@pytest.mark.parametrize("argument", ["{}", "--checkpoint={}", "--output={}", "--plot={}"])
def test_paths_are_those_of_this_machine(argument, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(PathError, match="is 'gs://bucket/x', an address: gs:// is not supported"):
        run(command, argument.format("gs://bucket/x"))
    if argument in ("{}", "--checkpoint={}"):
        with pytest.raises(AliasFreeError, match=f"{tmp_path}/nets"):
            run(command, argument.format("~/nets.py:f"))
    assert not list(tmp_path.iterdir())


def test_without_matplotlib_nothing_is_measured(module, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingPackageError, match="pip install 'aliasfree_jax.figures.'"):
        run(command, f"{module}:make_network", "--image=8,8,1", f"--plot={tmp_path}/a.png")
    assert not capsys.readouterr().out


def test_an_error_in_the_users_own_import_keeps_its_traceback(tmp_path, monkeypatch):
    (tmp_path / "importing_what_is_missing.py").write_text("import no_such_library_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="no_such_library_at_all"):
        run(command, "importing_what_is_missing:make")

"""Tests of eval.py with data that have the network's classes or other classes."""

import json

import jax
import numpy as np
import pytest
from absl import flags
from PIL import Image

from aliasfree_jax import create_model
from aliasfree_jax.checkpoint import ModelCard, abstract_variables, save_model
from aliasfree_jax.config import base_config
from aliasfree_jax.data import FolderSource
from aliasfree_jax.data.class_names import ClassNamesError
from aliasfree_jax.errors import DataError
from aliasfree_jax.evaluation.imagenet_c import CORRUPTIONS, evaluate_corruptions


def folders(root, sizes):
    for name, count in sizes.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (10 * i, 0, 0)).save(root / name / f"{i}.png")
    return root


def card(names, **changes):
    options = {"depths": (1,), "widths": (4,), "num_classes": len(names)}
    return ModelCard(
        "convnext_micro", options, tuple(names), 8, 3, (0.5,) * 3, (0.2,) * 3, 1.0, 0, "x", **changes
    )


def of_a_network_that_predicts(label, names, data, directory):
    """Saves a network with one answer and sets the flags of eval.py; returns the configuration."""
    about = card(names)
    module = create_model(about.model, **about.options)
    shapes = abstract_variables(module, image_size=8, channels=3)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    variables["params"]["head"]["bias"] = np.eye(len(names), dtype=np.float32)[label]
    save_model(directory / "net", about, variables)
    config = base_config()
    config.data.update({"source": "folder", "path": str(data), "image_size": 8, "eval_crop_ratio": 1.0})
    config.eval.batch_size = 16
    flags.FLAGS.checkpoint, flags.FLAGS.output = [str(directory / "net")], str(directory / "o.json")
    return config


def test_numbered_folders_are_the_classes_of_these_numbers(eval_program, monkeypatch, tmp_path, capsys):
    """Folders are sorted as text: 0, 1, 10, 2. The network always predicts 2, the class of folder 2."""
    path = folders(tmp_path / "data/val", {str(i): 3 if i == 2 else 1 for i in range(11)}).parent
    config = of_a_network_that_predicts(2, [str(i) for i in range(11)], path, tmp_path)
    monkeypatch.setattr(eval_program.cli, "overridden", frozenset)
    eval_program.main(config)
    said = capsys.readouterr().out
    assert "in another order; labels are matched by name: 0, 1, 10, 2, 3" in said
    assert json.loads((tmp_path / "o.json").read_text())["accuracy"] == pytest.approx(3 / 13)


def test_other_classes_are_refused_and_accepted(eval_program, tmp_path, capsys):
    source = FolderSource(folders(tmp_path / "val", {"wolf": 1, "yak": 1, "zebra": 1}).parent, "val")
    about = card(("ant", "bee", "cat"))
    with pytest.raises(ClassNamesError, match="'wolf', class 0 of the data, .* whose class 0 is 'ant'"):
        eval_program.check_fits(about, source)
    flags.FLAGS.accept_class_names = True
    assert eval_program.check_fits(about, source) is source
    assert "class names: not compared (--accept_class_names)" in capsys.readouterr().out
    with pytest.raises(ClassNamesError, match="the data has 3 classes, the network has 4"):
        eval_program.check_fits(card("abcd"), source)


def test_some_classes_and_no_names(eval_program, tmp_path, capsys):
    source = FolderSource(folders(tmp_path / "val", {"yak": 1, "zebra": 2}).parent, "val")
    fitted = eval_program.check_fits(card(("wolf", "zebra", "yak")), source)
    assert fitted.labels.tolist() == [2, 1, 1]
    assert "only 2 of the 3 classes of the network; labels are matched by name" in capsys.readouterr().out
    assert eval_program.check_fits(card("01"), source) is source  # converted networks have such names
    assert "folders are taken in order: yak = 0, zebra = 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("known", "clean"), [(("zebra", "yak"), ("yak", "zebra")), (("0", "1"), ("yak", "zebra"))]
)
def test_imagenet_c_has_the_labels_of_the_clean_images(eval_program, tmp_path, known, clean):
    for severity in "12345":
        folders(tmp_path / "c" / CORRUPTIONS[0] / severity, {"yak": 1, "zebra": 1})
    source = FolderSource(folders(tmp_path / "val", dict.fromkeys(clean, 1)).parent, "val")
    fitted = eval_program.check_fits(card(known), source)
    labels, told = [], []

    def measure(corrupted):
        labels.append(corrupted.labels.tolist())
        return {"accuracy": 1.0}

    evaluate_corruptions(tmp_path / "c", fitted, measure, note=told.append)
    assert labels == [fitted.labels.tolist()] * 5
    assert len(told) == (known[0] == "zebra")  # shown only once


def test_corruptions_have_the_limit_and_lose_no_results(eval_program, monkeypatch, tmp_path):
    """An image of the last set is unreadable: the results of the clean images are written before."""
    sizes = {"ant": 3, "bee": 3}
    path = folders(tmp_path / "data/val", sizes).parent
    for severity in range(1, 6):
        folders(tmp_path / "c/fog" / str(severity), sizes)
    last, output = tmp_path / "c/fog/5/bee/0.png", tmp_path / "o.json"
    content = last.read_bytes()
    last.write_bytes(b"")
    config = of_a_network_that_predicts(0, [*sizes], path, tmp_path)
    config.data.eval_limit = 2  # one image of each class
    flags.FLAGS.imagenet_c = str(tmp_path / "c")
    monkeypatch.setattr(eval_program.cli, "overridden", frozenset)
    with pytest.raises(DataError, match="fog/5/bee/0.png: cannot decode"):
        eval_program.main(config)
    before = json.loads(output.read_text())
    assert (before["images"], before["accuracy"]) == (2, 0.5) and "imagenet_c" not in before
    last.write_bytes(content)
    eval_program.main(config)
    found = json.loads(output.read_text())["imagenet_c"]["corruptions"]["fog"]["severities"]
    assert [(found[str(s)]["images"], found[str(s)]["accuracy"]) for s in range(1, 6)] == [(2, 0.5)] * 5

"""Conversion of the originals' files: options, recognition, command, checkpoint."""

import importlib.util
import json
import re
from pathlib import Path

import described
import golden
import jax
import numpy as np
import pytest

from aliasfree_jax.__main__ import main
from aliasfree_jax.checkpoint import load_model
from aliasfree_jax.conversion import from_original, load_pretrained, originals
from aliasfree_jax.conversion.recognition import normalised, recognise
from aliasfree_jax.errors import ConversionError

FILE = Path(__file__).parent / "data" / "convnext_afc_mini.pth"
SOURCE = "alias_free_convnets"
# Options that the weights do not show. Recognition assumes those of the published networks.
TRACELESS = {"afc_mini_ideal_scale_l2_128", "afc_mini_poly_128"}
CASES = [name for name in golden.cases() if described.meta(name)["source"] == SOURCE]


def relative_error(output: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(output - expected).max() / np.abs(expected).max())


def logits(module, variables, inputs: np.ndarray) -> np.ndarray:
    apply = jax.jit(lambda v, x: module.apply(v, x, train=False))
    return np.asarray(apply(variables, inputs.transpose(0, 2, 3, 1)))


@pytest.mark.parametrize("name", [name for name in CASES if name not in TRACELESS])
def test_networks_are_recognised(name):
    meta = described.meta(name)
    source, model, options = recognise(described.shapes(name))
    assert (source, model) == (SOURCE, meta["model"])
    defaults = {"activation": "gelu", "normalization_type": "C", "num_classes": 1000, "in_chans": 3}
    assert {**defaults, **options} == {**defaults, **meta["options"]}


def test_training_checkpoint_of_the_original():
    """Averaged weights are loaded, filter buffers are ignored, and the logits equal the original's."""
    case = golden.load("afc_mini_128")
    card, module, variables = load_pretrained(FILE, image_size=128)
    # float32 against the original in float64, like the golden tests
    assert relative_error(logits(module, variables, case.inputs), case.output) < 1e-5
    assert (card.image_size, card.channels, len(card.class_names)) == (128, 3, 10)
    assert "convnext_afc_mini.pth" in card.origin


def test_imagenets_classes_are_shipped():
    names = originals.class_names(False, 1000)
    assert list(names) == sorted(set(names)) and len(names) == 1000
    assert all(re.fullmatch(r"n\d{8}", name) for name in names)
    folder = Path(importlib.util.find_spec("tensorflow_datasets").origin).parent  # a list of other values
    assert names == tuple((folder / "datasets/imagenet2012/labels.txt").read_text().split())
    # Classes with well-known numbers.
    assert (names[0], names[1], names[207], names[281], names[999]) == (
        *("n01440764", "n01443537", "n02099601", "n02123045", "n15075141"),
    )


@pytest.mark.parametrize(
    ("cifar", "count", "expected"),
    [
        (False, 10, tuple("0123456789")),
        (True, 1000, tuple(map(str, range(1000)))),
        (True, 10, ("airplane", *"automobile bird cat deer dog frog horse ship truck".split())),
        (True, 2, ("0", "1")),
    ],
)
def test_classes_of_other_data_are_numbered(cifar, count, expected):
    assert originals.class_names(cifar, count) == expected


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("lps_basic_32", "airplane"),
        ("cifar_resnet20_1_circular", "airplane"),
        ("aps_resnet18_lpf1_64", "n01440764"),
        ("blurpool_resnet18_lpf2_64", "n01440764"),
        ("convnext_tiny_224", "n01440764"),
        ("lps_resnet18_imagenet_224_logits_channels", "n01440764"),
    ],
)
def test_converted_networks_name_their_classes(name, first):
    """One network of every code base and data set."""
    meta = described.meta(name)
    source, model, options = (meta[key] for key in ("source", "model", "options"))
    state = {key: value for key, value in described.shapes(name).items() if not key.endswith("filt")}
    card, _, _ = originals.converted(source, model, options, normalised(state), "file", {}, None)
    assert card.class_names[0] == first and card.outputs() == card.class_names


def test_other_entry_of_the_checkpoint():
    _, _, averaged = load_pretrained(FILE)
    _, _, live = load_pretrained(FILE, key="model")
    assert not np.array_equal(averaged["params"]["head"]["bias"], live["params"]["head"]["bias"])
    with pytest.raises(ConversionError, match="modle"):
        load_pretrained(FILE, key="modle")


def test_command_writes_a_checkpoint(tmp_path, capsys):
    target = tmp_path / "converted"
    assert main(["convert", str(FILE), str(target), "--image_size=128"]) == 0
    printed = capsys.readouterr().out
    assert "33,375 parameters" in printed
    assert f"at 128 x 128, ratio 0.875, bicubic: python eval.py --checkpoint={target} --config" in printed
    _, module, variables = load_model(target)
    _, expected, weights = load_pretrained(FILE, image_size=128)  # its logits equal the original's, see above
    assert module == expected
    jax.tree.map(np.testing.assert_array_equal, variables, weights)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.pth"], "missing.pth"),
        ([str(FILE), "--options={"], "not JSON"),
        ([str(FILE), "--options=[1]"], "JSON object"),
        (
            [str(FILE), "--options", json.dumps({"depths": [1, 1, 1, 1]})],
            "keys that the network does not have",
        ),
        ([str(FILE), "--model=convnext_acf"], "convnext_afc"),
        ([str(FILE), "--source=timm"], SOURCE),
    ],
)
def test_command_reports_what_is_wrong(tmp_path, capsys, arguments, message):
    file, *rest = arguments
    target = tmp_path / "converted"
    assert main(["convert", file, str(target), *rest]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and message in printed
    assert not target.exists()


def test_command_checks_its_directory_before_it_reads_weights(tmp_path, capsys):
    (tmp_path / "file").touch()
    for target, message in ((tmp_path, "exists already"), (tmp_path / "file/x", "directory cannot be made")):
        assert main(["convert", "missing.pth", str(target)]) == 2
        assert message in capsys.readouterr().err


def test_unknown_options_and_values():
    state = golden.load("convnext_mini_64").state_dict
    for model, options, message in [
        ("convnext", {"depth": [1]}, "depths"),
        ("convnext_afc", {"stem_mode": "residual"}, "activation_residual"),
        ("convnext_afc", {"normalization_type": "CHW"}, "CHW2"),
        ("convnext_afc", {"activation": "up_gelu"}, "gelu"),
        ("convnext_afc", {"conv_pad_type": "circle"}, "circular"),
    ]:
        with pytest.raises(ConversionError, match=message):
            from_original(SOURCE, model, options, state)


def test_weights_of_something_else():
    with pytest.raises(ConversionError, match="not those of a network.*--model"):
        recognise({"layer1.0.conv1.weight": np.ones(3)})


def test_wrong_number_of_classes():
    case = golden.load("convnext_mini_64")
    with pytest.raises(
        ConversionError,
        match=r"head.weight has the converted shape \[32, 10\], params/head/kernel needs \[32, 5\]",
    ):
        from_original(SOURCE, "convnext", {**case.meta["options"], "num_classes": 5}, case.state_dict)


@pytest.mark.parametrize(
    ("keys", "shape"),
    [
        ("layer1.0.bn1.weight layer1.0.bn3.weight", (8,)),  # Res2Net: no second convolution
        ("layer1.0.bn1.weight layer1.0.conv1.weight", (8, 8, 3, 3)),  # no stem
        ("core.conv1.weight core.layer1.0.bn3.weight", ()),
        ("features.0.weight", ()),
        ("stages.0.0.norm.weight downsample_layers.0.0.weight head.weight", ()),
    ],
)
def test_what_resembles_a_network_without_being_one(keys, shape):
    with pytest.raises(ConversionError, match="not those of a network that can be recognised"):
        recognise({key: np.zeros(shape, np.float32) for key in keys.split()})

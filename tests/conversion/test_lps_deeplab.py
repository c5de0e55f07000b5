"""DeepLabs of learnable_polyphase_sampling: golden cases, conversion and export of every form, refusals."""

import dataclasses
import re

import jax
import numpy as np
import pytest
from flax import traverse_util
from libraries import check_strictness, check_way_back, converted, logits

from aliasfree_jax.__main__ import main
from aliasfree_jax.checkpoint import ModelCard, abstract_variables
from aliasfree_jax.conversion import from_original, load_pretrained, to_original
from aliasfree_jax.conversion.code_bases import LPS, SOURCES, original_of
from aliasfree_jax.conversion.recognition import normalised, recognise
from aliasfree_jax.conversion.to_files import torch_file
from aliasfree_jax.conversion.undecided import UndecidedError, with_hyper_parameters
from aliasfree_jax.conversion.weight_files import read_state_dict
from aliasfree_jax.data.segmentation_sets import VOC_CLASSES
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.models import create_model

SOURCE, MODEL = LPS.source, "deeplabv3plus(ResNet18Custom)"
PLAIN, FILTERED, LARGE = (f"lps_deeplabv3plus_resnet18_{kind}" for kind in ("64", "lpf3_64", "circular_576"))
# The float64 output is stored in float32. The original's float32 output differs from it by 1e-6.
TOLERANCE = {"float32": 1e-5, "float64": 1e-6}


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        (FILTERED, "float32"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in ((PLAIN, "float32"), (FILTERED, "float64"), (LARGE, "float32"))
        ),
    ],
)
def test_the_golden_cases(name, dtype):
    case, module, variables = converted(LPS, name)
    with jax.enable_x64(dtype == "float64"):
        result = logits(case, module, variables, dtype)
    step = case.meta["output_step"]
    result = result[:, :, ::step, ::step]
    assert result.shape == case.output.shape
    assert np.abs(result - case.output).max() < TOLERANCE[dtype] * np.abs(case.output).max()


@pytest.mark.parametrize("name", [FILTERED, pytest.param(PLAIN, marks=pytest.mark.slow)])
def test_the_way_back_and_strictness(name):
    check_way_back(LPS, name)
    check_strictness(LPS, name)


@pytest.mark.slow
def test_the_keys_beside_the_backbone_are_used():
    """The keys to check. The backbone is a ResNet, which the classifiers' cases check: a few are enough."""
    case, module, variables = converted(LPS, FILTERED)
    flat = traverse_util.flatten_dict(variables, sep="/")
    images = case.inputs.transpose(0, 2, 3, 1)
    apply = jax.jit(lambda flat: module.apply(traverse_util.unflatten_dict(flat, sep="/"), images))
    before, unused, tried = apply(flat), [], 0
    for entry in LPS.table(MODEL, case.meta["options"]):
        if entry.path and entry.key.startswith(("classifier.", "backbone.conv1")):
            tried += 1
            noise = np.random.default_rng(0).uniform(0.1, 1, flat[entry.path].shape).astype(np.float32)
            after = apply({**flat, entry.path: flat[entry.path] + noise})
            # Rounding alone changes values of order 1 by 1e-6.
            unused += [entry.key] if np.abs(after - before).max() < 1e-4 else []
    assert tried > 30 and unused == []


DDAC = ["DDAC", 3, "circular", 2]
WIDTHS = {"maxpool": 8, "layer2": 16, "layer3": 32, "layer4": 64}
FORMS = [
    ("ResNet18Custom", {"logits_channels": WIDTHS}),
    ("ResNet18Custom", {"logits_channels": WIDTHS, "unpool": None}),
    (
        "ResNet18Custom",
        {"logits_channels": WIDTHS, "swap_conv_pool": False, "num_classes": 4, "antialias": DDAC},
    ),
    ("ResNet18Custom", {"pool": "max_2_norm", "antialias": ["LowPassFilter", 4, "circular"]}),
    (
        "ResNet18Custom",
        {
            "pool": "max_2_norm",
            "unpool": None,
            "conv1_stride": True,
            "antialias": ["LowPassFilter", 2, "circular"],
        },
    ),
    pytest.param(
        "ResNet50Custom",
        {
            "logits_channels": WIDTHS,
            "swap_conv_pool": False,
            "antialias": ["LowPassFilter", 2, "circular"],
            "unpool_antialias_scale": 2,
        },
        marks=pytest.mark.slow,
    ),
    pytest.param(
        *("ResNet101Custom", {"logits": "ComponentPerceptron", "swap_conv_pool": False}),
        marks=pytest.mark.slow,
    ),
]


def state_of(model: str, options: dict) -> tuple[dict[str, np.ndarray], ModelCard]:
    """A state dict of zeros and the card of its network."""
    name, ours = LPS.translate(model, options)
    module = create_model(name, **ours)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), abstract_variables(module, 64, 3))
    preparation = {"image_size": 64, "mean": (0.0,) * 3, "std": (1.0,) * 3, "eval_crop_ratio": 1.0}
    card = ModelCard(name, ours, ("0",), channels=3, step=0, origin="test", **preparation)
    return to_original(SOURCE, model, options, variables), card


@pytest.mark.parametrize(("backbone", "options"), FORMS, ids=lambda value: str(value))
def test_every_form_is_recognised_and_named_again(backbone, options):
    model = f"deeplabv3plus({backbone})"
    state, card = state_of(model, options)
    source, found, read_off = recognise(normalised({f"model.{key}": value for key, value in state.items()}))
    assert (source, found) == (SOURCE, model)
    assert (
        LPS.translate(found, {**read_off, "num_classes": 21})[1]
        == LPS.translate(model, {**options, "num_classes": 21})[1]
    )
    named, stated = original_of(SOURCE, card)
    assert named == model
    assert LPS.translate(named, stated) == LPS.translate(
        model, {**options, "num_classes": stated["num_classes"]}
    )


def test_no_other_code_base_has_it():
    _, card = state_of(MODEL, {})
    for source in set(SOURCES) - {SOURCE}:
        with pytest.raises(ConversionError, match=rf"Pass --to={SOURCE}\."):
            original_of(source, card)


def test_our_own_variants_name_what_the_original_lacks():
    _, card = state_of(MODEL, {})
    card = dataclasses.replace(card, options={})
    with pytest.raises(ConversionError) as error:
        original_of(SOURCE, card)
    assert "last_rate_padding: ours 'CIRCULAR', theirs 'ZERO'" in str(error.value)


def test_a_training_checkpoint_is_loaded_with_its_task(tmp_path):
    options = {"logits_channels": WIDTHS, "antialias": ["LowPassFilter", 3, "circular"]}
    state, _ = state_of(MODEL, options)
    file, notes = tmp_path / "last.ckpt", []
    file.write_bytes(torch_file({f"model.{key}": value for key, value in state.items()}, "state_dict"))
    card, module, variables = load_pretrained(file, tell=notes.append)
    assert (card.model, card.task) == ("deeplabv3plus_resnet18_lps", "segmentation")
    assert card.class_names == tuple(VOC_CLASSES) and len(VOC_CLASSES) == 21 and card.image_size == 512
    assert len(notes) == 1 and '"classifier_padding_mode": "zeros", "output_stride": 16' in notes[0]
    assert module.padding == "ZERO" and module.backbone(parent=None).padding == "CIRCULAR"
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    assert jax.eval_shape(module.apply, variables, images).shape == (1, 64, 64, 21)
    _, module, _ = load_pretrained(file, options={"classifier_padding_mode": "circular", "output_stride": 8})
    assert (module.padding, module.rates) == ("CIRCULAR", (12, 24, 36))


def test_the_command_writes_every_key_bit_for_bit(tmp_path, capsys):
    state, _ = state_of(MODEL, {"logits_channels": WIDTHS, "antialias": ["LowPassFilter", 3, "circular"]})
    for key, value in state.items():
        if value.ndim == 4 and value.shape[1] > 1:  # no filter
            state[key] = np.linspace(-1, len(key), value.size, dtype=np.float32).reshape(value.shape)
    file, output = tmp_path / "weights.pth", tmp_path / "again.pth"
    file.write_bytes(torch_file(state))
    assert main(["convert", str(file), str(tmp_path / "converted")]) == 0
    assert main(["convert", f"--to={SOURCE}", str(tmp_path / "converted"), str(output)]) == 0
    assert MODEL in capsys.readouterr().out
    again = read_state_dict(output)
    assert again.keys() == state.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(again[key], value, err_msg=key)


def test_hyper_parameters_complete_what_leaves_no_trace():
    stated = {"classifier_padding_mode": "circular", "output_stride": 8, "padding_mode": "zeros"}
    assert with_hyper_parameters({"unpool": None}, stated) == {"unpool": None, **stated}
    assert with_hyper_parameters({}, stated) == {"padding_mode": "zeros"}  # an option of classifiers


REFUSED = [
    ("deeplabv3(ResNet18Custom)", {}, r"Of its segmentation networks, only DeepLabV3\+ can"),
    ("deeplabv3plus(ResNet19Custom)", {}, "unknown network .* Did you mean 'deeplabv3plus.ResNet18Custom.'"),
    (MODEL, {"unpool": "LPS"}, "unknown unpool .* for the pool LPS 'LPS'.*null means bilinear"),
    (MODEL, {"conv1_stride": True}, "its first step selects no phase. Use unpool null"),
    (MODEL, {"output_stride": 4}, "unknown output_stride"),
    (MODEL, {"classifier_padding_mode": "circle"}, "unknown classifier_padding_mode"),
    (MODEL, {"inc_conv1_support": False}, "need ResNets for ImageNet, got inc_conv1_support"),
    (MODEL, {"unpol": None}, "unknown option .*'unpol'. Did you mean 'unpool'"),
]


@pytest.mark.parametrize(("model", "options", "message"), REFUSED, ids=lambda value: str(value))
def test_what_the_original_lacks_is_refused(model, options, message):
    with pytest.raises(ConversionError, match=re.compile(message, re.DOTALL)):
        from_original(SOURCE, model, options, {})


def test_the_network_without_decoder_is_refused_by_name():
    state, _ = state_of(MODEL, {"logits_channels": WIDTHS})
    other = {
        re.sub(r"^classifier\.aspp\.", "classifier.classifier.0.", key): value
        for key, value in state.items()
        if not key.startswith("classifier.project")
    }
    with pytest.raises(ConversionError, match="weights of a DeepLabV3, which has no decoder"):
        recognise(normalised(other))


def test_an_upsampling_without_trace_is_asked_for():
    state, _ = state_of(MODEL, {"pool": "max_2_norm"})
    with pytest.raises(UndecidedError, match="does not show how it enlarges its maps") as error:
        recognise(normalised(state))
    assert error.value.arguments["options"]["unpool"] == "max_p_norm_u"

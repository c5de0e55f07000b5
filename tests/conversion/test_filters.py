"""Files without their blur filters are never silently read as another network."""

import functools
import json

import jax
import numpy as np
import pytest
from pickles import Code, code, name, numbers, tensor, zip_file

from aliasfree_jax.__main__ import main
from aliasfree_jax.checkpoint import abstract_variables, named_leaves
from aliasfree_jax.conversion import converting, from_original, load_for_command, pretrained
from aliasfree_jax.conversion.code_bases import code_base, table
from aliasfree_jax.conversion.pretrained import load_pretrained
from aliasfree_jax.conversion.recognition import normalised, recognise
from aliasfree_jax.conversion.undecided import UndecidedError
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.models import create_model

AFC, BLUR, APS, LPS = (
    "alias_free_convnets",
    "antialiased-cnns",
    "truly_shift_invariant_cnns",
    "learnable_polyphase_sampling",
)
CIFAR = f"{APS}/cifar10"
SMALL = {"depths": [1, 1], "dims": [8, 16], "num_classes": 3}
# Each network has filters that its original saves.
SAVED = {
    "convnext_aps": (AFC, "convnext_aps", {**SMALL, "blurpool_kwargs": {"filt_size": 3}}),
    "convnext_afc blur": (AFC, "convnext_afc", {**SMALL, "blurpool_kwargs": {"filt_size": 3}}),
    "convnext_afc baseline": (AFC, "convnext_afc", {**SMALL, "blurpool_kwargs": {"filt_size": 1}}),
    "resnet18_aps": (APS, "resnet18_aps", {"filter_size": 3}),
    "resnet18_aps pool_only": (APS, "resnet18_aps", {"filter_size": 2, "pool_only": True}),
    "resnet18_lpf": (APS, "resnet18_lpf", {"filter_size": 5}),
    "resnet50_lpf": (APS, "resnet50_lpf", {"filter_size": 1}),
    "resnet20_aps": (CIFAR, "resnet20_aps", {"filter_size": 3, "conv_pad_type": "circular"}),
    "resnet20_lpf": (CIFAR, "resnet20_lpf", {"filter_size": 1, "conv_pad_type": "zeros"}),
    "resnet18": (BLUR, "resnet18", {"filter_size": 4}),
    "resnet50": (BLUR, "resnet50", {"filter_size": 3, "pool_only": False}),
    "densenet121": (BLUR, "densenet121", {"filter_size": 4}),
    "vgg11": (BLUR, "vgg11", {"filter_size": 4}),
    "vgg11_bn": (BLUR, "vgg11_bn", {"filter_size": 2}),
    "alexnet": (BLUR, "alexnet", {"filter_size": 5}),
    "alexnet pool_only": (BLUR, "alexnet", {"filter_size": 5, "pool_only": True}),
    "mobilenet_v2": (BLUR, "mobilenet_v2", {"filter_size": 3}),
    "ResNet18Custom": (LPS, "ResNet18Custom", {"antialias": ["LowPassFilter", 3, "circular"]}),
    "ResNet18Custom max": (
        LPS,
        "ResNet18Custom",
        {"pool": "max_2_norm", "antialias": ["LowPassFilter", 3, "circular"]},
    ),
}


def shapes_of(source, model, options):
    """A state dict of zeros without memory. Filters have their values."""
    return dict(made_of(source, model, json.dumps(options)))


@functools.cache
def made_of(source, model, text):
    options = json.loads(text)
    base = code_base(source)
    options = {"num_classes": 10, **options}
    network, ours = base.translate(model, options)
    variables = abstract_variables(create_model(network, **ours), 128, 3)
    table = base.table(model, options)
    flat = named_leaves(variables)
    state = {}
    for entry in table:
        if entry.constant is not None:
            state[entry.key] = entry.constant
        else:
            leaf = np.broadcast_to(np.float32(0), flat[entry.path].shape)
            state[entry.key] = entry.layout.there(leaf)
    return state


@pytest.fixture
def load(monkeypatch, tmp_path):
    """`load_pretrained` for a state dict. It does not read a file or convert arrays."""

    def loaded(state, beside=(), **keywords):
        path = zip_file(tmp_path / "weights.pth", dict(beside))
        monkeypatch.setattr(pretrained, "read_state_dict", lambda path, key, tell: state)
        monkeypatch.setattr(
            pretrained, "converted", lambda source, model, options, *rest: (source, model, options)
        )
        return load_pretrained(path, **keywords)

    return loaded


def unfiltered(state):
    return {key: value for key, value in state.items() if not key.endswith("filt")}


@pytest.mark.parametrize("case", SAVED)
def test_a_file_without_its_filters_is_asked_for(case, load):
    source, model, options = SAVED[case]
    with pytest.raises(UndecidedError, match="blur filters") as error:
        load(unfiltered(shapes_of(source, model, options)))
    asked = error.value.arguments
    assert asked["source"] == source and code_base(source).filters in asked["options"]


@pytest.mark.parametrize("case", SAVED)
def test_a_file_without_some_of_its_filters_is_refused(case, load):
    source, model, options = SAVED[case]
    state = shapes_of(source, model, options)
    filters = [key for key in state if key.endswith("filt")]
    for lost in (filters[:1], filters[1:], filters[-1:]):
        given = {"source": source, "model": model} if source == CIFAR else {}
        kept = {key: value for key, value in state.items() if key not in lost}
        try:
            found, name, chosen = load(kept, **given)
        except UndecidedError:
            continue
        # Recognised as another form: the error lists filters that are left over.
        with pytest.raises(ConversionError, match="keys that the network does not have|are missing"):
            converting.convert(kept, table(found, name, {"num_classes": 10, **chosen}), {})


@pytest.mark.parametrize("case", [case for case in SAVED if "pool_only" not in case])
def test_the_options_decide(case, load):
    source, model, options = SAVED[case]
    state = unfiltered(shapes_of(source, model, options))
    found = load(state, source=source, model=model, options=options)
    assert found == (source, model, options)


def test_filters_of_another_size_are_refused():
    source, model, options = SAVED["resnet18_aps"]
    state = shapes_of(source, model, options)
    state["layer3.0.aps_down.filt"] = np.ones((256, 1, 2, 2), np.float32) / 4
    _, name, chosen = recognise(state)
    with pytest.raises(ConversionError, match="layer3.0.aps_down.filt .*: differs from the constant"):
        from_original(source, name, chosen, state)


def test_the_file_itself_may_say(load):
    state = unfiltered(shapes_of(*SAVED["resnet18_aps"]))
    assert load(state, {"arch": "resnet18_aps3"})[2]["filter_size"] == 3
    assert load(state, {"arch": "resnet18_aps1"})[2]["filter_size"] == 1
    with pytest.raises(UndecidedError):
        load(state, {"arch": "resnet18"})
    state = unfiltered(shapes_of(*SAVED["convnext_aps"]))
    said = Code(code({"blurpool_kwargs": {"filt_size": 3}}))
    assert load(state, {"args": said})[2]["blurpool_kwargs"] == {"filt_size": 3}


def test_hyper_parameters_may_say_that_there_is_no_filter(load):
    state = unfiltered(shapes_of(*SAVED["ResNet18Custom"]))
    down = name("layers.polydown", "PolyphaseInvariantDown2D")
    made = Code(name("functools", "partial") + code((down,)) + b"R" + code((down, (), {}, None)) + b"b")
    found = load(state, {"hyper_parameters": {"pooling_layer": made}})
    assert found[:2] == (LPS, "ResNet18Custom") and "antialias" not in found[2]


def test_what_is_assumed_of_plain_networks_is_told(load):
    told = []
    state = shapes_of("torchvision", "resnet18", {})
    assert load(state, tell=told.append)[:2] == ("torchvision", "resnet18")
    assert "timm's resnetblur and resnetaa" in told[0] and "antialiased-cnns" in told[0]
    assert load(state, source="torchvision", tell=told.append)[1] == "resnet18" and len(told) == 1
    with pytest.warns(UserWarning, match="resnetblur"):
        load(state)


def test_dense_networks_of_two_libraries_are_told_apart(load):
    """torchvision's DenseNets have the keys of BlurPool's, except the filters."""
    state = shapes_of("torchvision", "densenet121", {})
    with pytest.raises(UndecidedError, match=r"torchvision's densenet121, .*source 'torchvision'"):
        load(state)
    assert load(state, source="torchvision")[:2] == ("torchvision", "densenet121")
    found = load(state, source=BLUR, options={"filter_size": 4})
    assert found == (BLUR, "densenet121", {"filter_size": 4})


def test_ideal_filters_are_recognised_by_their_masks_or_told(load):
    options = {**SMALL, "blurpool_kwargs": {"filter_type": "ideal"}}
    gelu = shapes_of(AFC, "convnext_afc", options)
    with pytest.raises(UndecidedError):
        load(gelu)
    masked = {**gelu, "downsample_layers.1.2.filt.rect": np.ones((4, 3))}
    assert load(masked)[2]["blurpool_kwargs"]["filter_type"] == "ideal"
    told = []
    alias_free = {**options, "activation": "up_poly_per_channel", "normalization_type": "CHW2"}
    load(shapes_of(AFC, "convnext_afc", alias_free), tell=told.append)
    assert "ideal filters" in told[0] and "blurpool_kwargs" in told[0]


def test_from_original_wants_the_size_of_missing_filters():
    state = unfiltered(shapes_of(BLUR, "resnet18", {}))
    with pytest.raises(UndecidedError, match="maxpool.1.filt.* always saves"):
        from_original(BLUR, "resnet18", {}, state)
    _, variables = from_original(BLUR, "resnet18", {"filter_size": 4}, state)
    assert jax.tree.leaves(variables)


def test_the_command_names_its_flags(monkeypatch, tmp_path, capsys):
    state = unfiltered(shapes_of(*SAVED["resnet18_aps"]))
    monkeypatch.setattr(pretrained, "read_state_dict", lambda path, key, tell: state)
    path = zip_file(tmp_path / "weights.pth", {"w": tensor(numbers(6), 0, (6,), (1,))}, [bytes(24)])
    assert main(["convert", str(path), str(tmp_path / "net")]) == 2
    printed = capsys.readouterr().err
    options = json.dumps({"filter_size": 3})
    assert f"--source={APS} --model=resnet18_aps --options='{options}'" in printed


def test_commands_that_take_files_say_how_to_convert_them(monkeypatch, tmp_path, capsys):
    state = unfiltered(shapes_of(*SAVED["resnet18_aps"]))
    monkeypatch.setattr(pretrained, "read_state_dict", lambda path, key, tell: state)
    path = zip_file(tmp_path / "weights.pth", {})
    with pytest.raises(ConversionError) as error:
        load_for_command(path, "--checkpoint")
    for text in (
        f"python -m aliasfree_jax convert {path} converted --source={APS} --model=resnet18_aps --options=",
        "Then pass --checkpoint=converted.",
    ):
        assert text in str(error.value)
    monkeypatch.setattr(pretrained, "load_pretrained", lambda path, tell: tell("assumed"))
    load_for_command(path, "--checkpoint")
    assert "note           assumed" in capsys.readouterr().out


def test_a_network_that_timm_alone_has(load):
    """Its resnet50c has a stem of three convolutions. Only the architecture's name tells whether it blurs."""
    state = shapes_of("torchvision", "resnet50", {})
    state = {key: value for key, value in state.items() if key != "conv1.weight"}
    for number, shape in ((0, (32, 3, 3, 3)), (3, (32, 32, 3, 3)), (6, (64, 32, 3, 3))):
        state[f"conv1.{number}.weight"] = np.broadcast_to(np.float32(0), shape)
    for number in (1, 4):
        state[f"conv1.{number}.weight"] = np.zeros(32)
    with pytest.warns(UserWarning, match="assumed to be timm's resnet50c, without blur filters"):
        assert load(state)[:2] == ("timm", "resnet50c")


def test_a_plain_network_around_which_core_is_a_prefix(load):
    """Lightning modules have a prefix `core`, like the ResNets of LPS."""
    plain = shapes_of("torchvision", "resnet18", {})
    state = normalised({f"core.{key}": value for key, value in plain.items()})
    assert load(state, source="torchvision")[:2] == ("torchvision", "resnet18")
    lps = shapes_of(*SAVED["ResNet18Custom max"])
    assert set(normalised({f"model.{key}": value for key, value in lps.items()})) == set(lps)

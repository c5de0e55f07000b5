"""State dicts of the four code bases and of torchvision: tables, refusals and export."""

import described
import golden
import jax
import numpy as np
import pytest
from rule import make_array

from aliasfree_jax.__main__ import main
from aliasfree_jax.checkpoint import abstract_variables, load_model
from aliasfree_jax.conversion import alias_free_convnets, from_original, pretrained, to_original
from aliasfree_jax.conversion.antialiased_cnns import SOURCE, TORCHVISION
from aliasfree_jax.conversion.code_bases import code_base, table
from aliasfree_jax.conversion.entries import blur_filter
from aliasfree_jax.conversion.recognition import normalised, recognise
from aliasfree_jax.conversion.undecided import UndecidedError
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.models import create_model

# Numbers of parameters, of keys in BlurPool and of keys in torchvision.
NETWORKS = {
    "alexnet": (61100840, 20, 16),
    "vgg11": (132863336, 27, 22),
    "vgg13": (133047848, 31, 26),
    "vgg16": (138357544, 37, 32),
    "vgg19": (143667240, 43, 38),
    "vgg11_bn": (132868840, 67, 62),
    "vgg13_bn": (133053736, 81, 76),
    "vgg16_bn": (138365992, 102, 97),
    "vgg19_bn": (143678248, 123, 118),
    "resnet18": (11689512, 129, 122),
    "resnet34": (21797672, 225, 218),
    "resnet50": (25557032, 327, 320),
    "resnet101": (44549160, 633, 626),
    "resnet152": (60192808, 939, 932),
    "resnext50_32x4d": (25028904, 327, 320),
    "resnext101_32x8d": (88791336, 633, 626),
    "wide_resnet50_2": (68883240, 327, 320),
    "wide_resnet101_2": (126886696, 633, 626),
    "densenet121": (7978856, 731, 727),
    "densenet169": (14149480, 1019, 1015),
    "densenet201": (20013928, 1211, 1207),
    "densenet161": (28681000, 971, 967),
    "mobilenet_v2": (3504872, 318, 314),
}


def parameters(name: str, **options) -> int:
    shapes = abstract_variables(create_model(name, **options), 128, 3)["params"]
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


# One of each kind is enough for the fast tests. The others only have more layers.
DEEP = {"resnet101", "resnet152", "resnext101_32x8d", "wide_resnet101_2", "ResNet101Custom"}
DEEP |= {"vgg16", "vgg19", "vgg16_bn", "vgg19_bn", "densenet169", "densenet201", "densenet161"}


def with_deep_ones_slow(cases, name):
    return [pytest.param(case, marks=pytest.mark.slow) if name(case) in DEEP else case for case in cases]


@pytest.mark.parametrize("name", with_deep_ones_slow(NETWORKS, str))
def test_parameters_and_keys_of_all_23_networks(name):
    count, keys, plain = NETWORKS[name]
    assert parameters(f"{name}_blur") == count
    assert (len(table(SOURCE, name, {})), len(table(TORCHVISION, name, {}))) == (keys, plain)


# Numbers of keys and parameters.
OTHERS = {
    ("aps", "resnet18_aps", ()): (122, 11689512),
    ("aps", "resnet18_aps", (("filter_size", 3),)): (130, 11689512),
    ("aps", "resnet18_aps", (("filter_size", 3), ("pool_only", True))): (129, 11689512),
    ("aps", "resnet18_lpf", ()): (130, 11689512),
    ("cifar", "resnet20", ()): (128, 272474),
    ("cifar", "resnet20_aps", ()): (132, 272474),
    ("cifar", "resnet56_lpf", ()): (348, 855770),
    ("cifar", "resnet18_aps", ()): (128, 11173962),
    ("cifar", "resnet34", ()): (218, 21282122),
    ("cifar", "resnet50_aps", ()): (326, 23520842),
    ("lps", "ResNet18Custom", ()): (150, 18032168),
    ("lps", "ResNet18Custom", (("antialias", ("LowPassFilter", 3, "circular")),)): (157, 18032168),
    ("lps", "ResNet18Custom", (("antialias", ("DDAC", 3, "circular", 8)),)): (192, 18945560),
    ("lps", "ResNet50Custom", (("swap_conv_pool", False),)): (348, 31899688),
    ("lps", "ResNet101Custom", (("swap_conv_pool", False),)): (654, 50891816),
    ("lps", "ResNet18Custom", (("conv1_stride", True),)): (145, 17958312),
    ("lps", "ResNet18Custom", (("pool", "max_2_norm"),)): (122, 11689512),
}
SOURCES = {
    "aps": "truly_shift_invariant_cnns",
    "cifar": "truly_shift_invariant_cnns/cifar10",
    "lps": "learnable_polyphase_sampling",
}


@pytest.mark.parametrize(
    "case", with_deep_ones_slow(OTHERS, lambda case: case[1]), ids=lambda case: f"{case[1]} {dict(case[2])}"
)
def test_parameters_and_keys_of_the_others(case):
    family, model, options = case
    classes = {"num_classes": 10 if family == "cifar" else 1000}
    entries = table(SOURCES[family], model, {**dict(options), **classes})
    keys, count = OTHERS[case]
    assert len(entries) == keys == len({entry.key for entry in entries})
    # Shapes both ways: zeros with the network's shapes are exported and converted back.
    name, ours = code_base(SOURCES[family]).translate(model, {**dict(options), **classes})
    shapes = abstract_variables(create_model(name, **ours), 64, 3)
    variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    state = to_original(SOURCES[family], model, {**dict(options), **classes}, variables)
    assert sum(v.size for k, v in state.items() if k.endswith(("weight", "bias"))) == count
    _, again = from_original(SOURCES[family], model, dict(options), state)
    assert jax.tree.map(np.shape, again) == jax.tree.map(np.shape, variables)


@pytest.fixture(scope="module")
def small():
    case = golden.load("cifar_resnet20_aps_1_circular")
    return case.meta["source"], case.meta["model"], case.meta["options"], dict(case.state_dict)


def test_missing_constants_are_made_again(small):
    source, model, options, state = small
    left = {key: v for key, v in state.items() if not key.endswith(("filt", "num_batches_tracked"))}
    _, variables = from_original(source, model, options, left)
    assert set(to_original(source, model, options, variables)) == set(state)


def test_what_does_not_fit_is_listed(small):
    source, model, options, state = small
    wrong = dict(state)
    del wrong["layer1.0.bn1.bias"]
    wrong["layer1.0.bn9.bias"] = np.zeros(16)
    wrong["fc.weight"] = np.zeros((10, 63), np.float32)
    wrong["layer2.0.conv2.0.filt"] = state["layer2.0.conv2.0.filt"] * 2
    with pytest.raises(ConversionError) as error:
        from_original(source, model, options, wrong)
    for text in (
        "keys that the network does not have:\n    layer1.0.bn9.bias [16]",
        "layer1.0.bn1.bias (for params/stage0_block0/norm1/norm/bias)",
        "fc.weight has the converted shape [63, 10], params/head/kernel needs [64, 10]",
        "layer2.0.conv2.0.filt [32, 1, 1, 1]: differs from the constant [32, 1, 1, 1] of this network",
    ):
        assert text in str(error.value)


@pytest.mark.parametrize("dtype", [np.int8, np.complex64, np.bool_])
def test_quantised_and_other_numbers_are_no_weights(small, dtype):
    source, model, options, state = small
    with pytest.raises(ConversionError) as error:
        from_original(source, model, options, state | {"fc.bias": state["fc.bias"].astype(dtype)})
    assert f"fc.bias [10]: {np.dtype(dtype)}, expected floating-point numbers" in str(error.value)
    assert "parameters that no key fills" not in str(error.value)


def test_a_head_of_another_rank_is_refused(small):
    source, model, options, state = small
    with pytest.raises(
        ConversionError, match=r"fc.weight has the converted shape \[64, 10\], .* needs \[64, 1\]"
    ):
        from_original(source, model, options, state | {"fc.bias": np.zeros((), np.float32)})


@pytest.mark.parametrize(
    ("stem", "kwargs"),
    [
        (None, {}),
        ("activation", {"in_scale": 7, "out_scale": 2.5}),
        ("activation_residual", {"coef": [0.0, 0.5, 0.2, 0.1], "in_scale": 7, "train_scale": True}),
    ],
)
@pytest.mark.parametrize("norm", ["C", "batch", "instance", "group"])
def test_alias_free_options_without_golden_cases_go_there_and_back(stem, kwargs, norm):
    options = {"depths": [1, 1], "dims": [8, 16], "num_classes": 3, "normalization_type": norm}
    options |= {"normalization_kwargs": {"num_groups": 4}, "activation_kwargs": kwargs}
    options |= {"activation": "poly_per_channel" if stem else "gelu", "stem_mode": stem}
    options |= {"stem_activation": "up_poly_per_channel", "stem_activation_kwargs": kwargs}
    name, ours = alias_free_convnets.translate("convnext_afc", options)
    shapes = abstract_variables(create_model(name, **ours), 32, 3)
    variables = jax.tree.map(lambda leaf: make_array("x", leaf.shape), shapes)
    source = alias_free_convnets.SOURCE
    state = to_original(source, "convnext_afc", options, variables)
    scaled = {key for key in state if key.endswith("scale")}
    assert len(scaled) == (0 if stem is None else 6)  # two blocks and the stem, each with two scales
    assert not stem or f"downsample_layers.0.1{'.residual.0' * ('residual' in stem)}.pact.coef" in state
    _, again = from_original(source, "convnext_afc", options, state)
    jax.tree.map(np.testing.assert_array_equal, again, variables)
    if stem == "activation":
        wrong = state | {"stages.0.0.mlp.act.in_scale": np.full(1, 6, np.float32)}
        with pytest.raises(
            ConversionError, match=r"in_scale \[1\]: differs from the constant \[1\] of this network"
        ):
            from_original(source, "convnext_afc", options, wrong)


def test_filters_of_another_size_do_not_fit(small):
    source, model, options, state = small
    with pytest.raises(ConversionError, match="differs from the constant"):
        from_original(source, model, {**options, "filter_size": 3}, state)


def test_filters_are_binomials():
    entry = blur_filter("filt", 2, 4)
    assert entry.constant.shape == (2, 1, 4, 4)
    np.testing.assert_array_equal(entry.constant[1, 0] * 64, np.outer([1, 3, 3, 1], [1, 3, 3, 1]))


@pytest.mark.parametrize(
    ("source", "model", "options", "message"),
    [
        (SOURCE, "resnet19", {}, "unknown network of antialiased-cnns 'resnet19'. Did you mean 'resnet18'"),
        (SOURCE, "vgg16", {"pool_only": True}, "unknown option of antialiased-cnns vgg16 'pool_only'"),
        (TORCHVISION, "resnet50", {"filter_size": 3}, "unknown option of torchvision resnet50"),
        (SOURCES["aps"], "resnet18", {}, "Did you mean 'resnet18_"),
        (SOURCES["cifar"], "resnet20", {"conv_pad_type": "replicate_pad"}, "unknown conv_pad_type"),
        (SOURCES["lps"], "ResNet18Custom", {"pool": "avgpool"}, "unknown pool of learnable"),
        (
            SOURCES["lps"],
            "ResNet18Custom",
            {"logits_channels": {"maxpool": 8, "layer2": 8}},
            "expected the same multiple",
        ),
        ("torchvison", "resnet50", {}, "unknown source 'torchvison'. Did you mean 'torchvision'"),
    ],
)
def test_unknown_names_are_shown_with_near_ones(source, model, options, message):
    with pytest.raises(ConversionError, match=message):
        from_original(source, model, options, {})


def test_plain_weights_start_the_antialiased_network():
    """torchvision's parameters have the same shapes. BlurPool's "finetune from baseline" relies on it."""
    entries = table(TORCHVISION, "resnet18", {"num_classes": 10})
    shapes = abstract_variables(create_model("resnet18", num_classes=10), 64, 3)
    variables = jax.tree.map(lambda leaf: make_array("x", leaf.shape), shapes)
    state = to_original(TORCHVISION, "resnet18", {"num_classes": 10}, variables)
    assert len(state) == len(entries) == 122
    _, plain = from_original(TORCHVISION, "resnet18", {}, state)
    blurred = abstract_variables(create_model("resnet18_blur", num_classes=10), 64, 3)
    assert jax.tree.map(np.shape, plain) == jax.tree.map(lambda leaf: leaf.shape, blurred)


META = {name: described.meta(name) for name in described.originals()}
OTHER_SOURCES = [name for name, meta in META.items() if meta["source"] != "alias_free_convnets"]


@pytest.mark.parametrize("name", OTHER_SOURCES)
def test_networks_are_recognised_by_their_keys(name):
    meta, shapes = META[name], described.shapes(name)
    model = meta["model"].removesuffix(" (circular)")
    if meta["source"].endswith("cifar10") and model not in ("resnet18", "resnet20"):
        with pytest.raises(UndecidedError, match=f"\\({model.split('_')[0]}_aps\\) or BlurPool"):
            recognise(shapes)
        return
    if model == "BasicClassifier":
        with pytest.raises(ConversionError, match="are not those of a network that can be recognised"):
            recognise(shapes)
        return
    source, found, options = recognise(shapes)
    assert (source, found) == (meta["source"], model)
    asked = {**meta["options"], "num_classes": 10}
    given = {**options, "num_classes": 10}
    assert [e.key for e in table(source, found, given)] == [e.key for e in table(source, found, asked)]
    for option in ("filter_size", "pool_only", "antialias", "swap_conv_pool", "logits_channels"):
        value = meta["options"].get(option)
        if value is not None and option in options and option != "antialias":
            assert options[option] == value, option


SMALL = (
    *("convnext_mini_64", "blurpool_resnet18_lpf2_64", "aps_resnet18_aps3_l2_64", "lps_resnet18_ddac3_64"),
    "cifar_resnet20_1_circular",
)
ORIGINALS = {META[name]["source"]: name for name in (*META, *SMALL)}


@pytest.mark.parametrize("source", ORIGINALS)
def test_a_converted_network_is_evaluated_as_by_its_original(source, monkeypatch, tmp_path):
    case = golden.load(ORIGINALS[source])
    monkeypatch.setattr(pretrained, "read_state_dict", lambda path, key, tell: case.state_dict)
    model = case.meta["model"].removesuffix(" (circular)")
    (tmp_path / "file.pt").touch()
    card, _, _ = pretrained.load_pretrained(
        tmp_path / "file.pt", source=source, model=model, options=case.meta["options"]
    )
    data = card.preparation()
    if source.endswith("cifar10") or "cifar" in card.model or card.model == "basic":
        expected = (32, 1.0, "bicubic")  # these sets are not resized
    elif source == "alias_free_vit":
        expected = (224, 1.0, "bicubic")  # whole images
    else:
        expected = (224, 0.875, "bicubic" if source == "alias_free_convnets" else "bilinear")
    assert (data["image_size"], data["eval_crop_ratio"], data["interpolation"]) == expected
    assert (data["zero_pad"], data["eval_view"], data["exif"]) == (0, "auto", False)


def test_the_command_converts_what_it_recognises(tmp_path, capsys, monkeypatch):
    case = golden.load("cifar_resnet20_1_circular")
    wrapped = {f"module.{key}": value for key, value in case.state_dict.items()}
    monkeypatch.setattr(pretrained, "read_state_dict", lambda path, key, tell: wrapped)
    (tmp_path / "file.pt").touch()
    assert main(["convert", str(tmp_path / "file.pt"), str(tmp_path / "converted")]) == 0
    printed = capsys.readouterr().out
    assert "truly_shift_invariant_cnns/cifar10 resnet20: resnet20_cifar_circular" in printed
    assert "--config=configs/cifar10_resnet.py" in printed
    card, module, variables = load_model(tmp_path / "converted")
    assert (card.image_size, card.eval_crop_ratio, card.mean[0]) == (32, 1.0, 0.49141738)
    logits = jax.jit(module.apply)(variables, case.inputs.transpose(0, 2, 3, 1))
    assert np.abs(logits - case.output).max() < 1e-5 * np.abs(case.output).max()


def test_older_and_wrapped_files_are_read_alike():
    for older, today in (
        (
            "module.features.denseblock1.denselayer2.norm.1.weight",
            "features.denseblock1.denselayer2.norm1.weight",
        ),
        ("module.layer2.0.conv2.0.ds.1.weight", "layer2.0.conv2.0.filt"),
        ("features.module.3.weight", "features.3.weight"),
    ):
        value = np.zeros(1)
        assert list(normalised({older: value})) == list(normalised({today: value})) == [today]


@pytest.mark.parametrize("option", ["LPS_gumbel", "LPS_convex"])
def test_mixtures_of_evaluation_have_the_temperature_of_the_weights(option):
    case = golden.load("lps_basic_32")
    state = {
        key: np.float32(0.25) if key.endswith("gumbel_tau") else value
        for key, value in case.state_dict.items()
    }
    options = {**case.meta["options"], option: True}
    module, variables = from_original(SOURCES["lps"], "BasicClassifier", options, state)
    images = case.inputs.transpose(0, 2, 3, 1)
    logits = jax.jit(module.apply)(variables, images)  # without a random key
    assert np.isfinite(logits).all() and module.sampler().evaluation_temperature == 0.25
    several = state | {next(key for key in state if key.endswith("gumbel_tau")): np.float32(0.5)}
    with pytest.raises(ConversionError, match=r"different temperatures gumbel_tau: \[0.25, 0.5\]"):
        from_original(SOURCES["lps"], "BasicClassifier", options, several)

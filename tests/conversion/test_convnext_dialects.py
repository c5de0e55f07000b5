"""ConvNeXts of timm, torchvision and transformers: golden cases, recognition and refusals."""

import re

import described
import golden
import jax
import numpy as np
import pytest
from libraries import check_output, check_strictness, check_way_back, converted, logits, unused_keys

from aliasfree_jax.checkpoint import abstract_variables
from aliasfree_jax.conversion import from_original
from aliasfree_jax.conversion.convnext_dialects import (
    TORCHVISION_CONVNEXT,
    TRANSFORMERS_CONVNEXT,
    UNTRACED,
    recognise_torchvision_convnext,
    recognise_transformers_convnext,
)
from aliasfree_jax.conversion.timm_convnext import TIMM_CONVNEXT, recognise_timm_convnext
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.models import create_model

BASES = {base.source: base for base in (TIMM_CONVNEXT, TORCHVISION_CONVNEXT, TRANSFORMERS_CONVNEXT)}
RECOGNISE = {
    "timm": recognise_timm_convnext,
    "torchvision": recognise_torchvision_convnext,
    "transformers": recognise_transformers_convnext,
}
NAMES = [name for name in golden.cases() if name.startswith(described.LIBRARIES) and "_convnext_" in name]
SOURCES = {name: described.meta(name)["source"] for name in NAMES}
MINI = [name for name in NAMES if "mini" in name]
SMALLEST = {source: next(name for name in MINI if SOURCES[name] == source) for source in BASES}
LARGE = [name for name in NAMES if name not in MINI]
STAGES = {"depths": [1, 1, 2, 1], "dims": [8, 16, 24, 32]}
HIDDEN = {"depths": [1, 1, 2, 1], "hidden_sizes": [8, 16, 24, 32]}
CLASSIFIER = "ConvNextForImageClassification"


def test_the_cases_are_all_there():
    assert len(NAMES) == 9 and len(MINI) == 7


def with_others_slow(names, quick):
    return [name if name in quick else pytest.param(name, marks=pytest.mark.slow) for name in names]


# All small cases are compared in float64 below.
@pytest.mark.parametrize("name", with_others_slow([*SMALLEST.values(), *LARGE], SMALLEST.values()))
def test_float32(name):
    check_output(BASES[SOURCES[name]], name, "float32")


@pytest.mark.parametrize("name", MINI)
def test_float64(name):
    check_output(BASES[SOURCES[name]], name, "float64")


@pytest.mark.parametrize("name", with_others_slow(NAMES, MINI))
def test_the_way_back(name):
    check_way_back(BASES[SOURCES[name]], name)


@pytest.mark.parametrize("source", BASES)
def test_every_key_is_used(source):
    assert list(unused_keys(BASES[source], SMALLEST[source])) == []


@pytest.mark.parametrize("source", BASES)
def test_missing_and_further_keys_are_named(source):
    check_strictness(BASES[source], SMALLEST[source])


def test_the_final_norms_place_and_epsilon_can_be_seen():
    """The weights do not show these fields: equal weights have another output."""
    for base, one, other in (
        (TIMM_CONVNEXT, "timm_convnext_mini_64", "timm_convnext_mini_head_norm_first_64"),
        (
            TRANSFORMERS_CONVNEXT,
            "transformers_convnext_mini_64",
            "transformers_convnext_mini_layer_norm_eps_64",
        ),
    ):
        _, module, _ = converted(base, one)
        case, _, variables = converted(base, other)
        assert np.abs(logits(case, module, variables) - case.output).max() > 1e-3


def known(source, model, options):
    """The fields without UNTRACED fields and without the library's defaults."""
    defaults = {"model_type": "convnext", "num_stages": 4}
    defaults |= dict.fromkeys(("patch_size",), 4) if source == "transformers" else {}
    left = {key: value for key, value in {**defaults, **options}.items() if key not in UNTRACED}
    return model, {key: list(value) if isinstance(value, tuple) else value for key, value in left.items()}


@pytest.mark.parametrize("name", NAMES)
def test_networks_are_recognised_by_one_dialect(name):
    meta, shapes = described.meta(name), described.shapes(name)
    for source, recognise in RECOGNISE.items():
        found = recognise(shapes)
        if source == meta["source"]:
            assert known(source, *found) == known(source, meta["model"], meta["options"])
            assert found[0] and BASES[source].table(*found)
        else:
            assert found is None


def test_weights_of_other_networks_are_left_to_others():
    names = ("convnext_mini_64", "afc_mini_128", "blurpool_vgg11_lpf4_64", "timm_mobilenetv2_100_64")
    for state in ({}, {"stem.0.weight": np.zeros(())}, *map(described.shapes, names)):
        assert [recognise(state) for recognise in RECOGNISE.values()] == [None, None, None]


@pytest.mark.parametrize("source", BASES)
def test_damaged_files_are_recognised_or_not_without_an_error(source):
    state = described.shapes(SMALLEST[source])
    for key in state:
        others = {name: value for name, value in state.items() if name != key}
        for damaged in (others, {**others, key: np.zeros(())}, {**others, key: np.zeros((1, 1, 1, 1, 1))}):
            found = RECOGNISE[source](damaged)
            assert found is None or found[0] == RECOGNISE[source](state)[0]


# Numbers of parameters and keys in timm 1.0.31.
PARAMETERS = {
    "atto": (3_695_520, 128),
    "femto": (5_217_784, 128),
    "pico": (9_045_672, 128),
    "nano": (15_593_560, 146),
    "tiny_hnf": (28_589_128, 182),
    "small": (50_223_688, 344),
    "base": (88_591_464, 344),
    "large": (197_767_336, 344),
    "xlarge": (350_196_968, 344),
    "xxlarge": (846_471_016, 380),
}


@pytest.mark.parametrize("size", with_others_slow(PARAMETERS, ("atto", "tiny_hnf")))
def test_architectures_of_timm(size):
    model = f"convnext_{size}"
    name, options = TIMM_CONVNEXT.translate(model, {})
    shapes = abstract_variables(create_model(name, **options), 224, 3)
    count = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    assert (count, len(TIMM_CONVNEXT.table(model, {}))) == PARAMETERS[size]
    epsilon = create_model(name, **options).norm().epsilon
    assert epsilon == (1e-5 if size == "xxlarge" else 1e-6)


@pytest.mark.parametrize(("patch", "total"), [(1, 8), (2, 32), (3, 24), (7, 56)])
def test_patches_of_timm(patch, total):
    """With patches of 2 pixels, the first stage is downsampled too."""
    options = {"patch_size": patch, **STAGES}
    name, ours = TIMM_CONVNEXT.translate("convnext_atto", options)
    network = create_model(name, **ours)
    assert network.total_stride == total and network.stem_kernel == network.stem_stride == patch
    keys = {entry.key for entry in TIMM_CONVNEXT.table("convnext_atto", options)}
    assert ("stages.0.downsample.1.weight" in keys) == (patch == 2)


def test_what_the_weights_show_is_recognised():
    """Variants of timm's smallest case: heads, layer scales, patches, and unsupported parts."""
    state = described.shapes("timm_convnext_mini_64")

    def found(changes, without=()):
        kept = {key: value for key, value in state.items() if not key.endswith(tuple(without))}
        return recognise_timm_convnext({**kept, **changes})[1]

    options = found({})
    assert found({"stem.0.weight": np.zeros((8, 1, 2, 2))}) == options | {"patch_size": 2, "in_chans": 1}
    assert found({}, ["fc.weight", "head.fc.bias"]) == options | {"num_classes": 0}
    assert found({}, ["gamma"]) == options | {"ls_init_value": None}
    for changes, without, field, message in (
        ({"stages.0.blocks.0.mlp.grn.weight": np.zeros(32)}, (), "use_grn", "response norm of ConvNeXt V2"),
        ({"stem.2.weight": np.zeros(8)}, (), "stem_type", "a stem of overlapping patches"),
        ({"head.pre_logits.fc.weight": np.zeros((8, 32))}, (), "head_hidden_size", "a hidden layer"),
        ({}, ["conv_dw.bias"], "conv_bias", "convolutions without bias"),
        ({"stages.1.blocks.0.conv_dw.weight": np.zeros((16, 1, 3, 3))}, (), "kernel_sizes", "depthwise"),
    ):
        options = found(changes, without)
        with pytest.raises(ConversionError, match=f"with {field}=.* has .*{message}"):
            TIMM_CONVNEXT.translate("convnext_tiny", options)


def test_fields_without_effect_are_taken():
    plain = TIMM_CONVNEXT.translate("convnext_tiny", STAGES)
    ignored = {"drop_path_rate": 0.1, "drop_rate": 0.1, "head_init_scale": 0.1, "in_chans": 3}
    neutral = {"use_grn": False, "kernel_sizes": [7, 7, 7, 7], "norm_layer": None, "norm_eps": None}
    assert TIMM_CONVNEXT.translate("convnext_tiny", {**STAGES, **ignored, **neutral}) == plain
    ignored = {"image_size": 384, "torch_dtype": "float32", "drop_path_rate": 0.1, "initializer_range": 0.1}
    plain = TRANSFORMERS_CONVNEXT.translate(CLASSIFIER, HIDDEN)
    assert TRANSFORMERS_CONVNEXT.translate(CLASSIFIER, {**HIDDEN, **ignored, "patch_size": [4, 4]}) == plain


def test_the_fields_of_transformers():
    """Missing fields get the library's defaults. Classes are counted."""
    name, options = TRANSFORMERS_CONVNEXT.translate(CLASSIFIER, {})
    assert (name, options["num_classes"]) == ("convnext_tiny", 2)
    assert create_model(name, **options).final_norm().epsilon == 1e-12
    labels = {str(i): f"class {i}" for i in range(7)}
    assert TRANSFORMERS_CONVNEXT.translate(CLASSIFIER, {"id2label": labels})[1]["num_classes"] == 7
    options = {"depths": [1, 1], "hidden_sizes": [4, 8], "num_stages": 2, "layer_scale_init_value": 0.0}
    name, ours = TRANSFORMERS_CONVNEXT.translate(CLASSIFIER, options | {"hidden_act": "relu"})
    assert (ours["depths"], ours["activation"], ours["layer_scale_init"]) == ((1, 1), "relu", 0.0)
    keys = {entry.key for entry in TRANSFORMERS_CONVNEXT.table(CLASSIFIER, options)}
    assert not any("layer_scale" in key for key in keys)


@pytest.mark.parametrize(
    ("source", "model", "options", "message"),
    [
        ("timm", "convnext_tny", {}, "unknown ConvNeXt of timm 'convnext_tny'. Did you mean 'convnext_tiny'"),
        ("timm", "convnextv2_tiny", {}, "timm's convnextv2_tiny with use_grn=True .* of ConvNeXt V2"),
        (
            "timm",
            "convnext_atto_ols",
            {},
            "a stem of overlapping patches. No network of this package has that",
        ),
        ("timm", "convnext_atto_rms", {}, "has another norm"),
        ("timm", "convnext_large_mlp", {}, "has a hidden layer in its head"),
        ("timm", "test_convnext", {}, "act_layer='gelu_tanh' has another activation"),
        ("timm", "convnext_tiny", {"patch_size": 8}, "patch_size=8 has dilated convolutions"),
        ("timm", "convnext_tiny", {"output_stride": 16}, "output_stride=16 has dilated convolutions"),
        ("timm", "convnext_tiny", {"kernel_sizes": 5}, "kernel_sizes=5 has depthwise kernels"),
        ("timm", "convnext_tiny", {"conv_bias": False}, "conv_bias=False .* conv_bias=True can be converted"),
        ("timm", "convnext_tiny", {"global_pool": "avgmax"}, "global_pool='avgmax' has another pooling"),
        ("timm", "convnext_tiny", {"ls_init": 0.1}, "unknown option of timm's convnext_tiny 'ls_init'"),
        ("timm", "convnext_tiny", {"depths": "3393"}, r"depths='3393': expected a value such as \(3, 3, 9"),
        ("timm", "convnext_tiny", {"depths": [3, 0, 9, 3]}, r"depths=\[3, 0, 9, 3\]: expected a value"),
        ("timm", "convnext_tiny", {"depths": [1, 1]}, "expected 4 stages"),
        ("timm", "convnext_tiny", {"norm_eps": "small"}, "norm_eps='small': expected a value such as 1e-06"),
        ("torchvision", "convnext_xlarge", {}, "unknown ConvNeXt of torchvision 'convnext_xlarge'"),
        ("torchvision", "convnext_tiny", {"norm_layer": "batch"}, "norm_layer='batch' has another norm"),
        ("torchvision", "convnext_tiny", {"block_setting": []}, "unknown option .* 'block_setting'"),
        ("torchvision", "ConvNeXt", {}, "block_setting=None: expected .* for every stage"),
        (
            "torchvision",
            "ConvNeXt",
            {"block_setting": [[8, 8, 1]]},
            "The next channels of the last stage are null",
        ),
        ("torchvision", "ConvNeXt", {"block_setting": [[8, 9, 1], [8, None, 1]]}, "expected .channels, chan"),
        ("transformers", "ConvNextModel", {}, f"unknown ConvNeXt of transformers .* Known: {CLASSIFIER}"),
        ("transformers", "ConvNextV2ForImageClassification", {}, "has a global response norm"),
        (
            "transformers",
            CLASSIFIER,
            {"model_type": "convnextv2"},
            "model_type='convnextv2' has another arch",
        ),
        ("transformers", CLASSIFIER, {"hidden_act": "silu"}, "hidden_act='silu' has another activation"),
        (
            "transformers",
            CLASSIFIER,
            {"patch_size": [4, 8]},
            r"patch_size=\[4, 8\]: expected a value such as 4",
        ),
        ("transformers", CLASSIFIER, {"patch_size": 0}, "patch_size=0: expected 1 pixel or more"),
        ("transformers", CLASSIFIER, {"num_stages": 3}, "expected 3 stages"),
        ("transformers", CLASSIFIER, {"num_labels": "ten"}, "num_labels='ten': expected a number of classes"),
        ("transformers", CLASSIFIER, {"quantization_config": {}}, "unknown option .* 'quantization_config'"),
    ],
)
def test_what_has_no_counterpart_is_refused_by_name(source, model, options, message):
    with pytest.raises(ConversionError, match=message):
        BASES[source].translate(model, options)


@pytest.mark.parametrize("source", BASES)
def test_a_full_kernel_is_no_depthwise_kernel(source):
    """The first of its input channels would fit the network."""
    case = golden.load(SMALLEST[source])
    state = dict(case.state_dict)
    key = next(name for name, value in state.items() if np.shape(value)[1:] == (1, 7, 7))
    state[key] = np.repeat(state[key], 8, axis=1)
    with pytest.raises(ConversionError, match=rf"{re.escape(key)} has the converted shape \[8, 8, 7, 7\]"):
        from_original(source, case.meta["model"], case.meta["options"], state)

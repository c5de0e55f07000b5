"""transformers' ResNets: golden cases, fields of config.json, and recognition."""

import numpy as np
import pytest
from libraries import check_output, check_strictness, check_way_back, converted, named, unused_keys

from aliasfree_jax.conversion.description import described, differences
from aliasfree_jax.conversion.resnet_dialects import (
    TRANSFORMERS_RESNET,
    UNTRACED,
    recognise_transformers_resnet,
)
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.models import create_model

MODEL = "ResNetForImageClassification"
BASIC, BOTTLENECK, FIRST = (
    f"transformers_resnet_{name}_64"
    for name in ("basic", "bottleneck", "bottleneck_downsample_in_bottleneck")
)
CASES = [BASIC, BOTTLENECK, FIRST]


@pytest.mark.parametrize("name", [BASIC, pytest.param(BOTTLENECK, marks=pytest.mark.slow), FIRST])
def test_the_golden_cases(name):
    check_output(TRANSFORMERS_RESNET, name, "float32")
    check_output(TRANSFORMERS_RESNET, name, "float64")
    check_way_back(TRANSFORMERS_RESNET, name)


def test_every_key_is_used_and_none_is_left_over():
    assert list(unused_keys(TRANSFORMERS_RESNET, BASIC)) == []
    check_strictness(TRANSFORMERS_RESNET, BASIC)


def test_the_activation_of_the_config_is_that_of_the_stem_and_the_sums():
    """In transformers 5.24.0, convolutions within a block always have a ReLU."""
    check_output(TRANSFORMERS_RESNET, "transformers_resnet_gelu_mini_66", "float64")
    check_way_back(TRANSFORMERS_RESNET, "transformers_resnet_gelu_mini_66")


@pytest.mark.parametrize("name", CASES)
def test_recognition_reads_all_but_what_leaves_no_trace(name):
    case, _, _ = converted(TRANSFORMERS_RESNET, name)
    traced = {
        field: value
        for field, value in case.meta["options"].items()
        if field not in UNTRACED and field != "model_type"
    }
    assert recognise_transformers_resnet(case.state_dict) == (MODEL, traced)


def test_recognition_leaves_damage_to_the_conversion():
    state = converted(TRANSFORMERS_RESNET, BASIC)[0].state_dict
    headless = {key: value for key, value in state.items() if not key.startswith("classifier")}
    model, options = recognise_transformers_resnet(headless)
    keys = {entry.key for entry in TRANSFORMERS_RESNET.table(model, options)}
    assert keys - set(headless) == {"classifier.1.weight", "classifier.1.bias"}
    for key in state:
        others = {k: v for k, v in state.items() if k != key}
        found = recognise_transformers_resnet(others)
        assert found is not None or key == "resnet.embedder.embedder.convolution.weight"
        for shape in ((), (0,), (1, 1, 1, 1, 1)):
            recognise_transformers_resnet({**others, key: np.zeros(shape)})  # no error
    far = {**state, "resnet.encoder.stages.9999.layers.0.layer.0.normalization.bias": np.zeros(3)}
    assert recognise_transformers_resnet(far)[1]["depths"] == [2, 2, 1, 1, 1]
    others = (
        {},
        {"conv1.weight": np.zeros((1, 1, 1, 1))},
        {k.removeprefix("resnet."): v for k, v in state.items()},
    )
    assert [recognise_transformers_resnet(other) for other in others] == [None] * 3


@pytest.mark.parametrize("name", CASES)
def test_the_config_of_a_network(name):
    case, module, _ = converted(TRANSFORMERS_RESNET, name)
    model, options = named(TRANSFORMERS_RESNET, module)
    given = {field: tuple(v) if isinstance(v, list) else v for field, v in case.meta["options"].items()}
    assert model == MODEL and options.items() <= given.items()


def test_a_config_without_sizes_is_resnet50():
    labels = {"id2label": {str(number): str(number) for number in range(1000)}, "label2id": {}}
    assert TRANSFORMERS_RESNET.translate(MODEL, labels) == ("resnet50", {"num_classes": 1000})
    assert TRANSFORMERS_RESNET.translate(MODEL, {}) == ("resnet50", {"num_classes": 2})
    written = {
        **{"architectures": [MODEL], "model_type": "resnet", "torch_dtype": "float32", "num_channels": 3},
        **{"layer_type": "basic", "depths": [3, 4, 6, 3], "hidden_sizes": [64, 128, 256, 512]},
        **{"downsample_in_first_stage": False, "embedding_size": 64, "hidden_act": "relu", **labels},
    }
    assert TRANSFORMERS_RESNET.translate(MODEL, written) == ("resnet34", {"num_classes": 1000})


REFUSED = [
    (
        MODEL,
        {"downsample_in_first_stage": True},
        "downsample_in_first_stage=True has a stride in its first stage",
    ),
    (MODEL, {"hidden_act": "silu"}, "hidden_act='silu' has another activation"),
    (MODEL, {"layer_type": "inverted"}, "layer_type='inverted' has another kind of blocks"),
    (MODEL, {"hidden_size": 3}, "unknown option of .*'hidden_size'. Did you mean 'hidden_sizes'"),
    (MODEL, {"hidden_sizes": [6, 8, 8, 8]}, r"has hidden_sizes \[6, 8, 8, 8\], expected multiples of 4"),
    (
        MODEL,
        {"depths": [1, 1]},
        r"has depths \[1, 1\] and hidden_sizes .*: expected the same number of stages",
    ),
    (MODEL, {"model_type": "resnext"}, "model_type='resnext' has another architecture"),
    ("ResNetModel", {}, "unknown ResNet of transformers 'ResNetModel'"),
]


@pytest.mark.parametrize(("model", "options", "message"), REFUSED)
def test_what_has_no_counterpart_is_refused_by_name(model, options, message):
    with pytest.raises(ConversionError, match=message):
        TRANSFORMERS_RESNET.translate(model, options)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({}, {"stem_width": 64}, True),
        ({}, {"stem_width": 32}, False),
        ({}, {"shortcut": "projection"}, True),
        ({}, {"shortcut": "zero_padded"}, False),
        ({"sampler": "polyphase"}, {"sampler": "polyphase", "shortcut_sampler": "polyphase"}, True),
        ({"sampler": "polyphase"}, {"sampler": "polyphase", "shortcut_sampler": "subsample"}, False),
        ({}, {"sampler_position": "after"}, True),
        ({}, {"sampler_position": "first"}, False),
        ({}, {"group_width": 4}, True),  # basic blocks have no groups
        ({"block": "bottleneck"}, {"block": "bottleneck", "group_width": 4}, False),
    ],
)
def test_which_fields_of_a_resnet_make_another_function(one, other, same):
    first, second = (described(create_model("resnet18", **options)) for options in (one, other))
    assert (differences(first, second) == []) is same

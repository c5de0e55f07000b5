"""timm's ResNets: golden cases, architectures, and every argument: translated or refused."""

import described as described_cases
import jax
import numpy as np
import pytest
from libraries import (
    check_output,
    check_strictness,
    check_way_back,
    converted,
    named,
    unused_keys,
)

from aliasfree_jax.checkpoint import abstract_variables, named_leaves
from aliasfree_jax.conversion.description import described, differences
from aliasfree_jax.conversion.timm_resnet import TIMM_RESNET, recognise_timm_resnet
from aliasfree_jax.errors import ConversionError, ShapeError
from aliasfree_jax.models import create_model

# timm 1.0.31: deep stems, averages in shortcuts, maps of odd size.
MINI = ["timm_resnetaa50d_mini_65", "timm_resnetblur50d_mini_70"]
LARGE = ["resnet18", "resnetblur18", "resnet50", "resnetaa50", "resnext50_32x4d", "wide_resnet50_2"]


@pytest.mark.parametrize("name", MINI)
def test_small_networks(name):
    check_output(TIMM_RESNET, name, "float64")
    check_way_back(TIMM_RESNET, name)
    case, module, _ = converted(TIMM_RESNET, name)
    model, options = named(TIMM_RESNET, module)
    given = {field: tuple(v) if isinstance(v, list) else v for field, v in case.meta["options"].items()}
    assert (model, options) == (case.meta["model"], given)


def test_every_key_is_used_and_none_is_left_over():
    assert list(unused_keys(TIMM_RESNET, MINI[0])) == []
    check_strictness(TIMM_RESNET, MINI[0])


@pytest.mark.slow
@pytest.mark.parametrize("model", LARGE)
def test_the_golden_cases(model):
    name = f"timm_{model}_64"
    check_output(TIMM_RESNET, name, "float32")
    if model in ("resnet18", "resnetblur18", "resnetaa50"):  # the others differ only in sizes
        check_output(TIMM_RESNET, name, "float64")
    check_way_back(TIMM_RESNET, name)


@pytest.mark.parametrize(
    "model", ["resnet18", "resnetblur50", "resnetaa50d", "resnext101_64x4d", "resnet26t"]
)
def test_our_networks_have_their_names(model):
    name, options = TIMM_RESNET.translate(model, {})
    assert named(TIMM_RESNET, create_model(name, **options)) == (model, {})


@pytest.mark.parametrize(
    ("model", "ours", "options"),
    [
        ("resnet152", "resnet152", {}),
        ("resnet26", "resnet50", {"depths": (2, 2, 2, 2)}),
        ("resnet200", "resnet50", {"depths": (3, 24, 36, 3)}),
        ("wide_resnet101_2", "wide_resnet101_2", {}),
        ("resnext101_64x4d", "resnet101", {"groups": 64, "group_width": 4}),
    ],
)
def test_architectures_of_other_sizes(model, ours, options):
    assert TIMM_RESNET.translate(model, {}) == (ours, {"num_classes": 1000, **options})


def test_arguments_are_translated():
    given = {
        **{"num_classes": 0, "global_pool": "", "act_layer": "gelu"},
        **{"layers": [1, 1, 1, 2], "channels": [8, 8, 16, 16], "cardinality": 2, "base_width": 32},
        **{"stem_type": "deep_tiered", "stem_width": 8, "in_chans": 1, "block_args": None},
        **{"drop_rate": 0.1, "drop_path_rate": 0.1, "zero_init_last": False},
    }
    name, options = TIMM_RESNET.translate("resnet50", given)
    module = create_model(name, **options)
    stem = module.stem_layer(parent=None)
    assert (module.depths, module.widths, module.groups) == ((1, 1, 1, 2), (8, 8, 16, 16), 2)
    assert (module.group_width, module.global_pool, module.num_classes) == (32, "", 0)
    assert (stem.hidden_widths, stem.width) == ((6, 8), 16)
    assert "fc.weight" not in {entry.key for entry in TIMM_RESNET.table("resnet50", given)}
    _, back = named(TIMM_RESNET, module)
    assert (back["act_layer"], back["global_pool"], back["stem_width"]) == ("gelu", "", 8)


REFUSED = [
    (
        "resnet50",
        {"output_stride": 16},
        "timm's resnet50 with output_stride=16 has dilated convolutions. No",
    ),
    (
        "resnet50",
        {"act_layer": "silu"},
        "act_layer='silu' has another activation.* act_layer='relu' or 'gelu'",
    ),
    ("resnet50", {"block_args": {"attn_layer": "se"}}, "block_args=.* has other blocks"),
    (
        "resnet50",
        {"aa_layer": "blur"},
        "aa_layer='blur' has another sampling.* aa_layer=None can be converted",
    ),
    ("resnetblur50", {"aa_layer": None}, "aa_layer=None has another sampling.* aa_layer='blurpool'"),
    ("resnet50", {"norm_layer": "groupnorm"}, "norm_layer='groupnorm' has another norm"),
    ("resnet50", {"replace_stem_pool": True}, "a convolution in place of its stem's pool"),
    ("resnet50", {"down_kernel_size": 3}, "larger convolutions in its shortcuts"),
    ("resnet50", {"block_reduce_first": 2}, "narrower convolutions in its blocks"),
    ("resnet50", {"stem_type": "deeper"}, "stem_type='deeper' has another stem"),
    ("resnet50", {"global_pool": "avgmax"}, "global_pool='avgmax' has another pooling"),
    (
        "resnet50",
        {"stem_widht": 32},
        "unknown option of timm's resnet50 'stem_widht'. Did you mean 'stem_width'",
    ),
    ("resnet50", {"layers": [3, 4, 6]}, r"has layers \[3, 4, 6\] and channels .*: expected 4 stages"),
    ("resnet50", {"layers": "3463"}, "has layers='3463': expected a value such as"),
    ("resnet18", {"cardinality": 32}, "cardinality=32 and base_width=64: basic blocks support neither"),
    ("resnet51", {}, "unknown ResNet of timm 'resnet51'. Did you mean 'resnet50"),
    ("seresnet50", {}, "timm's seresnet50 has channel attention. No network of this package has that"),
    ("resnetv2_50", {}, "timm's resnetv2_50 has norms before its convolutions"),
    ("resnet50_gn", {}, "timm's resnet50_gn has group norms"),
    ("resnetrs50", {}, "timm's resnetrs50 has channel attention"),
]


@pytest.mark.parametrize(("model", "options", "message"), REFUSED)
def test_what_has_no_counterpart_is_refused_by_name(model, options, message):
    with pytest.raises(ConversionError, match=message):
        TIMM_RESNET.translate(model, options)


def test_averages_of_whole_windows_and_odd_maps():
    """timm fails too: the branch has one row less than the shortcut."""
    name, options = TIMM_RESNET.translate("resnetaa34d", {"layers": [1] * 4, "channels": [8] * 4})
    module = create_model(name, **options)
    with pytest.raises(ShapeError, match="to 8 x 8, the shortcut to 9 x 9: a pool of full windows drops"):
        jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, 67, 67, 3), np.float32))


def shapes_of(model, options):
    """A state dict of a network of timm, with zeros without memory."""
    name, ours = TIMM_RESNET.translate(model, options)
    leaves = named_leaves(abstract_variables(create_model(name, **ours), 64, 3))
    state = {}
    for entry in TIMM_RESNET.table(model, options):
        if entry.constant is None:
            state[entry.key] = entry.layout.there(np.broadcast_to(np.float32(0), leaves[entry.path].shape))
    return state


SMALL = {"layers": (1, 2, 1, 1), "channels": (8, 16, 16, 24), "num_classes": 7}


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("resnet18", {}),
        ("resnet26t", {}),
        ("resnext101_64x4d", {"num_classes": 5}),
        ("resnet10t", {**SMALL, "stem_width": 8}),
        ("resnet18d", SMALL),
        ("resnet50c", {**SMALL, "cardinality": 2, "base_width": 32, "stem_width": 12}),
    ],
)
def test_architectures_are_recognised_but_for_what_leaves_no_trace(model, options):
    found = recognise_timm_resnet(shapes_of(model, options))
    assert found is not None
    first, second = (
        described(create_model(name, **ours))
        for name, ours in (TIMM_RESNET.translate(model, options), TIMM_RESNET.translate(*found))
    )
    assert differences(first, second) == []
    if not options:
        assert found == (model, {})


def test_blurred_networks_look_as_plain_ones():
    assert recognise_timm_resnet(shapes_of("resnetblur50d", {})) == ("resnet50d", {})
    assert recognise_timm_resnet(shapes_of("resnetaa50", {})) == ("resnet50", {})


def test_other_weights_are_not_recognised_and_damage_is_left_to_the_conversion():
    for name in described_cases.originals():
        found = recognise_timm_resnet(described_cases.shapes(name))
        assert found is None, name
    state = shapes_of("resnet50d", SMALL)
    for key in state:
        others = {k: v for k, v in state.items() if k != key}
        found = recognise_timm_resnet(others)
        assert found is None or TIMM_RESNET.table(*found), key
        for shape in ((), (0,), (1, 1, 1, 1, 1)):
            recognise_timm_resnet({**others, key: np.zeros(shape)})  # no error
    grey = recognise_timm_resnet({**state, "conv1.0.weight": np.zeros((32, 1, 3, 3))})
    assert grey[1] == {**recognise_timm_resnet(state)[1], "in_chans": 1}
    more = recognise_timm_resnet({**state, "layer1.0.se.conv.weight": np.zeros((1, 1, 1))})
    assert more == recognise_timm_resnet(state)

"""Weights of XCiTs: timm, facebookresearch and the Alias-Free ViT, in both directions."""

import described
import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_to_files import card_of
from way_back import check_way_back

from aliasfree_jax.checkpoint import named_leaves
from aliasfree_jax.conversion import from_original
from aliasfree_jax.conversion.code_bases import code_base, original_of
from aliasfree_jax.conversion.recognition import recognise
from aliasfree_jax.conversion.undecided import UndecidedError
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.models import create_model

POLYNOMIAL = {"name": "up_polynomial", "train_scale": True}  # as the original has it
TIMM = [name for name in golden.cases() if name.startswith("timm_xcit")]


@pytest.mark.parametrize("name", TIMM)
def test_weights_of_timm(name):
    case = golden.load(name)
    module, variables = from_original("timm", case.meta["model"], case.meta["options"], case.state_dict)
    logits = jax.jit(module.apply)(variables, jnp.asarray(case.inputs.transpose(0, 2, 3, 1), "float32"))
    # float32 rounding in five blocks; timm computes the positions in float32, too
    np.testing.assert_allclose(logits, case.output, atol=1e-5 * np.abs(case.output).max())
    check_way_back(case, module, variables)
    assert recognise(described.shapes(name))[0] == "timm"


@pytest.mark.parametrize(
    ("name", "options", "source", "model"),
    [
        ("xcit_nano_12_p16", {}, "timm", "xcit_nano_12_p16_224"),
        ("xcit_small_24_p8", {"num_classes": 7}, "timm", "xcit_small_24_p8_224"),
        ("xcit_tiny_12_p16", {}, "alias_free_vit", "xcit_tiny_12_p16"),
        ("xcit_aps_nano_12_p16", {}, "alias_free_vit", "xcit_aps_nano_12_p16"),
        ("xcit_aft_nano_12_p8", {}, "alias_free_vit", "xcit_af_nano_12_p8"),
        ("xcit_aft_micro", {"patch_size": 8, "width": 32}, "alias_free_vit", "xcit_af"),
        ("xcit_aft_tiny_12_p16", {"activation": POLYNOMIAL}, "alias_free_vit", "xcit_af_tiny_12_p16"),
        ("xcit_aft_tiny_12_p16", {"class_attention": None}, "alias_free_vit", "xcit_af_tiny_12_p16"),
        (
            "xcit_circular_tiny_12_p16",
            {"stem_last_activation": None},
            "alias_free_vit",
            "xcit_af_tiny_12_p16",
        ),
    ],
)
def test_the_original_of_our_networks(name, options, source, model):
    found, arguments = original_of(source, card_of(name, **options))
    assert found == model
    table = code_base(source).table(found, arguments)
    network = create_model(name, **options)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    paths = {
        "/".join(str(key.key) for key in path) for path, _ in jax.tree_util.tree_leaves_with_path(shapes)
    }
    assert {entry.path for entry in table if entry.path} == paths


def test_the_gated_network_has_no_original():
    with pytest.raises(ConversionError, match=r"activation: ours UpGate\(.*, theirs UpGelu"):
        original_of("alias_free_vit", card_of("xcit_afg_nano_12_p16"))


def test_published_names_and_their_sizes():
    for model, ours in [
        ("xcit_af_small_12_p16", "xcit_aft_small_12_p16"),
        ("xcit_aps_nano_12_p16_avgpool", "xcit_aps_nano_12_p16"),
        ("xcit_nano_12_p8", "xcit_nano_12_p8"),
    ]:
        name, options = code_base("alias_free_vit").translate(model, {})
        assert name == ours
        assert (options["class_attention"] is None) == model.endswith("avgpool")


def test_a_plain_nano_network_may_norm_one_or_all_tokens():
    base = code_base("alias_free_vit")
    shapes = {}
    network = create_model("xcit_nano_12_p16")
    variables = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    flat = named_leaves(variables)
    for entry in base.table("xcit_nano_12_p16", {}):
        if entry.path:
            value = entry.layout.there(np.broadcast_to(np.float32(0), flat[entry.path].shape))
            shapes[entry.key] = value
    with pytest.raises(UndecidedError, match="norms only the class token, or that of") as error:
        recognise(shapes)
    assert error.value.arguments["options"]["tokens_norm"] is False


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"pe_act": "gelu"}, "a fused stem needs pe_down_af and an activation up_"),
        ({"pe_first_act": "up_gelu"}, "samples twice"),
        ({"mlp_act": "up_c_gelu"}, "unknown activation of alias_free_vit 'up_c_gelu'"),
        ({"mlp_act_kwargs": {"up": 4}}, "only up=2 and down=2"),
        ({"lpi_act": "up_poly", "lpi_act_kwargs": {"per_channel": False}}, "per_channel=False has no"),
        ({"features_type": "cls_token"}, "unknown features_type of alias_free_vit 'cls_token'"),
        ({"padding": "zeros"}, "unknown option of alias_free_vit cfg 'padding'"),
    ],
)
def test_options_that_are_refused(cfg, message):
    with pytest.raises(ConversionError, match=message):
        code_base("alias_free_vit").translate("xcit_af_nano_12_p16", {"cfg": cfg})


def test_networks_and_sizes_that_are_refused():
    base = code_base("alias_free_vit")
    with pytest.raises(ConversionError, match="the logits do not depend on the image"):
        base.translate("xcit_af_nano_12_p16", {"tokens_norm": False})
    with pytest.raises(ConversionError, match="unknown network of alias_free_vit 'xcit_af_nano'"):
        base.translate("xcit_af_nano", {})
    with pytest.raises(ConversionError, match="has no option cfg: use xcit_af"):
        base.translate("xcit_aps_nano_12_p16", {"cfg": {}})
    with pytest.raises(ConversionError, match="unknown XCiT of timm 'xcit_nano_12_p32'"):
        code_base("timm").translate("xcit_nano_12_p32", {})
    with pytest.raises(ConversionError, match="global_pool='avg' has another pooling"):
        code_base("timm").translate("xcit_nano_12_p16_224", {"global_pool": "avg"})


def test_the_comparison_of_weights_can_fail():
    case = golden.load(TIMM[0])
    state = dict(case.state_dict)
    state["cls_attn_blocks.0.attn.q.weight"] = state["cls_attn_blocks.0.attn.k.weight"]
    module, variables = from_original("timm", case.meta["model"], case.meta["options"], state)
    logits = jax.jit(module.apply)(variables, jnp.asarray(case.inputs.transpose(0, 2, 3, 1), "float32"))
    assert np.abs(logits - case.output).max() > 1e-4 * np.abs(case.output).max()


@pytest.mark.parametrize("key", ["cls_attn_blocks.0.attn.qkv.weight", "blocks.0.attn.temperature"])
def test_a_scalar_in_place_of_a_matrix_is_an_error_of_conversion(key):
    case = golden.load("aft_xcit_aps_mini_64")
    state = {**case.state_dict, key: np.float32(0)}
    with pytest.raises(ConversionError):
        _, model, options = recognise(state)
        from_original("alias_free_vit", model, options, state)


def test_queries_keys_and_values_of_unequal_sizes_are_refused():
    """The first rows of each third would fit the network."""
    case = golden.load(TIMM[0])
    key = next(key for key in case.state_dict if key.endswith("attn.qkv.bias"))
    state = case.state_dict | {key: np.append(case.state_dict[key], [0.0, 0.0])}
    with pytest.raises(ConversionError, match=rf"{key} has the converted shape \[{len(state[key])}\]"):
        from_original("timm", case.meta["model"], case.meta["options"], state)

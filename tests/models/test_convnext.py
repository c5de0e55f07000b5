"""ConvNeXts: sizes, parameters, initial values, number formats, small images and training mode."""

import functools
import math
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import InvalidRngError

from aliasfree_jax.config import PRECISIONS
from aliasfree_jax.errors import ShapeError
from aliasfree_jax.layers.activation import LowpassPolynomial
from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.sampling import IdealDownsample
from aliasfree_jax.layers.stems import ActivatedStem
from aliasfree_jax.models import create_model
from aliasfree_jax.ops.activation import lowpass_polynomial
from aliasfree_jax.ops.resample import ideal_downsample, ideal_lowpass

MICRO = {"depths": (1, 1), "widths": (8, 16), "num_classes": 5}

# Published numbers of parameters: plain (also circular and adaptive polyphase), polynomial, alias-free.
PARAMETERS = {
    "tiny": (28_589_128, 28_668_616, 28_668_943),
    "small": (50_223_688, 50_386_120, 50_386_483),
    "base": (88_591_464, 88_808_040, 88_808_499),
    "large": (197_767_336, 198_092_200, 198_092_851),
    "xlarge": (350_196_968, 350_630_120, 350_630_963),
}
SLOW = [pytest.param(size, marks=pytest.mark.slow) for size in PARAMETERS if size != "tiny"]


def shapes_of(network, *image_shape: int):
    """Returns shapes and dtypes of the variables, without computing them."""
    return jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros(image_shape)))


def count(name: str, side: int = 96, **options) -> int:
    shapes = shapes_of(create_model(name, **options), 1, side, side, 3)
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"]))


@pytest.mark.parametrize("size", ["tiny", *SLOW])
def test_parameters_of_the_published_networks(size):
    plain, polynomial, alias_free = PARAMETERS[size]
    assert count(f"convnext_{size}") == plain
    assert count(f"convnext_{size}", activation="polynomial") == polynomial
    assert count(f"convnext_afc_{size}") == alias_free


def test_the_gated_network_has_the_polynomial_ones_size():
    """A gate has 8/3 C pairs of hidden maps instead of 4 C, and no coefficients.

    The stem has a second convolution.
    """
    gated, polynomial = count("convnext_afg_tiny"), count("convnext_afc_tiny")
    assert abs(gated / polynomial - 1) < 0.01
    half = count("convnext_afg_tiny", mlp_ratio=2.0)
    blocks = 8 * sum(depth * width**2 for depth, width in zip((3, 3, 9, 3), (96, 192, 384, 768), strict=True))
    assert abs((gated - half) / (blocks / 2) - 1) < 0.01  # half of the weights of all MLPs


@pytest.mark.parametrize("family", ["convnext_circular", "convnext_aps"])
def test_sampling_and_padding_have_no_parameters(family):
    assert count(f"{family}_tiny") == PARAMETERS["tiny"][0]


def test_depths_and_widths():
    network = create_model("convnext_micro", depths=(1, 2), widths=(8, 12), num_classes=7)
    variables, images = shapes_of(network, 2, 32, 32, 3), jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    logits, state = jax.eval_shape(
        lambda v, x: network.apply(v, x, mutable=["intermediates"]), variables, images
    )
    assert logits.shape == (2, 7) and logits.dtype == jnp.float32
    (features,) = state["intermediates"]["features"]
    assert features.shape == (2, 4, 4, 12)
    blocks = {name for name in variables["params"] if name.startswith("stage")}
    assert blocks == {"stage0_block0", "stage1_block0", "stage1_block1"}


def test_other_numbers_of_channels():
    variables = shapes_of(create_model("convnext_afc_micro", **MICRO), 2, 32, 48, 5)
    assert variables["params"]["stem"]["conv"]["kernel"].shape == (4, 4, 5, 8)


def test_initial_values(draw):
    network = create_model("convnext_afc_micro", init_std=0.05, head_init_scale=0.1, layer_scale_init=0.25)
    params = jax.jit(network.init)(jax.random.key(0), draw(1, 32, 32, 3))["params"]
    kernels = {"block": params["stage1_block0"]["mlp"]["expand"]["kernel"], "head": params["head"]["kernel"]}
    # 16 384 and 64 000 draws: one standard deviation is 0.6 % and 0.3 %. Not truncated, as in the original.
    assert float(kernels["block"].std()) == pytest.approx(0.05, rel=0.03)
    assert float(kernels["head"].std()) == pytest.approx(0.005, rel=0.03)
    assert float(jnp.abs(kernels["block"]).max()) > 2.5 * 0.05
    np.testing.assert_allclose(params["stage0_block1"]["layer_scale"], 0.25)
    np.testing.assert_array_equal(params["stem"]["gain"], [0.0])
    np.testing.assert_array_equal(params["stem"]["activation"]["in_scale"], [7.0])
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if path[-1].key in ("bias", "scale"):
            np.testing.assert_array_equal(leaf, float(path[-1].key == "scale"))


def test_no_layer_scale():
    network = create_model("convnext_micro", **MICRO, layer_scale_init=0.0)
    assert "layer_scale" not in shapes_of(network, 1, 32, 32, 3)["params"]["stage0_block0"]


@pytest.mark.parametrize("family", ["convnext_aps", "convnext_afc"])
def test_bfloat16_maps_and_float32_logits(family, draw, randomised):
    images = draw(2, 32, 32, 3)
    exact, rough = (
        create_model(f"{family}_micro", **MICRO, **PRECISIONS[p]) for p in ("float32", "bfloat16")
    )
    variables = randomised(exact, *images.shape)
    chooses = family == "convnext_aps"  # rounding may change the phase: only formats are compared
    run = jax.eval_shape if chooses else lambda function, *arguments: jax.jit(function)(*arguments)
    logits, state = run(lambda v, x: rough.apply(v, x, mutable=["intermediates"]), variables, images)
    assert logits.dtype == jnp.float32
    assert state["intermediates"]["features"][0].dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes_of(rough, *images.shape))} == {jnp.dtype("float32")}
    if not chooses:
        expected = jax.jit(exact.apply)(variables, images)
        # 8 bits of mantissa in a dozen layers.
        assert float(jnp.abs(logits - expected).max()) < 0.05 * float(jnp.abs(expected).max())


def test_orders_of_the_mlp_are_one_network(draw, randomised, x64):
    images = draw(1, 32, 40, 3)
    networks = [
        create_model("convnext_afc_micro", **MICRO, mlp_grid=grid) for grid in ("auto", "fine", "coarse")
    ]
    variables = randomised(networks[0], *images.shape)
    auto, fine, coarse = (jax.jit(network.apply)(variables, images) for network in networks)
    assert auto.dtype == jnp.float64
    # float64 rounding in a dozen layers.
    np.testing.assert_allclose(fine, coarse, rtol=1e-12)
    np.testing.assert_allclose(auto, coarse, rtol=1e-12)


def test_the_stems_shortcut_is_the_plain_order(draw, randomised, x64):
    """Filtering the images instead of the stem's maps does not change the result."""
    images = draw(1, 32, 32, 3)
    network = create_model("convnext_afc_micro", **MICRO)
    stem = randomised(network, *images.shape)["params"]["stem"]
    y = Conv(8, 4, 1, "CIRCULAR").apply({"params": stem["conv"]}, images)
    activated = lowpass_polynomial(y, ideal_lowpass(y, 0.75), **stem["activation"])
    expected = ideal_downsample(y + stem["gain"] * activated, 4)
    lowpass = functools.partial(LowpassPolynomial, train_scale=True)
    layer = ActivatedStem(8, 4, 4, IdealDownsample, lowpass, "CIRCULAR", True, nn.initializers.zeros)
    # float64 rounding of sums of at most 48 products.
    np.testing.assert_allclose(jax.jit(layer.apply)({"params": stem}, images), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "options", "needed"),
    [
        ("convnext_afc_tiny", {}, 65),
        ("convnext_aps_tiny", {}, 65),
        ("convnext_circular_tiny", {"sampled_padding": "VALID"}, 96),
        ("convnext_tiny", {}, 32),
        ("convnext_tiny", {"padding": "REFLECT"}, 128),
        ("convnext_afc_micro", {}, 17),
        ("convnext_afc_cifar", {}, 17),
        ("convnext_micro", {}, 8),
    ],
)
def test_too_small_images_name_the_needed_size(name, options, needed):
    small = {"widths": (4, 4, 4, 4), "depths": (1, 1, 1, 1)} if "tiny" in name else {}
    network = create_model(name, **options, **small, **({"any_size": True} if "afc" in name else {}))

    with pytest.raises(
        ShapeError, match=f"images of {needed - 1} x 200 are too small: .* at least {needed} pixels"
    ):
        shapes_of(network, 1, needed - 1, 200, 3)
    with pytest.raises(ShapeError, match=f"at least {needed} pixels, or a network with fewer stages"):
        shapes_of(network, 1, 200, 1, 3)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "a map of .* is sampled by")
        shapes_of(network, 1, needed, needed, 3)


def test_the_final_norm_acts_on_the_pooled_vector_or_on_the_map(draw, randomised, x64):
    network, images = create_model("convnext_micro", **MICRO), draw(2, 32, 32, 3)
    variables = randomised(network, *images.shape)
    _, sown = jax.jit(lambda v: network.apply(v, images, mutable=["intermediates"]))(variables)
    (features,), norm = sown["intermediates"]["features"], variables["params"]["norm"]

    def normed(x, epsilon):
        centred = x - x.mean(-1, keepdims=True)
        return (
            centred / jnp.sqrt((centred**2).mean(-1, keepdims=True) + epsilon) * norm["scale"] + norm["bias"]
        )

    cases = [
        ({"final_norm_position": "pooled"}, normed(features.mean((1, 2)), 1e-6)),
        ({"final_norm_position": "map"}, normed(features, 1e-6).mean((1, 2))),
        ({"final_norm": {"name": "channel", "epsilon": 0.01}}, normed(features.mean((1, 2)), 0.01)),
    ]
    results = [create_model("convnext_micro", **MICRO | options | {"num_classes": 0}) for options, _ in cases]
    results = [jax.jit(vector.apply)(variables, images) for vector in results]
    for result, (_, expected) in zip(results, cases, strict=True):
        np.testing.assert_allclose(result, expected, atol=1e-12)  # float64 rounding
    for other in results[1:]:
        assert float(jnp.abs(other - results[0]).max()) > 1e-3


def test_the_first_stage_too_can_be_downsampled():
    options = MICRO | {"stem_kernel": 2, "stem_stride": 2, "downsampled_stages": "all"}
    network, images = (
        create_model("convnext_micro", **options),
        jax.ShapeDtypeStruct((1, 32, 40, 3), "float32"),
    )
    variables = shapes_of(network, *images.shape)
    assert variables["params"]["downsample0"]["conv"]["kernel"].shape == (2, 2, 8, 8)
    stages = jax.eval_shape(network.stages, variables, images)
    assert [(stage.map.shape[1:3], stage.stride) for stage in stages] == [((8, 10), 4), ((4, 5), 8)]
    assert network.map_sides(32) == [8, 4]


def test_map_sides():
    assert create_model("convnext_tiny").map_sides(224) == [56, 28, 14, 7]
    assert create_model("convnext_tiny").map_sides(230) == [57, 28, 14, 7]
    assert create_model("convnext_afc_tiny").map_sides(230) == [58, 29, 15, 8]
    assert create_model("convnext_afc_cifar").map_sides(32) == [16, 8, 4]


@pytest.mark.parametrize("images", [np.zeros((1, 32, 32, 3), np.uint8), np.zeros((32, 32, 3), np.float32)])
def test_other_arrays_than_float_images_are_named(images):
    with pytest.raises(
        ShapeError, match=rf"expected floating-point images \[N, H, W, C\], got {images.dtype}"
    ):
        create_model("convnext_micro").init(jax.random.key(0), images)


def test_drop_path_in_training_only(draw, randomised):
    network, images = create_model("convnext_micro", **MICRO, drop_path_rate=0.5), draw(16, 32, 32, 3)
    variables = randomised(network, *images.shape)
    still = jax.jit(network.apply)(variables, images)
    without = jax.jit(create_model("convnext_micro", **MICRO).apply)(variables, images)
    np.testing.assert_array_equal(still, without)
    train = jax.jit(lambda key: network.apply(variables, images, train=True, rngs={"drop_path": key}))
    first, second = train(jax.random.key(0)), train(jax.random.key(1))
    assert float(jnp.abs(first - still).max()) > 1e-3
    assert float(jnp.abs(first - second).max()) > 1e-3
    with pytest.raises(InvalidRngError, match="drop_path"):
        jax.eval_shape(lambda: network.apply(variables, images, train=True))


def test_drop_path_rates_grow_linearly():
    network = create_model("convnext_micro", depths=(2, 3), widths=(4, 4), drop_path_rate=0.4)
    rates = []

    def note(next_call, args, kwargs, context):
        if type(context.module).__name__ == "DropPath":
            rates.append(context.module.rate)
        return next_call(*args, **kwargs)

    with nn.intercept_methods(note):
        shapes_of(network, 1, 32, 32, 3)
    assert rates == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])


def test_batch_norm_keeps_running_statistics(draw, randomised):
    network, images = create_model("convnext_micro", **MICRO, norm="batch"), draw(4, 32, 32, 3)
    variables = randomised(network, *images.shape)
    assert set(variables) == {"params", "batch_stats"}
    train = jax.jit(lambda v, x: network.apply(v, x, train=True, mutable=["batch_stats"]))
    _, state = train(variables, images)
    before, after = (jax.tree.leaves(v["batch_stats"]) for v in (variables, state))
    assert all(float(jnp.abs(a - b).max()) > 0 for a, b in zip(before, after, strict=True))

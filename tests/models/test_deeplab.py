"""DeepLabV3+: equivariance of the variants at several sizes, and training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import aliasfree_jax
from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.layers import BatchNorm
from aliasfree_jax.layers.activation import Relu
from aliasfree_jax.layers.aspp import ASPP
from aliasfree_jax.models import create_model, list_models
from aliasfree_jax.models.resnet import SIZES
from aliasfree_jax.ops.shift import fractional_shift

# float64 rounding in up to 25 layers, relative to the largest value; 1e-14 was measured.
EXACT = 1e-11
# Lower bound for networks that alias or pad with zeros; they differ by half of the largest value.
BROKEN = 1e-2
WHOLE = [(1, 0), (3, -6), (17, 8)]
FRACTIONS = [(0.5, 0.5), (1 / 3, 0), (0.137, -4.2)]
TINY = {"depths": (1, 1, 1, 1), "widths": (8, 8, 12, 16)}
HEAD = {"num_classes": 5, "width": 8, "low_level_width": 4}


def network(variant, backbone=(), **options):
    name = f"resnet18_{variant}".rstrip("_")
    more = {"any_size": True} if variant == "afc" else {}
    backbone = {"name": name, "output_stride": 16, **more, **TINY, **dict(backbone)}
    return create_model(f"deeplabv3plus_{name}", backbone=backbone, **{**HEAD, **options})


def changes(module, shape, shifts, draw, randomised):
    """Returns the largest change after each shift, shifted back, relative to the largest value."""
    variables, x = randomised(module, 1, *shape, 3), draw(1, *shape, 3, seed=5)
    moved = [x] + [
        jnp.roll(x, shift, (1, 2)) if all(isinstance(n, int) for n in shift) else fractional_shift(x, shift)
        for shift in shifts
    ]
    y = jax.jit(module.apply)(variables, jnp.concatenate(moved))
    assert y.shape == (len(moved), *shape, 5) and y.dtype == jnp.float64
    expected = [
        jnp.roll(y[:1], shift, (1, 2))
        if all(isinstance(n, int) for n in shift)
        else fractional_shift(y[:1], shift)
        for shift in shifts
    ]
    return np.abs(y[1:] - jnp.concatenate(expected)).max(axis=(1, 2, 3)) / np.abs(y[0]).max()


def chosen_by(kind, **fields):
    """Options of LPS with this logits network."""
    return {"sampler": {"name": "learned_polyphase", "logits": kind, **fields}}


SLOW = [
    ("aps", {"output_stride": 8}, {"rates": (12, 24, 36)}, (96, 96)),
    ("lps", chosen_by("graph"), {}, (64, 96)),
    ("lps", chosen_by("attention"), {}, (64, 64)),
    ("lps", chosen_by("linear", inner="blur", select_on="raw"), {}, (32, 32)),
]
CASES = [
    # Rates of 12, 24 and 36 on a 2 x 3 map. The original raises an error or pads with zeros.
    ("lps", {"output_stride": 32}, {"rates": (12, 24, 36)}, (64, 96)),
    ("aps", {"stem": "small", "output_stride": None}, {}, (32, 32)),
    *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW),
]


@pytest.mark.parametrize(("variant", "backbone", "options", "shape"), CASES)
def test_a_chosen_phase_is_exact_for_whole_pixels(variant, backbone, options, shape, draw, randomised, x64):
    module = network(variant, backbone, **options)
    assert changes(module, shape, WHOLE, draw, randomised).max() < EXACT


@pytest.mark.parametrize("shape", [(50, 37), pytest.param((64, 96), marks=pytest.mark.slow)], ids=str)
def test_alias_free_is_exact_for_every_shift_at_every_size(shape, draw, randomised, x64):
    assert changes(network("afc"), shape, WHOLE[:2] + FRACTIONS, draw, randomised).max() < EXACT


BROKEN_BY = {
    "no choice": ("", {}, WHOLE),
    "a fraction": ("aps", {}, FRACTIONS),
    "a linear filter": ("blur", {}, WHOLE),
    # The original pads the last rate with zeros.
    "zeros": ("lps", {"rates": (1, 2, 1), "last_rate_padding": "ZERO"}, [(16, 0), (0, 16)]),
}


@pytest.mark.parametrize(
    "case", [pytest.param(c, marks=[pytest.mark.slow] * (n > 1)) for n, c in enumerate(BROKEN_BY)]
)
def test_what_breaks_it(case, draw, randomised, x64):
    variant, options, shifts = BROKEN_BY[case]
    found = changes(network(variant, **options), (64, 64), shifts, draw, randomised)
    assert found.min() > (1e-4 if case == "zeros" else BROKEN)


def test_a_mixture_is_written_back_with_its_weights(draw, randomised):
    """In training LPU receives the weights of LPD, which depend on its temperature."""
    module = network("lps", dropout_rate=0.0)
    variables, x = randomised(module, 2, 32, 32, 3), draw(2, 32, 32, 3)

    @jax.jit
    def train(temperature):
        rngs = {"gumbel": jax.random.key(1)}
        how = {"train": True, "temperature": temperature, "rngs": rngs, "mutable": ["batch_stats"]}
        y, _ = module.apply(variables, x, **how)
        return y, module.apply(variables, x)

    (soft, hard), (sharp, _) = train(1.0), train(0.01)
    assert soft.shape == (2, 32, 32, 5)
    # A mixture fills every position of the map, a single phase does not.
    assert np.abs(soft - hard).max() > 1e-3 < np.abs(soft - sharp).max()


def test_every_parameter_is_trained(draw, randomised):
    module = network("lps")
    variables, x = randomised(module, 2, 32, 32, 3), draw(2, 32, 32, 3)
    rngs = {"gumbel": jax.random.key(1), "dropout": jax.random.key(2)}

    @jax.jit
    @jax.grad
    def gradient(params):
        y, _ = module.apply(
            {**variables, "params": params}, x, train=True, rngs=rngs, mutable=["batch_stats"]
        )
        return jnp.square(y - 1).mean()

    still = {
        path
        for path, leaf in traverse_util.flatten_dict(gradient(variables["params"]), sep="/").items()
        if not np.abs(leaf).max() > 0
    }
    # The last bias of ConvLogits adds the same constant to the scores of all components.
    assert {path for path in still if not path.endswith("logits0/conv2/bias")} == set()


def test_dropout_is_that_of_training(draw, randomised):
    layer = ASPP(8, (1, 2), ("CIRCULAR",) * 2, Relu, BatchNorm, 0.5)
    x = draw(1, 4, 4, 3)
    variables = layer.init(jax.random.key(0), x, train=False)

    def zeros(**how):
        y = layer.apply(variables, x, mutable=["batch_stats"], **how)[0]
        return float((y == 0).mean())

    # ReLU leaves about half of the 128 values, and dropout half of these.
    assert zeros(train=True, rngs={"dropout": jax.random.key(1)}) > zeros(train=False) + 0.1


@pytest.mark.filterwarnings("ignore:a map of .* is sampled by")
@pytest.mark.parametrize(
    ("variant", "shape"), [(v, (65, 47)) for v in ("", "blur", "aps", "lps", "afc")] + [("blur", (64, 33))]
)
def test_the_map_has_the_size_of_the_image(variant, shape):
    module, x = network(variant), jax.ShapeDtypeStruct((2, *shape, 3), "float32")
    y, _ = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x), x)
    assert y.shape == (2, *shape, 5) and y.dtype == jnp.float32


def test_small_images_are_refused():
    with pytest.raises(ShapeError, match="Use images of at least 16 pixels"):
        jax.eval_shape(network("").init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


def test_half_precision_gives_values_in_float32():
    module, x = network("lps", dtype="bfloat16"), jnp.zeros((1, 32, 32, 3))
    y, variables = jax.eval_shape(lambda x: module.init_with_output(jax.random.key(0), x), x)
    assert y.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert module.stage_strides == (4, 8, 16, 16)


def test_options_that_break_what_the_sampler_promises_are_told():
    options = {"backbone": {"name": "resnet20_cifar_aps", "depths": (1,), "widths": (4,)}, "padding": "ZERO"}
    with pytest.warns(UserWarning, match="aspp/rate1_conv, .*: pads by constants"):
        aliasfree_jax.create_model("deeplabv3plus_resnet20_cifar_aps", **options)


def test_every_resnet_in_every_variant():
    names = {f"deeplabv3plus_{size}" for size in (*SIZES, "resnet20_cifar")}
    known = names | {f"{name}_{variant}" for name in names for variant in ("blur", "aps", "lps", "afc")}
    assert set(list_models("deeplab*")) == known


def test_options_of_the_backbone_can_stand_beside_it():
    module = create_model("deeplabv3plus_resnet18_lps", output_stride=8, filter_size=5)
    backbone = {"name": "resnet18_lps", "output_stride": 8, "filter_size": 5}
    blur = {"name": "blur", "kernel_size": 5}
    upsampler = {"name": "polyphase", "inner": blur}
    assert module == create_model("deeplabv3plus_resnet18_lps", backbone=backbone, upsampler=upsampler)
    assert module != create_model("deeplabv3plus_resnet18_lps")
    strides = [create_model(f"deeplabv3plus_resnet18{v}").total_stride for v in ("", "_afc", "_aps", "_lps")]
    assert strides == [16, 16, 32, 32]
    named = create_model("deeplabv3plus_resnet18", backbone="resnet50_blur")
    assert named.backbone(parent=None).block == "bottleneck"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet19"}, "unknown backbone 'resnet19'. Did you mean 'resnet1"),
        ({"backbone": {"depths": (1, 1)}}, "unknown backbone None"),
        ({"backbone": {"name": "resnet18", "dtype": "bfloat16"}}, "dtype is an option of the whole network"),
        (
            {"backbone": {"name": "resnet18", "num_classes": 3}},
            "num_classes is an option of the whole network",
        ),
        ({"output_stride": 5}, "output_stride must be one of the strides .* got 5"),
        ({"any_size": True}, "any_size=True needs the ideal sampler"),
        ({"upsampler": "bilinera"}, "unknown upsampler 'bilinera'. Did you mean 'bilinear'"),
        ({"rate": (1, 2)}, "unknown option of deeplabv3plus_resnet18 'rate'. Did you mean 'rates'"),
        ({"global_pool": "max"}, "a DeepLab returns a map"),
        ({"filter_size": 3}, "filter_size needs a sampler that blurs"),
    ],
)
def test_other_options_are_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        create_model("deeplabv3plus_resnet18", **options)

"""U-Nets: equivariance at every size, training, and options."""

import contextlib
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.models import create_model, list_models
from aliasfree_jax.ops.shift import fractional_shift

# float64 rounding in up to 20 layers, relative to the norm of the map. 1e-15 was measured, and 3e-13 with
# gates, whose products of products grow.
EXACT = 1e-11
# A tenth of the change of BlurPool, the best network that is not exact, after shifts by one pixel.
BROKEN = 1e-4
SMALL = {"widths": (2, 4, 6), "num_classes": 2}
INTEGER = ((1, 0), (3, -5), (2, 7))
FRACTIONAL = ((0.5, 0.5), (1 / 3, 0.0), (0.137, -5.3))
VARIANTS = ("", "_afc", "_afg", "_aps", "_blur", "_circular", "_instance", "_lps", "_sinc")


def errors(network, size, shifts, draw, randomised) -> np.ndarray:
    """Returns |f(shift x) - shift f(x)| / |f(x)| for each shift, with norms over the whole map."""
    x = draw(1, *size, 3)
    variables = randomised(network, *x.shape)
    moved = [fractional_shift(x, shift) for shift in shifts]
    maps = jax.jit(network.apply)(variables, jnp.concatenate([x, *moved]))
    assert maps.shape == (1 + len(shifts), *size, network.num_classes) and maps.dtype == jnp.float64
    expected = [fractional_shift(maps[:1], shift)[0] for shift in shifts]
    changes = [np.linalg.norm(a - b) for a, b in zip(maps[1:], expected, strict=True)]
    return np.array(changes) / np.linalg.norm(maps[0])


@pytest.mark.parametrize(("variant", "size"), [("aps", (12, 8)), ("lps", (16, 24))])
def test_adaptive_ones_move_their_map_by_whole_pixels(variant, size, draw, randomised, x64):
    network = create_model(f"unet_micro_{variant}", **SMALL)
    found = errors(network, size, INTEGER + FRACTIONAL[:1], draw, randomised)
    # Not exact for the last shift, which is fractional.
    assert found[:-1].max() < EXACT and found[-1] > BROKEN


@pytest.mark.parametrize(
    ("variant", "size"),
    [
        ("afc", (16, 24)),
        ("afc", (17, 22)),
        ("afg", (13, 10)),
        pytest.param("afc", (13, 18), marks=pytest.mark.slow),
        pytest.param("afg", (16, 24), marks=pytest.mark.slow),
    ],
)
def test_alias_free_ones_move_their_map_by_every_shift_at_every_size(variant, size, draw, randomised, x64):
    network = create_model(f"unet_micro_{variant}", **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert errors(network, size, INTEGER[:2] + FRACTIONAL, draw, randomised).max() < EXACT


@pytest.mark.parametrize(
    "name", ["unet_micro", "unet_micro_circular", "unet_micro_blur", "unet_micro_sinc", "unet_micro_instance"]
)
def test_the_others_do_not(name, draw, randomised, x64):
    network = create_model(name, **{**SMALL, "widths": (2, 4)})
    assert errors(network, (8, 8), INTEGER[:1], draw, randomised).min() > BROKEN


@pytest.mark.slow
def test_what_breaks_an_alias_free_one(draw, randomised, x64):
    """Each of these breaks it alone.

    They are the Nyquist frequency of the image, a max pool, a ReLU, and zeros at the border.
    """
    for options in (
        {"without_nyquist": False},
        {"pool_size": 2},
        {"activation": "relu"},
        {"padding": "ZERO"},
    ):
        network = create_model("unet_micro_afc", **{**SMALL, "widths": (2, 4)}, **options)
        assert errors(network, (8, 8), FRACTIONAL[:1], draw, randomised).min() > BROKEN, options


@pytest.mark.parametrize(
    "size", [1, 2, 7, *(pytest.param(size, marks=pytest.mark.slow) for size in (3, 4, 5, 6))]
)
def test_every_filter_size_is_exact(size, draw, randomised, x64):
    network = create_model("unet_micro_aps", **{**SMALL, "widths": (2, 4)}, filter_size=size)
    for built in (network.sampler, network.upsampler):
        assert dict(built.fields)["inner"]().kernel_size == size
    assert errors(network, (8, 12), INTEGER, draw, randomised).max() < EXACT


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_map_has_the_size_of_the_image(variant):
    """Also for sides that the strides do not divide: 13 is rounded up twice, 18 once."""
    network = create_model(f"unet_micro{variant}", **SMALL)
    images = jax.ShapeDtypeStruct((2, 13, 18, 3), jnp.float32)
    uneven = variant in ("_aps", "_lps", "_sinc")
    with pytest.warns(UserWarning, match="is sampled by 2") if uneven else contextlib.nullcontext():
        result, _ = jax.eval_shape(network.init_with_output, jax.random.key(0), images)
    assert (result.shape, result.dtype) == ((2, 13, 18, 2), jnp.float32)


@pytest.mark.parametrize(
    "variant", ["_lps", "_afc", *(pytest.param(name, marks=pytest.mark.slow) for name in ("_aps", ""))]
)
def test_every_parameter_is_trained(variant, draw):
    network, x = create_model(f"unet_micro{variant}", widths=(2, 4)), draw(2, 8, 8, 1)
    params, rest = _initial(network, x)

    @jax.jit
    def gradients(params, temperature, seed):
        def loss(params):
            how = {"train": True, "temperature": temperature, "rngs": {"gumbel": jax.random.key(seed)}}
            out, _ = network.apply({"params": params, **rest}, x, **how, mutable=["batch_stats"])
            return jnp.mean(out**3), out

        return jax.grad(loss, has_aux=True)(params)

    found, out = gradients(params, 1.0, 0)
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        name = jax.tree_util.keystr(path)
        # Batch norm removes the bias of a convolution, and softmax a constant of all logits: no gradient.
        if not re.search(r"conv\d?'\]\['bias'\]$", name):
            assert float(jnp.abs(leaf).max()) > 1e-6, name  # ten times float32 rounding
    if variant == "_lps":
        # The weights of the mixture depend on temperature and noise, in encoder and decoder.
        for other in (gradients(params, 0.1, 0)[1], gradients(params, 1.0, 1)[1]):
            assert float(jnp.abs(out - other).max()) > 1e-4


def _initial(network, x):
    variables = jax.jit(network.init)(jax.random.key(0), x)
    return variables["params"], {kind: values for kind, values in variables.items() if kind != "params"}


def test_a_mixture_is_written_back_by_its_weights(draw):
    """In training the upsampler spreads samples over the phases by their weights."""
    network = create_model("unet_micro_lps", **SMALL)
    sampler, upsampler = network.sampler(), network.upsampler()
    x = draw(2, 8, 8, 3)
    variables = jax.jit(sampler.init)(jax.random.key(0), x)
    how = {"train": True, "rngs": {"gumbel": jax.random.key(1)}, "method": "with_phase"}
    y, (weights,) = jax.jit(lambda v: sampler.apply(v, x, **how))(variables)
    assert weights.shape == (2, 4) and jnp.issubdtype(weights.dtype, jnp.floating)
    back = upsampler.apply({}, y, (weights,))
    # Blur and gain preserve the sum of each channel up to the factor 4, because the weights sum to one.
    np.testing.assert_allclose(back.sum((1, 2)), 4 * y.sum((1, 2)), rtol=1e-4, atol=1e-3)


def test_constants_keep_their_value_on_the_way_back():
    for variant in ("aps", "lps", "afc"):
        upsampler = create_model(f"unet_micro_{variant}").upsampler()
        x = jnp.ones((1, 4, 4, 2))
        phase = None if variant == "afc" else (jnp.array([3]),)
        # Exact up to rounding of the blur.
        np.testing.assert_allclose(upsampler.apply({}, x, phase), jnp.ones((1, 8, 8, 2)), rtol=1e-6)


def test_without_convolutions_behind_the_upsampler(draw):
    """The double convolutions then make the channels of the finer level, as in bilinear U-Nets."""
    network = create_model("unet_micro", widths=(4, 8, 8), up_conv=False, upsampler="bilinear")
    x = draw(1, 8, 8, 3)
    params = jax.eval_shape(network.init, jax.random.key(0), x)["params"]
    assert not any(name.startswith("up") for name in params)
    assert params["joined1_convs"]["conv1"]["kernel"].shape == (3, 3, 16, 8)
    assert params["joined1_convs"]["conv2"]["kernel"].shape == (3, 3, 8, 4)
    assert params["joined0_convs"]["conv1"]["kernel"].shape == (3, 3, 8, 4)


@pytest.mark.parametrize("variant", ["afc", pytest.param("afg", marks=pytest.mark.slow)])
def test_an_alias_free_one_stays_bounded_on_images_unlike_those_of_training(variant, draw):
    """Values that no norm of the image bounds must not be squared repeatedly: the network would not train."""

    def largest(**options) -> float:
        network, x = create_model(f"unet_micro_{variant}", **SMALL, **options), draw(1, 8, 8, 1)
        variables = jax.jit(network.init)(jax.random.key(0), x)
        return float(jnp.abs(jax.jit(network.apply)(variables, 10 * x)).max())

    # Ten layers with values of order 1. Repeated squares of ten reach 10^(2^10), which overflows.
    assert largest() < 100 and not largest(norm="batch") < 1e4


def test_stages_and_names():
    network = create_model("unet_small_afc")
    assert (network.stage_strides, network.total_stride) == ((1, 2, 4, 8), 8)
    sizes = ("unet", "unet_3down", "unet_small", "unet_micro")
    assert list_models("unet*") == sorted(f"{size}{variant}" for size in sizes for variant in VARIANTS)


def test_evenness_at_every_size_can_be_given_up():
    for wanted in (True, False):
        assert create_model("unet_afc", any_size=wanted).sampler(strides=2).any_size == wanted
    assert create_model("unet_afc").sampler(strides=2).any_size


def test_what_is_refused():
    with pytest.raises(ConfigError, match="global_pool is for networks that classify whole images"):
        create_model("unet", global_pool="max")
    with pytest.raises(ConfigError, match="unknown upsampler 'bilinaer'. Did you mean 'bilinear'"):
        create_model("unet", upsampler="bilinaer")
    with pytest.raises(ConfigError, match="filter_size needs a sampler that blurs"):
        create_model("unet_afc", filter_size=3)
    network = create_model("unet_micro")
    with pytest.raises(ShapeError, match="images of 3 x 8 are too small: .* at least 4 pixels"):
        jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 3, 8, 1)))

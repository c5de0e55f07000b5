"""Samplers, and convolutions with samplers: values, and equality of the cheaper order."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.adaptive import AdaptivePolyphase
from aliasfree_jax.layers.sampled import SampledConv
from aliasfree_jax.layers.sampling import BlurPool, IdealDownsample, NormPreserving, Subsample, steps_of
from aliasfree_jax.ops.blurring import blur
from aliasfree_jax.ops.resample import ideal_downsample, ideal_lowpass
from aliasfree_jax.ops.shift import fractional_shift

# float64 rounding of sums of at most 100 terms of order 1.
EXACT = 1e-12

LINEAR = {
    "subsample": Subsample,
    "blur 3": functools.partial(BlurPool, kernel_size=3),
    "blur 4": functools.partial(BlurPool, kernel_size=4),
    "ideal": IdealDownsample,
    "ideal, any size": functools.partial(IdealDownsample, any_size=True),
}


@pytest.fixture(autouse=True)
def _uneven_maps_are_wanted():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "a map of .* is sampled by")
        yield


@pytest.mark.parametrize("stride", [2, 4])
def test_samplers_compute_their_op(stride, draw):
    x = draw(2, 16, 9, 3)
    expected = {
        "subsample": x[:, ::stride, ::stride],
        "blur 3": blur(x, 3, stride),
        "blur 4": blur(x, 4, stride),
        "ideal": ideal_downsample(x, stride),
        "ideal, any size": ideal_downsample(x, stride, any_size=True),
    }
    for name, factory in LINEAR.items():
        y, phase = factory(strides=stride).apply({}, x, method="with_phase")
        assert phase is None
        np.testing.assert_array_equal(factory(strides=stride).apply({}, x), y)
        np.testing.assert_array_equal(y, expected[name], err_msg=name)
    for name in ("subsample", "blur 3", "ideal"):
        filtered = LINEAR[name](strides=stride).apply({}, x, method="filter")
        # Filtering the whole map and computing single positions round differently.
        np.testing.assert_allclose(filtered[:, ::stride, ::stride], expected[name], atol=1e-5, err_msg=name)


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (4, 4), (4, 2)])
@pytest.mark.parametrize("name", LINEAR)
def test_sampling_before_the_convolution_is_the_same(name, kernel, stride, draw, x64):
    x, sampler = draw(2, 16, 9, 3), LINEAR[name]
    layer = SampledConv(4, kernel, stride, sampler)
    variables = jax.tree.map(
        lambda leaf: draw(*leaf.shape, seed=1), jax.eval_shape(layer.init, jax.random.key(0), x)
    )

    @jax.jit
    def both(x: jax.Array) -> tuple[jax.Array, jax.Array]:
        full = SampledConv(4, kernel, 1, Subsample).apply(variables, x)
        return layer.apply(variables, x), sampler(strides=stride).apply({}, full)

    cheap, expected = both(x)
    assert cheap.shape == (2, -(-16 // stride), -(-9 // stride), 4)
    np.testing.assert_allclose(cheap, expected, atol=EXACT)


@pytest.mark.parametrize("sampler", [functools.partial(BlurPool, padding="ZERO"), AdaptivePolyphase])
def test_what_does_not_commute_runs_after_the_convolution(sampler, draw, x64):
    x, layer = draw(2, 8, 8, 3), SampledConv(4, 2, 2, sampler)
    variables = jax.tree.map(
        lambda leaf: draw(*leaf.shape, seed=1), jax.eval_shape(layer.init, jax.random.key(0), x)
    )
    full = SampledConv(4, 2, 1, Subsample).apply(variables, x)
    expected = sampler(strides=2).apply({}, full)
    np.testing.assert_allclose(layer.apply(variables, x), expected, atol=EXACT)


def test_only_circular_blurs_commute_with_circular_convolutions():
    assert Subsample().circular() and IdealDownsample().circular() and BlurPool().circular()
    assert not BlurPool(padding="REFLECT").circular()


@pytest.mark.parametrize("kernel", [2, 4])
def test_without_padding_it_is_a_strided_convolution(kernel, draw, x64):
    x, layer = draw(2, 9, 12, 3), SampledConv(4, kernel, kernel, Subsample, "VALID")
    variables = jax.tree.map(
        lambda leaf: draw(*leaf.shape, seed=1), jax.eval_shape(layer.init, jax.random.key(0), x)
    )
    expected = variables["params"]["conv"]["bias"] + jax.lax.conv_general_dilated(
        x,
        variables["params"]["conv"]["kernel"],
        (kernel, kernel),
        "VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    np.testing.assert_allclose(layer.apply(variables, x), expected, atol=EXACT)


@pytest.mark.parametrize("inner", ["subsample", "blur 3", "ideal", "ideal, any size"])
def test_norms_are_preserved_channel_by_channel(inner, draw, x64):
    x = draw(2, 8, 9, 3) * jnp.array([1.0, 10.0, 0.1])
    y = NormPreserving(inner=LINEAR[inner]).apply({}, x)
    filtered = LINEAR[inner](strides=2).apply({}, x, method="filter")

    def norm(z: jax.Array) -> np.ndarray:
        return np.sqrt(np.sum(np.asarray(z) ** 2, axis=(1, 2), keepdims=True))

    expected = LINEAR[inner](strides=2).apply({}, x) * norm(x) / (norm(filtered) + 1e-6)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=EXACT)


def test_norm_preservation_has_a_gradient_at_empty_channels(draw):
    x = draw(1, 8, 8, 2).at[..., 1].set(0.0)
    layer = NormPreserving(inner=IdealDownsample)
    y, gradient = jax.value_and_grad(lambda x: jnp.sum(layer.apply({}, x) ** 2))(x)
    assert bool(jnp.isfinite(gradient).all()) and bool(jnp.isfinite(y))
    np.testing.assert_array_equal(layer.apply({}, x)[..., 1], 0.0)


def test_only_linear_samplers_preserve_norms(draw):
    with pytest.raises(
        ConfigError, match="NormPreserving needs a linear sampler, such as BlurPool, got AdaptivePolyphase"
    ):
        NormPreserving(inner=AdaptivePolyphase).apply({}, draw(1, 8, 8, 1))


@pytest.mark.parametrize("any_size", [False, True])
def test_ideal_sampling_commutes_with_shifts(any_size, draw, x64):
    side, shift = (9 if any_size else 8), (0.5, -1 / 3)
    x, sampler = draw(1, side, side, 2), IdealDownsample(any_size=any_size)
    y = sampler.apply({}, x)
    ratio = y.shape[1] / side
    moved = sampler.apply({}, fractional_shift(x, shift))
    np.testing.assert_allclose(moved, fractional_shift(y, (shift[0] * ratio, shift[1] * ratio)), atol=EXACT)


@pytest.mark.parametrize(("side", "stride"), [(20, 4), (36, 4), (8, 2), (9, 3)])
def test_the_filter_of_any_size_is_that_of_its_samples(side, stride, draw, x64):
    x, layer = draw(1, side, side, 2), IdealDownsample(stride, any_size=True)
    start = tuple(jnp.zeros(1, jnp.int32) for _ in steps_of(stride))
    np.testing.assert_allclose(
        layer.apply({}, x, start, method="with_phase")[0], layer.apply({}, x), atol=EXACT
    )
    kept = NormPreserving(stride, inner=functools.partial(IdealDownsample, any_size=True)).apply({}, x)
    # The norm of the filtered map is not divided by zero: a small number is added.
    np.testing.assert_allclose((kept**2).mean(), (x**2).mean(), rtol=1e-5)


EXACT_SAMPLERS = {
    "ideal": IdealDownsample,
    "polyphase": AdaptivePolyphase,
    "norm preserving": functools.partial(NormPreserving, inner=IdealDownsample),
}


@pytest.mark.parametrize("name", EXACT_SAMPLERS)
def test_uneven_maps_warn(name):
    def sample(stride: int, *size: int) -> None:
        sampler = EXACT_SAMPLERS[name](strides=stride)
        jax.eval_shape(lambda: sampler.apply({}, jnp.zeros((1, *size, 1))))

    with pytest.warns(UserWarning, match="a map of 9 x 8 is sampled by 2, which does not divide it"):
        sample(2, 9, 8)
    with pytest.warns(UserWarning, match="a map of 8 x 10 is sampled by 4"):
        sample(4, 8, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sample(4, 8, 12)


def test_the_convolution_warns_too_and_any_size_does_not():
    def trace(sampler) -> None:
        layer = SampledConv(1, 2, 2, sampler)
        jax.eval_shape(lambda: layer.init(jax.random.key(0), jnp.zeros((1, 9, 9, 1))))

    with pytest.warns(UserWarning, match="any_size=True, which is exact for every size"):
        trace(IdealDownsample)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        trace(LINEAR["ideal, any size"])
        trace(Subsample)  # is never exact, so it never warns


@pytest.mark.parametrize("name", [*LINEAR, "polyphase"])
def test_bfloat16_networks_keep_bfloat16_maps(name, draw):
    x = draw(1, 8, 8, 3)
    sampler = {**LINEAR, "polyphase": AdaptivePolyphase}[name]
    layer = SampledConv(4, 2, 2, sampler, dtype=jnp.bfloat16)
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)
    assert variables["params"]["conv"]["kernel"].dtype == jnp.float32  # weights stay float32
    assert jax.eval_shape(layer.apply, variables, x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


def test_the_precision_reaches_the_filters(draw):
    def text(precision: str) -> str:
        layer = SampledConv(4, 2, 2, IdealDownsample, precision=precision)
        x = draw(1, 8, 8, 3)
        variables = jax.eval_shape(layer.init, jax.random.key(0), x)
        return str(jax.make_jaxpr(layer.apply)(variables, x)).upper()

    assert "HIGHEST" not in text("default")
    assert text("highest").count("HIGHEST") >= 3  # rows, columns, convolution


def test_the_filter_alone_is_the_ops(draw):
    x = draw(1, 8, 8, 2)
    filtered = IdealDownsample(strides=4).apply({}, x, method="filter")
    np.testing.assert_array_equal(filtered, ideal_lowpass(x, 0.25))

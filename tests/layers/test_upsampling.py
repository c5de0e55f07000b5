"""Upsamplers of ordinary networks, and convolutions after upsamplers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.layers import (
    BlurPool,
    Factory,
    IdealUpsample,
    PolyphaseUpsample,
    UpsampledConv,
    ZeroUpsample,
)
from aliasfree_jax.ops.bilinear import bilinear_resize
from aliasfree_jax.ops.convolution import conv2d
from aliasfree_jax.ops.resample import ideal_resample


def test_bilinear_by_pixels_is_that_of_jax(draw):
    x = draw(2, 5, 4, 3)
    # float32 rounding of sums of four products.
    for shape in ((10, 8), (7, 13), (5, 4)):
        expected = jax.image.resize(x, (2, *shape, 3), "linear", antialias=False)
        np.testing.assert_allclose(bilinear_resize(x, shape), expected, rtol=1e-5, atol=1e-6)


def test_bilinear_with_aligned_corners_is_that_of_numpy(draw):
    x = draw(1, 5, 1, 1)
    places = np.linspace(0, 4, 10)
    y = bilinear_resize(x, (10, 1), align_corners=True)[0, :, 0, 0]
    np.testing.assert_allclose(y, np.interp(places, np.arange(5), x[0, :, 0, 0]), rtol=1e-5, atol=1e-6)
    assert (y[0], y[-1]) == (x[0, 0, 0, 0], x[0, -1, 0, 0])
    single = bilinear_resize(x[:, :1], (3, 2), align_corners=True)
    np.testing.assert_array_equal(single, jnp.broadcast_to(x[:, :1], (1, 3, 2, 1)))


def test_a_transposed_convolution_is_one_of_zeros_between(draw):
    """It equals a convolution, with the flipped kernel, of the map with zeros between its samples."""
    layer, x = UpsampledConv(3, bias_init=jax.nn.initializers.normal(1.0)), draw(2, 4, 5, 2)
    variables = layer.init(jax.random.key(0), x)
    kernel, bias = (variables["params"]["conv"][name] for name in ("kernel", "bias"))
    spread = ZeroUpsample().apply({}, x)
    assert float(jnp.abs(spread[:, 1::2]).max()) == 0 and (spread[:, ::2, ::2] == x).all()
    padded = jnp.pad(spread, ((0, 0), (1, 0), (1, 0), (0, 0)))
    expected = conv2d(padded, kernel[::-1, ::-1]) + bias
    np.testing.assert_allclose(layer.apply(variables, x), expected, rtol=1e-5, atol=1e-6)


def test_the_filter_follows_the_transposed_convolution(draw):
    blurred, x = UpsampledConv(3, upsampler=Factory(ZeroUpsample, inner=BlurPool)), draw(1, 4, 4, 2)
    variables = blurred.init(jax.random.key(0), x)
    expected = BlurPool(strides=1).apply({}, UpsampledConv(3).apply(variables, x))
    np.testing.assert_allclose(blurred.apply(variables, x), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("upsampler", [PolyphaseUpsample, ZeroUpsample])
def test_a_smaller_shape_cuts(draw, upsampler):
    layer, x = UpsampledConv(0, upsampler=upsampler), draw(1, 4, 4, 2)
    whole = layer.apply({}, x)
    np.testing.assert_array_equal(layer.apply({}, x, shape=(7, 8)), whole[:, :7])


def test_a_smaller_shape_is_read_evenly_by_ideal_interpolation(draw, x64):
    layer, x = UpsampledConv(0, upsampler=IdealUpsample), draw(1, 5, 4, 2)
    # float64 rounding.
    expected = ideal_resample(x, (9, 7))
    np.testing.assert_allclose(layer.apply({}, x, shape=(9, 7)), expected, rtol=0, atol=1e-13)


def test_the_phase_reaches_the_upsampler(draw):
    layer, x = UpsampledConv(0, upsampler=PolyphaseUpsample), draw(2, 4, 4, 2)
    y = layer.apply({}, x, (jnp.array([1, 2]),))
    assert (y[0, 1::2, ::2] == 4 * x[0]).all() and (y[1, ::2, 1::2] == 4 * x[1]).all()

"""Binomial blurs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from twins import blur_ref

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.ops.blurring import binomial_taps, blur


@pytest.mark.parametrize("size", range(1, 8))
def test_taps_are_normalised_binomials(size):
    expected = [math.comb(size - 1, i) / 2 ** (size - 1) for i in range(size)]
    np.testing.assert_array_equal(
        binomial_taps(size), expected
    )  # exact, because all values are sums of powers of two


@pytest.mark.parametrize("size", [0, 8, -1])
def test_other_sizes_are_refused(size, draw):
    with pytest.raises(ConfigError, match=f"blur filters have 1 to 7 taps, got {size}"):
        binomial_taps(size)
    with pytest.raises(ConfigError, match=f"got {size}"):
        blur(draw(1, 8, 8, 1), size)


compiled = jax.jit(blur, static_argnames=("kernel_size", "strides", "padding"))


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", range(1, 8))
def test_blur_equals_its_definition(size, stride, draw, x64):
    x = draw(2, 9, 12, 3)
    y = compiled(x, size, stride)
    assert y.shape == (2, -(-9 // stride), -(-12 // stride), 3)
    np.testing.assert_allclose(
        y, blur_ref(np.asarray(x), size, stride), atol=1e-14
    )  # rounding of at most 49 products


@pytest.mark.parametrize("padding", ["CIRCULAR", "ZERO", "REFLECT", "REPLICATE"])
@pytest.mark.parametrize("size", [2, 3, 6])
def test_padding_reaches_the_border_only(size, padding, draw, x64):
    x = draw(1, 12, 11, 2)
    before, after = (size - 1) // 2, size // 2
    mode = {"CIRCULAR": "wrap", "ZERO": "constant", "REFLECT": "reflect", "REPLICATE": "edge"}[padding]
    padded = np.pad(np.asarray(x), ((0, 0), (before, after), (before, after), (0, 0)), mode=mode)
    taps = binomial_taps(size)
    expected = np.zeros(x.shape)
    for i in range(size):
        for j in range(size):
            expected += taps[i] * taps[j] * padded[:, i : i + 12, j : j + 11]
    np.testing.assert_allclose(compiled(x, size, padding=padding), expected, atol=1e-14)


def test_blurring_keeps_constants_and_sums(draw, x64):
    np.testing.assert_allclose(compiled(jnp.full((1, 7, 8, 1), 2.0), 5), 2.0, atol=1e-14)
    x = draw(1, 7, 8, 1)
    np.testing.assert_allclose(compiled(x, 5).sum(), x.sum(), atol=1e-12)


def test_blur_commutes_with_whole_but_not_with_half_strides(draw, x64):
    x = draw(1, 8, 8, 1)
    first = compiled(x, 3, 2)
    even = compiled(np.roll(x, (2, 4), (1, 2)), 3, 2)
    np.testing.assert_allclose(even, np.roll(first, (1, 2), (1, 2)), atol=1e-14)
    odd = compiled(np.roll(x, 1, 1), 3, 2)
    assert all(np.abs(np.roll(first, k, 1) - odd).max() > 1e-2 for k in range(4))


@pytest.mark.parametrize("size", [1, 3])
def test_jit_equals_eager_and_dtypes_stay(size, draw):
    x = draw(1, 8, 7, 2)
    expected = compiled(x, size, 2)
    np.testing.assert_allclose(blur(x, size, 2), expected, atol=1e-6)  # rounding of float32
    rough = compiled(x.astype(jnp.bfloat16), size, 2)
    assert rough.dtype == jnp.bfloat16
    # Five roundings to the 8 bits of bfloat16.
    np.testing.assert_allclose(rough.astype(jnp.float32), expected, atol=0.05)


def test_unknown_paddings_and_small_maps_are_named(draw):
    for size in (1, 3):
        with pytest.raises(ConfigError, match="unknown padding 'reflekt'. Did you mean 'REFLECT'"):
            blur(draw(1, 8, 8, 1), size, padding="reflekt")
    with pytest.raises(ShapeError, match=r"CIRCULAR padding by \(3, 3\) needs a larger map: height is 2"):
        blur(draw(1, 2, 8, 1), 7)


@pytest.mark.parametrize(
    "strides", [2.0, None, np.int64(2), np.array([2, 2]), "22", (2, 2, 2), (2, 0)], ids=str
)
def test_strides_that_are_no_pair(strides):
    with pytest.raises(ConfigError, match="strides must be an integer of at least 1, or a pair of them, got"):
        blur(jnp.zeros((1, 8, 8, 1)), 3, strides)

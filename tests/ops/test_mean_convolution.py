"""The mean of a convolution, compared with the convolution."""

import itertools

import jax
import numpy as np
import pytest
from twins import mean_convolution_ref

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.ops.convolution import mean_convolution

PADDINGS = ("CIRCULAR", "ZERO", "REFLECT", "REPLICATE")


@pytest.mark.parametrize("shape", [(5, 8), (3, 2), (16, 7)])
@pytest.mark.parametrize(("taps", "padding"), list(itertools.product((1, 2, 3, 5), PADDINGS)))
def test_it_is_the_mean_of_the_convolution(taps, padding, shape, draw, x64):
    x, kernel = draw(2, *shape, 3), draw(taps, taps, 3, 4, seed=1)
    if padding in ("CIRCULAR", "REFLECT") and taps // 2 > min(shape) - (padding == "REFLECT"):
        with pytest.raises(ShapeError, match="needs a larger map"):
            mean_convolution(x, kernel, padding)
        return
    # float64 rounding of sums of up to 112 values, up to about 4 * taps, in a different order.
    np.testing.assert_allclose(
        mean_convolution(x, kernel, padding), mean_convolution_ref(x, kernel, padding), rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("side", [1, 2])
def test_the_smallest_maps(side, draw, x64):
    x, kernel = draw(3, side, side, 2), draw(3, 3, 2, 2, seed=1)
    for padding in ("ZERO", "REPLICATE", "CIRCULAR"):
        np.testing.assert_allclose(
            mean_convolution(x, kernel, padding), mean_convolution_ref(x, kernel, padding), rtol=0, atol=1e-13
        )


@pytest.mark.parametrize("padding", PADDINGS)
def test_gradients(padding, draw, x64):
    x, kernel = draw(2, 6, 5, 3), draw(3, 3, 3, 4, seed=1)
    weights = draw(2, 4, seed=2)

    def loss(function):
        return jax.grad(lambda x, k: (weights * function(x, k, padding) ** 2).sum(), argnums=(0, 1))

    for ours, theirs in zip(
        loss(mean_convolution)(x, kernel), loss(mean_convolution_ref)(x, kernel), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-12)


def test_no_convolution_is_left():
    """One pass over the map needs fewer than 4 operations per element; the convolution needs 2 * 9 * 32."""
    x = jax.ShapeDtypeStruct((4, 64, 64, 32), np.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 32, 32), np.float32)
    cost = jax.jit(mean_convolution, static_argnums=2).lower(x, kernel, "ZERO").compile().cost_analysis()
    assert cost["flops"] < 4 * 4 * 64 * 64 * 32


def test_unknown_padding(draw):
    with pytest.raises(ConfigError, match="unknown padding 'wrap'"):
        mean_convolution(draw(1, 4, 4, 1), draw(3, 3, 1, 1), "wrap")

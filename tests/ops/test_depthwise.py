"""Depthwise convolution: two methods against each other, forward and in both gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.ops.depthwise import depthwise_conv, depthwise_conv_ref

# Sums of 49 products of order 1 in another order.
EXACT, SINGLE = 1e-13, 2e-5

convolve = jax.jit(depthwise_conv, static_argnames=("padding", "method"))


@functools.partial(jax.jit, static_argnames=("padding", "method"))
def value_and_gradients(x, kernel, weights, padding, method):
    def loss(x, kernel):
        y = depthwise_conv(x, kernel, padding, method=method)
        return jnp.sum(weights * y), y

    gradients, y = jax.grad(loss, argnums=(0, 1), has_aux=True)(x, kernel)
    return y, *gradients


@pytest.mark.parametrize(
    ("size", "padding"),
    [(7, "CIRCULAR"), (3, "ZERO"), (3, "REFLECT"), (3, "REPLICATE"), (2, "CIRCULAR"), (1, "ZERO")],
)
def test_both_methods_agree_in_value_and_gradients(size, padding, draw, x64):
    x, kernel, weights = draw(2, 9, 7, 3), draw(size, size, 3, seed=1), draw(2, 9, 7, 3, seed=2)
    shifted, conv = (
        value_and_gradients(x, kernel, weights, padding, method) for method in ("shifted", "conv")
    )
    for ours, theirs, name in zip(shifted, conv, ("value", "dx", "dkernel"), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=EXACT, err_msg=name)


def test_value_by_definition(draw, x64):
    x, kernel = draw(1, 5, 6, 2), draw(3, 3, 2, seed=1)
    expected = sum(kernel[i, j] * np.roll(x, (1 - i, 1 - j), axis=(1, 2)) for i in range(3) for j in range(3))
    for method in ("shifted", "conv", "auto"):
        np.testing.assert_allclose(convolve(x, kernel, method=method), expected, atol=EXACT)


def test_float32_methods_agree(draw):
    x, kernel, weights = draw(2, 9, 7, 3), draw(7, 7, 3, seed=1), draw(2, 9, 7, 3, seed=2)
    shifted, conv = (
        value_and_gradients(x, kernel, weights, "CIRCULAR", method) for method in ("shifted", "conv")
    )
    for ours, theirs in zip(shifted, conv, strict=True):
        assert ours.dtype == theirs.dtype == jnp.float32
        np.testing.assert_allclose(ours, theirs, atol=10 * SINGLE)  # gradients sum 126 products


@pytest.mark.parametrize("padding", ["CIRCULAR", "REFLECT"])
def test_own_gradient_against_finite_differences(padding, draw, x64):
    x, kernel = draw(1, 5, 6, 2), draw(3, 3, 2, seed=1)
    shifted = jax.jit(functools.partial(depthwise_conv, padding=padding, method="shifted"))
    check_grads(shifted, (x, kernel), order=2, modes=["rev"])


@pytest.mark.parametrize("method", ["shifted", "conv"])
def test_bfloat16_in_bfloat16_out(method, draw):
    x, kernel, weights = (
        a.astype(jnp.bfloat16) for a in (draw(2, 9, 7, 3), draw(7, 7, 3, seed=1), draw(2, 9, 7, 3, seed=2))
    )
    rough = value_and_gradients(x, kernel, weights, "CIRCULAR", method)
    wide = (a.astype(jnp.float32) for a in (x, kernel, weights))
    for ours, theirs in zip(rough, value_and_gradients(*wide, "CIRCULAR", method), strict=True):
        assert ours.dtype == jnp.bfloat16
        # The inputs are the same numbers; one rounding of the result to eight bits, and one more
        # where the gradient of the border is added to that of the interior.
        np.testing.assert_allclose(
            ours.astype(jnp.float32), theirs, atol=2**-7 * float(jnp.abs(theirs).max())
        )


def test_mixed_dtypes_give_each_gradient_its_own_dtype(draw):
    x, kernel = draw(1, 5, 5, 2).astype(jnp.bfloat16), draw(3, 3, 2, seed=1)
    dx, dkernel = jax.grad(
        lambda x, k: depthwise_conv(x, k, method="shifted").astype(jnp.float32).sum(), (0, 1)
    )(x, kernel)
    assert (dx.dtype, dkernel.dtype) == (jnp.bfloat16, jnp.float32)


def test_auto_takes_shifted_sums_on_the_cpu_and_convolutions_elsewhere(draw, monkeypatch):
    x, kernel = draw(1, 5, 5, 2), draw(3, 3, 2)

    def text() -> str:
        return str(jax.make_jaxpr(lambda x, kernel: depthwise_conv(x, kernel))(x, kernel))  # traced anew

    assert "conv_general_dilated" not in text()
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert "conv_general_dilated" in text()


def test_jit_equals_eager(draw):
    x, kernel = draw(1, 5, 6, 2), draw(3, 3, 2)
    for method in ("shifted", "conv"):
        eager = depthwise_conv(x, kernel, method=method)
        np.testing.assert_allclose(convolve(x, kernel, method=method), eager, atol=SINGLE)
    np.testing.assert_array_equal(eager, depthwise_conv_ref(x, kernel))


def test_wrong_kernels_methods_and_maps_are_named(draw):
    x = draw(1, 8, 8, 3)
    with pytest.raises(
        ShapeError, match=r"expected a kernel \[k, k, 3\] for maps \[1, 8, 8, 3\], got \[3, 3, 4\]"
    ):
        depthwise_conv(x, jnp.ones((3, 3, 4)))
    with pytest.raises(ShapeError, match=r"got \[3, 3, 1, 3\]"):
        depthwise_conv(x, jnp.ones((3, 3, 1, 3)))
    with pytest.raises(ConfigError, match="unknown depthwise method 'shift'. Did you mean 'shifted'"):
        depthwise_conv(x, jnp.ones((3, 3, 3)), method="shift")
    with pytest.raises(ConfigError, match="unknown padding 'zeros'. Did you mean 'zero'"):
        depthwise_conv(x, jnp.ones((3, 3, 3)), "zeros")
    for method in ("shifted", "conv"):
        with pytest.raises(ShapeError, match=r"circular padding by \(3, 3\) needs a larger map: width is 2"):
            depthwise_conv(x[:, :, :2], jnp.ones((7, 7, 3)), method=method)


def test_xla_cannot_cut_the_shifted_sum(draw):
    """A norm that follows would otherwise take half of the sum into its own loop, 7 times slower."""
    x, kernel = draw(2, 9, 7, 3), draw(7, 7, 3, seed=1)

    def normalised(x, kernel):
        y = depthwise_conv(x, kernel, method="shifted")
        return y - y.mean(-1, keepdims=True)

    text = jax.jit(normalised).lower(x, kernel).compile().as_text()
    products = [computation.count(" multiply(") for computation in text.split("\n}")]
    assert max(products) == 49


def test_a_nan_in_the_kernel_is_seen(draw):
    kernel = draw(3, 3, 2).at[0, 0, 0].set(jnp.nan)
    assert bool(jnp.isnan(depthwise_conv(draw(1, 4, 4, 2), kernel, method="shifted")).any())

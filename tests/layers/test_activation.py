"""Activation modules: parameters, and agreement with the pure functions."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.activation import Gelu, LowpassPolynomial, Polynomial, Relu, UpPolynomial
from aliasfree_jax.ops.activation import GELU_QUADRATIC, lowpass_polynomial, polynomial, up_polynomial_down
from aliasfree_jax.ops.resample import ideal_lowpass

POLYNOMIALS = [Polynomial, UpPolynomial, LowpassPolynomial]


def test_gelu_is_the_exact_one():
    x = jnp.linspace(-4, 4, 41)
    exact = [0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in x.tolist()]
    np.testing.assert_allclose(
        Gelu().apply({}, x), exact, atol=1e-6
    )  # float32 rounding; the tanh form differs by 5e-4


def test_relu():
    np.testing.assert_array_equal(Relu().apply({}, jnp.array([-1.0, 0.0, 2.0])), [0, 0, 2])


@pytest.mark.parametrize("module", POLYNOMIALS)
def test_parameters(module, draw):
    x = draw(1, 6, 6, 5)
    params = module().init(jax.random.key(0), x)["params"]
    assert set(params) == {"coefficients"}
    np.testing.assert_array_equal(params["coefficients"], jnp.tile(jnp.array(GELU_QUADRATIC), (5, 1)))
    params = module(in_scale=7.0, out_scale=3.0, train_scale=True).init(jax.random.key(0), x)["params"]
    assert set(params) == {"coefficients", "in_scale", "out_scale"}
    np.testing.assert_array_equal(params["in_scale"], [7.0])
    np.testing.assert_array_equal(params["out_scale"], [3.0])


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("module", POLYNOMIALS)
def test_modules_compute_the_pure_function(module, trained, draw, x64):
    x, rows = draw(2, 8, 7, 3), draw(3, 3, seed=1)
    layer = module(in_scale=0.7, out_scale=1.3, train_scale=trained)
    params = {"coefficients": rows}
    if trained:
        params |= {"in_scale": jnp.array([0.7]), "out_scale": jnp.array([1.3])}
    expected = {
        Polynomial: lambda: polynomial(x, rows, 0.7, 1.3),
        UpPolynomial: lambda: up_polynomial_down(x, rows, 0.7, 1.3),
        LowpassPolynomial: lambda: lowpass_polynomial(x, ideal_lowpass(x, 0.75), rows, 0.7, 1.3),
    }[module]()
    np.testing.assert_allclose(layer.apply({"params": params}, x), expected, atol=1e-13)  # float64 rounding


@pytest.mark.parametrize("precision", ["highest", "default", None])
def test_a_call_is_the_pure_function_at_its_precision(precision, draw):
    x = draw(2, 7, 6, 3)
    layer = UpPolynomial(in_scale=0.7, out_scale=1.3, train_scale=True, precision=precision)
    variables = layer.init(jax.random.key(0), x)

    def pure(variables, x):
        return up_polynomial_down(x, **variables["params"], precision=precision or "highest")

    ours, theirs = (str(jax.make_jaxpr(function)(variables, x)) for function in (layer.apply, pure))
    assert ours == theirs and ("Precision.HIGHEST" in ours) == (precision != "default")


def test_higher_degrees_take_a_finer_grid(draw, x64):
    x, layer = draw(1, 6, 7, 2), UpPolynomial(initial=(0.1, 0.5, 0.3, -0.2))
    variables = layer.init(jax.random.key(0), x)
    assert variables["params"]["coefficients"].shape == (2, 4)
    seen = []
    layer.apply(variables, x, lambda fine: seen.append(fine.shape) or fine, method="between")
    assert seen == [(1, 12, 13, 2)]  # 3 * 3 + 2 + 1, 3 * 3 + 3 + 1
    expected = up_polynomial_down(x, variables["params"]["coefficients"])
    np.testing.assert_allclose(layer.apply(variables, x), expected, atol=1e-13)


def test_the_cutoff(draw, x64):
    x, layer = draw(1, 8, 8, 2), LowpassPolynomial(cutoff=0.5)
    variables = layer.init(jax.random.key(0), x)
    y, rows = layer.apply(variables, x), variables["params"]["coefficients"]
    np.testing.assert_array_equal(lowpass_polynomial(x, ideal_lowpass(x, 0.5), rows), y)
    assert float(jnp.abs(lowpass_polynomial(x, ideal_lowpass(x, 0.75), rows) - y).max()) > 1e-3


@pytest.mark.parametrize(
    "module", [Gelu, Relu, *POLYNOMIALS, functools.partial(UpPolynomial, train_scale=True)]
)
def test_bfloat16_in_bfloat16_out(module, draw):
    x, layer = draw(1, 6, 6, 2).astype(jnp.bfloat16), module()
    variables = jax.eval_shape(layer.init, jax.random.key(0), x)
    assert jax.eval_shape(layer.apply, variables, x).dtype == jnp.bfloat16


def test_a_low_pass_polynomial_is_a_quadratic():
    """Also as the activation of a stem, which uses the coefficients only."""
    for layer in (LowpassPolynomial(initial=(0, 1, 0, 1.0)), LowpassPolynomial(initial=(0, 1.0))):
        with pytest.raises(ConfigError, match=f"has 3 coefficients, got {len(layer.initial)}"):
            layer.init(jax.random.key(0), 3, method="scaled")

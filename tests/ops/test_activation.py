"""Polynomial activations: comparison with the original's method, smallest exact grid, equivariance."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from twins import up_polynomial_down_ref

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.ops import activation
from aliasfree_jax.ops.activation import (
    GELU_QUADRATIC,
    lowpass_polynomial,
    polynomial,
    polynomial_grid,
    up_polynomial_down,
)
from aliasfree_jax.ops.resample import ideal_downsample, ideal_lowpass, ideal_resample
from aliasfree_jax.ops.shift import fractional_shift

# float64 rounding for squares of values of order 1 to 10, after products with up to 50 cosines.
EXACT = 1e-12

SHIFTS = [(1.0, 0.0), (0.5, 0.5), (-1 / 3, 2 / 3), (0.123, 7.77)]


@pytest.mark.parametrize("scales", [(1.0, 1.0), (0.7, 3.0)])
@pytest.mark.parametrize("degree", [0, 1, 2, 3, 5])
def test_polynomial_of_each_channel(degree, scales, draw, x64):
    x, coefficients = draw(2, 4, 3), draw(3, degree + 1, seed=1)
    expected = np.empty(x.shape)
    for channel in range(3):
        curve = np.polynomial.Polynomial(coefficients[channel])
        expected[..., channel] = scales[1] * curve(scales[0] * np.asarray(x[..., channel]))
    np.testing.assert_allclose(polynomial(x, coefficients, *scales), expected, rtol=1e-13, atol=1e-13)
    trained = [jnp.array([scale]) for scale in scales]  # learned scales have shape [1]
    np.testing.assert_allclose(polynomial(x, coefficients, *trained), expected, rtol=1e-13, atol=1e-13)


def test_one_row_serves_all_channels(draw):
    x, row = draw(2, 4, 3), jnp.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(polynomial(x, row), polynomial(x, jnp.tile(row, (3, 1))))


def test_the_initial_quadratic_is_close_to_gelu():
    x = jnp.linspace(-2, 2, 50)
    y = polynomial(x[:, None], jnp.array(GELU_QUADRATIC))[:, 0]
    np.testing.assert_allclose(
        y, jax.nn.gelu(x, approximate=False), atol=0.3
    )  # the largest error of the best parabola


def test_half_precision_evaluates_in_float32(draw):
    x, coefficients = draw(2, 5, 3).astype(jnp.bfloat16), jnp.array([100.0, -1.0, 0.5])
    y = polynomial(x, coefficients, 7.0, 7.0)
    assert y.dtype == jnp.bfloat16
    exact = polynomial(x.astype(jnp.float32), coefficients, 7.0, 7.0)
    np.testing.assert_array_equal(y, exact.astype(jnp.bfloat16))  # one rounding, at the end


@pytest.mark.parametrize("size", [(1, 2), (3, 4), (7, 14), (10, 8), (9, 9)], ids="{0[0]}x{0[1]}".format)
def test_the_small_grid_gives_what_the_double_grid_gives(size, draw, x64):
    x, coefficients = draw(2, *size, 3), draw(3, 3, seed=1)
    actual = jax.jit(up_polynomial_down)(x, coefficients, 0.8, 1.3)
    by_fft = jax.jit(functools.partial(up_polynomial_down, method="fft"))(x, coefficients, 0.8, 1.3)
    expected = jax.jit(up_polynomial_down_ref)(x, coefficients, 0.8, 1.3)
    np.testing.assert_allclose(actual, expected, atol=EXACT)
    np.testing.assert_allclose(by_fft, expected, atol=EXACT)


def test_the_grid_of_a_quadratic_is_at_most_twice_the_map():
    assert polynomial_grid((56, 7), 2) == (84, 10)
    assert all(max(polynomial_grid((n, 1), 2)) <= 2 * n for n in range(1, 300))


@pytest.mark.parametrize(("size", "degree"), [((7, 8), 2), ((6, 5), 3)])
def test_no_smaller_grid_is_exact(size, degree, draw, x64):
    x, coefficients = draw(1, *size, 2), draw(2, degree + 1, seed=1)
    y = up_polynomial_down(x, coefficients)

    def on_grid(rows: int, columns: int) -> float:
        fine = polynomial(ideal_resample(x, (rows, columns)), coefficients)
        return float(jnp.abs(ideal_resample(fine, size) - y).max())

    rows, columns = polynomial_grid(size, degree)
    assert on_grid(2 * rows, 2 * columns) < EXACT
    assert on_grid(rows + 1, columns + 1) < EXACT
    assert on_grid(rows - 1, columns) > 1e-4
    assert on_grid(rows, columns - 1) > 1e-4


@pytest.mark.parametrize("degree", [2, 3])
@pytest.mark.parametrize("size", [(8, 7), (6, 9)], ids="{0[0]}x{0[1]}".format)
def test_commutes_with_every_shift(size, degree, draw, x64):
    x, coefficients = draw(1, *size, 2), draw(2, degree + 1, seed=1)
    act = jax.jit(functools.partial(up_polynomial_down, coefficients=coefficients))
    # The Nyquist frequency of even sides cannot be shifted by fractions, so it is removed from the input.
    x = ideal_resample(ideal_resample(x, tuple(n - 1 + n % 2 for n in size)), size)
    for shift in SHIFTS:
        np.testing.assert_allclose(
            act(fractional_shift(x, shift)), fractional_shift(act(x), shift), atol=EXACT
        )
    # Negative controls: the polynomial without a finer grid, and a function that is not a polynomial.
    for aliasing in (lambda x: polynomial(x, coefficients), jax.nn.gelu):
        difference = aliasing(fractional_shift(x, (0.5, 0.5))) - fractional_shift(aliasing(x), (0.5, 0.5))
        assert float(jnp.abs(difference).max()) > 1e-2


@pytest.mark.parametrize("stride", [2, 3, 4])
def test_the_stems_polynomial_is_exact_before_a_low_pass(stride, draw, x64):
    x, coefficients = draw(1, 6 * stride, 7 * stride, 2), draw(2, 3, seed=1)

    @functools.partial(jax.jit, static_argnames="cutoff")
    def stem(x: jax.Array, cutoff: float) -> jax.Array:
        lowpassed = x if cutoff == 1.0 else ideal_lowpass(x, cutoff)
        return ideal_downsample(lowpass_polynomial(x, lowpassed, coefficients), stride)

    def error(cutoff: float, shift: tuple[float, float]) -> float:
        scaled = (shift[0] / stride, shift[1] / stride)
        difference = stem(fractional_shift(x, shift), cutoff) - fractional_shift(stem(x, cutoff), scaled)
        return float(jnp.abs(difference).max())

    for shift in SHIFTS:
        assert error(1 - 1 / stride, shift) < EXACT
    assert error(1.0, (0.5, 0.5)) > 1e-3


def test_lowpass_polynomial_by_definition(draw, x64):
    x, v, c = draw(2, 3, 4, 2), draw(2, 3, 4, 2, seed=1), draw(2, 3, seed=2)
    expected = 3.0 * (c[:, 0] + c[:, 1] * 0.5 * x + c[:, 2] * (0.5 * x) * (0.5 * v))
    np.testing.assert_allclose(lowpass_polynomial(x, v, c, 0.5, 3.0), expected, atol=1e-14)
    np.testing.assert_allclose(lowpass_polynomial(x, x, c, 0.5, 3.0), polynomial(x, c, 0.5, 3.0), atol=1e-14)


@pytest.mark.parametrize("method", ["matmul", "auto"])
@pytest.mark.parametrize("precision", ["highest", "default"])
def test_products_have_the_wanted_precision(method, precision, draw):
    act = functools.partial(up_polynomial_down, method=method, precision=precision)
    program = str(jax.make_jaxpr(act)(draw(1, 7, 6, 3), jnp.array(GELU_QUADRATIC)))
    products, exact = program.count("dot_general["), program.count("precision=(Precision.HIGHEST")
    assert products == 4 and exact == (4 if precision == "highest" else 0)


def test_gradients_reach_maps_coefficients_and_scales(draw, x64):
    x, coefficients = draw(1, 6, 5, 2), draw(2, 3, seed=1)
    for function in (up_polynomial_down, lambda x, *args: lowpass_polynomial(x, x, *args)):
        check_grads(jax.jit(function), (x, coefficients, jnp.array([0.7]), jnp.array([1.2])), order=1)


def test_jit_equals_eager_and_dtypes_stay(draw):
    x, coefficients = draw(1, 8, 7, 2), jnp.array([0.1, 0.5, 0.3])
    for function in (polynomial, up_polynomial_down, lambda x, c: lowpass_polynomial(x, x, c)):
        expected = jax.jit(function)(x, coefficients)
        np.testing.assert_allclose(function(x, coefficients), expected, atol=1e-5)  # rounding of float32
        rough = function(x.astype(jnp.bfloat16), coefficients)
        assert rough.dtype == jnp.bfloat16
        # bfloat16 has 8 bits of mantissa; up to five roundings of values up to 5.
        np.testing.assert_allclose(rough.astype(jnp.float32), expected, atol=0.15)


def test_wrong_coefficients_and_maps_are_named(draw):
    x = draw(1, 4, 4, 3)
    with pytest.raises(
        ShapeError, match="one row of coefficients per channel, got 4 rows of coefficients for 3 channels"
    ):
        polynomial(x, jnp.ones((4, 3)))
    with pytest.raises(ShapeError, match="1 rows of coefficients for 3 channels"):
        lowpass_polynomial(x, x, jnp.ones((1, 3)))
    with pytest.raises(
        ConfigError, match="low-pass polynomial is a quadratic: expected 3 coefficients, got 4"
    ):
        lowpass_polynomial(x, x, jnp.ones((3, 4)))
    with pytest.raises(ShapeError, match="expected floating-point images"):
        up_polynomial_down(x[0], jnp.ones(3))
    with pytest.raises(ConfigError, match="unknown method 'matmull'. Did you mean 'matmul'"):
        up_polynomial_down(x, jnp.ones(3), method="matmull")


def test_the_module_keeps_the_grid_in_one_place(draw, monkeypatch):
    monkeypatch.setattr(activation, "polynomial_grid", lambda shape, degree: (2 * shape[0], 2 * shape[1]))
    x, coefficients = draw(1, 6, 6, 1), jnp.array([0.1, 0.5, 0.3])
    assert "12,12" in str(jax.make_jaxpr(up_polynomial_down)(x, coefficients))


def test_the_gradient_of_a_polynomial_keeps_one_map(draw):
    """Automatic differentiation of Horner's rule would store one map per power.

    On the fine grid these are the largest maps of a network.
    """
    x, coefficients = draw(2, 8, 8, 4), draw(4, 4, seed=1)
    backward = jax.eval_shape(lambda x, c: jax.vjp(polynomial, x, c)[1], x, coefficients)
    assert sum(leaf.size == x.size for leaf in jax.tree.leaves(backward)) == 1

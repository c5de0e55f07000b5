"""Products of two maps: comparison with convolved spectra, smallest exact grid, equivariance."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from twins import up_gate_down_ref

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.ops.activation import gate, polynomial_grid, up_gate_down, up_polynomial_down
from aliasfree_jax.ops.resample import ideal_resample, remove_nyquist
from aliasfree_jax.ops.shift import fractional_shift

# float64 rounding for products of values of order 1 to 5, after sums with up to 50 cosines.
EXACT = 1e-12

SIZES = [(1, 2), (3, 4), (7, 14), (10, 8), (9, 9)]
SHIFTS = [(1.0, 0.0), (0.5, 0.5), (-1 / 3, 2 / 3), (0.123, 7.77)]


def test_gate_by_definition(draw, x64):
    x, by = draw(2, 3, 4, 2), draw(2, 3, 4, 2, seed=1)
    expected = 3.0 * x * (1 + 0.5 * by)
    np.testing.assert_allclose(gate(x, by, 0.5, 3.0), expected, atol=1e-14)
    np.testing.assert_allclose(gate(x, by, jnp.array([0.5]), jnp.array([3.0])), expected, atol=1e-14)


def test_half_precision_evaluates_in_float32(draw):
    x, by = (draw(2, 5, 3, seed=seed).astype(jnp.bfloat16) for seed in (0, 1))
    exact = gate(x.astype(jnp.float32), by.astype(jnp.float32), 7.0, 7.0)
    assert gate(x, by, 7.0, 7.0).dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        gate(x, by, 7.0, 7.0), exact.astype(jnp.bfloat16)
    )  # one rounding, at the end


@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("method", ["matmul", "fft", "auto"])
def test_the_product_of_the_functions_that_both_maps_sample(size, method, draw, x64):
    x, by = draw(2, *size, 3), draw(2, *size, 3, seed=1)
    actual = jax.jit(functools.partial(up_gate_down, method=method))(x, by, 0.8, 1.3)
    np.testing.assert_allclose(actual, up_gate_down_ref(x, by, 0.8, 1.3), atol=EXACT)


@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
def test_a_map_gated_by_itself_is_a_quadratic(size, draw, x64):
    x = remove_nyquist(draw(2, *size, 3))
    square = up_polynomial_down(x, jnp.array([0.0, 1.3, 1.3 * 0.8]))
    np.testing.assert_allclose(up_gate_down(x, x, 0.8, 1.3), square, atol=EXACT)


@pytest.mark.parametrize("size", [(7, 8), (9, 6)], ids="{0[0]}x{0[1]}".format)
def test_no_smaller_grid_is_exact(size, draw, x64):
    x, by = draw(1, *size, 2), draw(1, *size, 2, seed=1)

    def on_grid(rows: int, columns: int) -> float:
        fine = gate(*(ideal_resample(each, (rows, columns), nyquist=False) for each in (x, by)))
        return float(jnp.abs(ideal_resample(fine, size) - up_gate_down(x, by)).max())

    rows, columns = polynomial_grid(size, 2, nyquist=False)
    assert on_grid(2 * rows, 2 * columns) < EXACT
    assert on_grid(rows - 1, columns) > 1e-4
    assert on_grid(rows, columns - 1) > 1e-4


@pytest.mark.parametrize("size", [(8, 7), (6, 9)], ids="{0[0]}x{0[1]}".format)
def test_commutes_with_every_shift(size, draw, x64):
    """Also with the Nyquist frequency of even sides in the maps, because the layer removes it."""
    x, by = (draw(1, *size, 2, seed=s) for s in (0, 1))

    def error(function, shift: tuple[float, float]) -> float:
        first = function(fractional_shift(x, shift), fractional_shift(by, shift))
        return float(jnp.abs(first - fractional_shift(function(x, by), shift)).max())

    assert max(error(up_gate_down, shift) for shift in SHIFTS) < EXACT
    x, by = remove_nyquist(x), remove_nyquist(by)
    assert error(gate, SHIFTS[0]) < EXACT < 1e-2 < error(gate, (0.5, 0.5))  # negative control: it aliases


def test_gradients_reach_maps_and_scales(draw, x64):
    arguments = draw(1, 6, 5, 2), draw(1, 6, 5, 2, seed=1), jnp.array([0.7]), jnp.array([1.2])
    check_grads(jax.jit(up_gate_down), arguments, order=2)


@pytest.mark.parametrize("precision", ["highest", "default"])
def test_products_have_the_wanted_precision(precision, draw):
    x = draw(1, 7, 6, 3)
    program = str(jax.make_jaxpr(functools.partial(up_gate_down, precision=precision))(x, x))
    products, exact = program.count("dot_general["), program.count("precision=(Precision.HIGHEST")
    # Two matrices per resampling, and one program for both interpolations.
    assert products == 4 and exact == (4 if precision == "highest" else 0)


def test_wrong_maps_and_methods_are_named(draw):
    x = draw(1, 4, 4, 3)
    with pytest.raises(ShapeError, match=r"maps of the same shape, got \(1, 4, 4, 3\) and \(1, 4, 4, 2\)"):
        up_gate_down(x, x[..., :2])
    with pytest.raises(ShapeError, match=r"expected floating-point images \[N, H, W, C\], got int32"):
        up_gate_down(x.astype(jnp.int32), x)
    with pytest.raises(ConfigError, match="unknown method 'fftt'. Did you mean 'fft'"):
        up_gate_down(x, x, method="fftt")

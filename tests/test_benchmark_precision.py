"""Tests of the precision benchmark: emulated TF32 rounds the right products, and the rows are correct."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas

from aliasfree_jax import create_model
from aliasfree_jax.errors import ConfigError
from benchmarks import precision
from benchmarks.precision import markdown, measure, shifted_images
from benchmarks.tf32 import rounded_products

pytestmark = pytest.mark.slow


def to_ten_bits(x: np.ndarray) -> np.ndarray:
    """Float32 rounded to 10 explicit mantissa bits, to nearest, ties to even."""
    bits = x.view(np.uint32)
    return ((bits + 0xFFF + ((bits >> 13) & 1)) & np.uint32(0xFFFFE000)).view(np.float32)


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal((2, 8, 8), np.float32))


def by_hand(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return to_ten_bits(x).astype(np.float64) @ to_ten_bits(y)


def close(result: jax.Array, expected: np.ndarray) -> bool:
    # Float32 sums of 8 products of order 1. Rounding to 10 bits changes them by 1e-3.
    return bool(np.abs(np.asarray(result) - expected).max() < 1e-5)


@jax.custom_vjp
def with_own_gradient(x, y):
    return x @ y


with_own_gradient.defvjp(lambda x, y: (x @ y, None), lambda _, dz: (dz, dz))


@jax.custom_jvp
def with_own_derivative(x, y):
    return x @ y


with_own_derivative.defjvp(lambda primals, tangents: (primals[0] @ primals[1], tangents[0]))

ONE_PRODUCT = {
    "plain": jnp.matmul,
    "high": lambda x, y: jnp.matmul(x, y, precision="high"),
    "jit": jax.jit(jnp.matmul),
    "checkpoint": jax.checkpoint(jnp.matmul),
    "custom_vjp": with_own_gradient,
    "custom_jvp": with_own_derivative,
    "scan": lambda x, y: jax.lax.scan(lambda carry, row: (carry, row @ y), 0.0, x)[1],
    "map of jit": lambda x, y: jax.lax.map(jax.jit(lambda row: row @ y), x),
    "while": lambda x, y: jax.lax.while_loop(lambda c: c[0] < 1, lambda c: (c[0] + 1, c[1] @ y), (0, x))[1],
    "while condition": lambda x, y: jax.lax.while_loop(
        lambda c: jnp.sum(c[1]) != jnp.sum(x @ y), lambda c: (c[0], x @ y), (0, x)
    )[1],
    "cond": lambda x, y: jax.lax.cond(x[0, 0] == x[0, 0], lambda: x @ y, lambda: x),
    "switch": lambda x, y: jax.lax.switch(1, [lambda: x, lambda: jax.jit(jnp.matmul)(x, y), lambda: y]),
}


@pytest.mark.parametrize("outer", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("name", ONE_PRODUCT)
def test_operands_are_rounded_wherever_the_product_stands(name, outer, pair):
    function = ONE_PRODUCT[name]
    assert close(outer(rounded_products(function))(*pair), by_hand(*pair))
    assert not close(function(*pair), by_hand(*pair))


def test_convolutions_are_rounded(pair):
    def convolve(x, y):  # kernel 1 x 1: a product of [8, 8] matrices
        return jax.lax.conv(x.T[None, :, :, None], y.T[:, :, None, None], (1, 1), "VALID")[0, :, :, 0].T

    assert close(rounded_products(convolve)(*pair), by_hand(*pair))
    assert not close(convolve(*pair), by_hand(*pair))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_highest_precision_and_other_formats_stay_as_they_are(dtype, pair):
    def product(x, y):
        x, y = x.astype(dtype), y.astype(dtype)
        return jnp.matmul(x, y, precision="highest" if dtype == "float32" else None)

    operands = tuple(map(jnp.asarray, pair))
    np.testing.assert_array_equal(rounded_products(product)(*operands), product(*operands))


def test_products_that_cannot_be_reached_are_refused(pair):
    def kernel(x, y, z):
        z[...] = x[...] @ y[...]

    shape = jax.ShapeDtypeStruct((8, 8), "float32")
    product = pallas.pallas_call(kernel, out_shape=shape, interpret=True)
    with pytest.raises(ConfigError, match="products inside 'pallas_call' cannot be rounded"):
        rounded_products(product)(*pair)


def test_trees_go_in_and_out(pair):
    result = rounded_products(lambda tree: {"z": tree["x"] @ tree["y"], "one": 1.0})(
        {"x": pair[0], "y": pair[1]}
    )
    assert close(result["z"], by_hand(*pair)) and result["one"] == 1


def test_shifts_by_whole_pixels_roll():
    images = np.random.default_rng(0).standard_normal((1, 12, 12, 1)).astype(np.float32)
    rolls = [np.roll(images, (i, j), (1, 2)) for i in range(12) for j in range(12)]
    moved = shifted_images(images)
    for batch in moved["integer"]:
        # Tolerance: rounding of an FFT in float64, and of its result.
        assert min(np.abs(batch - roll).max() for roll in rolls) < 1e-6
    for batch in moved["half_pixel"] + moved["fractional"]:
        assert min(np.abs(batch - roll).max() for roll in rolls) > 1e-2


def test_equivariance_errors_grow_with_coarser_precision(monkeypatch):
    monkeypatch.setattr(precision, "FAMILIES", ("convnext_afc",))
    smaller = functools.partial(create_model, depths=(1, 1), widths=(8, 16))  # compiles in half the time
    monkeypatch.setattr(precision, "create_model", smaller)
    rows = {row["precision"]: row for row in measure(quick=True)}
    assert list(rows) == ["float32", "tf32", "bfloat16"]
    for error in ("logit_error", "equivariance_error"):
        values = [rows[mode][error] for mode in rows]
        # Measured 4e-7, 5e-4 and 5e-3 to 7e-3: rounding to 23, 10 and 7 bits.
        assert 0 < values[0] < 1e-5 < 1e-4 < values[1] < values[2] < 0.1
    assert [rows[mode]["emulated"] for mode in rows] == [False, True, False]
    lines = markdown(list(rows.values())).splitlines()
    assert len(lines) == 5 and all(line.count("|") == lines[0].count("|") for line in lines)
    assert "tf32, emulated" in lines[3]

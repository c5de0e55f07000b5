"""The fused activation: the kernel interpreted on the CPU against its twin, and its lowering for CUDA."""

import contextlib
import functools
import io
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.ops import fused_activation
from aliasfree_jax.ops.activation import GELU_QUADRATIC, up_polynomial_down, up_polynomial_down_ref
from aliasfree_jax.ops.fused_activation import fused_up_polynomial_down
from aliasfree_jax.ops.fused_tiles import on_chip_bytes, plan_tiles

pytestmark = pytest.mark.filterwarnings("ignore:The Pallas Triton backend:DeprecationWarning")

interpreted = functools.partial(fused_up_polynomial_down, interpret=True)

# Sides and channels of ConvNeXt's blocks at 224 (pointwise layers commuted: four times the width).
STAGES = [(56, 384), (28, 768), (14, 1536), (7, 3072)]


def close(actual, expected, tolerance):
    """Errors relative to the largest value."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * float(jnp.abs(expected).max()))


def with_gradients(f, x, coefficients, dy):
    def run(x, coefficients, dy):
        y, pull = jax.vjp(f, x, coefficients)
        return y, *pull(dy)

    return jax.jit(run)(x, coefficients, dy)


@pytest.mark.parametrize(
    ("shape", "channels", "degree"),
    [
        ((7, 7), 5, 2),
        ((14, 15), 33, 2),  # three programs an image, the last nearly empty
        ((15, 8), 17, 3),
        ((28, 28), 1, 2),
        ((20, 33), 3, 2),  # padded to 64 columns; two tiles of 32 fine columns a strip
        ((6, 5), 2, 0),
    ],
)
def test_equals_its_twin_with_all_gradients(shape, channels, degree, draw):
    x, dy = draw(2, *shape, channels), draw(2, *shape, channels, seed=1)
    coefficients = draw(channels, degree + 1, seed=2)
    expected = with_gradients(up_polynomial_down, x, coefficients, dy)
    actual = with_gradients(interpreted, x, coefficients, dy)
    for ours, theirs in zip(actual, expected, strict=True):
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        close(ours, theirs, 2e-6)  # float32, sums of up to 10^4 products; 5e-7 measured


def test_equals_the_original_way_in_float64(draw, x64):
    x, dy, coefficients = draw(2, 14, 9, 3), draw(2, 14, 9, 3, seed=1), draw(3, 3, seed=2)
    expected = with_gradients(up_polynomial_down_ref, x, coefficients, dy)
    for ours, theirs in zip(with_gradients(interpreted, x, coefficients, dy), expected, strict=True):
        close(ours, theirs, 1e-13)  # float64, sums of up to 10^3 products


def test_channels_of_a_program_do_not_matter(draw):
    x, coefficients, dy = draw(1, 10, 9, 5), draw(5, 3, seed=1), draw(1, 10, 9, 5, seed=2)
    whole = with_gradients(interpreted, x, coefficients, dy)
    f = functools.partial(interpreted, channels_per_program=2)  # 8 if not given
    for ours, theirs in zip(with_gradients(f, x, coefficients, dy), whole, strict=True):
        close(ours, theirs, 1e-6)  # the same sums in another order at most


def test_images_and_channels_are_independent(draw):
    x, coefficients, run = draw(2, 8, 8, 3), draw(3, 3, seed=1), jax.jit(interpreted)
    changed = run(x.at[1, :, :, 2].set(jnp.nan), coefficients)
    expected = run(x, coefficients)
    np.testing.assert_array_equal(changed[0], expected[0])
    np.testing.assert_array_equal(changed[1, ..., :2], expected[1, ..., :2])


def test_one_row_serves_all_channels(draw):
    x, row, dy = draw(1, 7, 8, 3), jnp.array(GELU_QUADRATIC), draw(1, 7, 8, 3, seed=1)
    y, dx, d_row = with_gradients(interpreted, x, row, dy)
    expected = with_gradients(interpreted, x, jnp.tile(row, (3, 1)), dy)
    np.testing.assert_array_equal(y, expected[0])
    np.testing.assert_array_equal(dx, expected[1])
    close(d_row, expected[2].sum(0), 1e-6)  # one sum of three values


def test_half_precision_stays_near_float32(draw):
    x, dy = draw(1, 14, 14, 6).astype(jnp.bfloat16), draw(1, 14, 14, 6, seed=1).astype(jnp.bfloat16)
    coefficients = draw(6, 3, seed=2)
    y, dx, d_coefficients = with_gradients(interpreted, x, coefficients, dy)
    assert (y.dtype, dx.dtype, d_coefficients.dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)
    exact = with_gradients(up_polynomial_down, x.astype(jnp.float32), coefficients, dy.astype(jnp.float32))
    for ours, theirs in zip((y, dx, d_coefficients), exact, strict=True):
        close(ours.astype(jnp.float32), theirs, 2e-2)  # five roundings to 8 bits: 2^-9 each


def on_a_gpu():
    """Tracing as if for a Hopper GPU; from JAX 0.11 on the lowering asks which."""
    if jax.__version_info__ < (0, 11):
        return contextlib.nullcontext()
    device = jax.sharding.AbstractDevice(device_kind="NVIDIA H100", num_cores=None, platform="gpu")
    return jax.sharding.use_abstract_mesh(jax.sharding.AbstractMesh((), (), abstract_device=device))


@pytest.fixture
def lowered(monkeypatch):
    """Lowers the activation or its gradient for CUDA; returns StableHLO and the kernels' Triton IR."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    printing = functools.partial(fused_activation.pl.pallas_call, debug=True)
    monkeypatch.setattr(fused_activation.pl, "pallas_call", printing)

    def lower(side, channels, dtype, gradient, precision="highest"):
        f = functools.partial(fused_up_polynomial_down, precision=precision)
        x = jax.ShapeDtypeStruct((2, side, side, channels), dtype)
        coefficients = jax.ShapeDtypeStruct((channels, 3), jnp.float32)
        wanted = jax.grad(lambda x, c: f(x, c).astype(jnp.float32).sum(), argnums=(0, 1)) if gradient else f
        with on_a_gpu(), contextlib.redirect_stdout(io.StringIO()) as printed:
            module = jax.jit(wanted).trace(x, coefficients).lower(lowering_platforms=("cuda",))
        return module.as_text(), printed.getvalue()

    return lower


@pytest.mark.parametrize("gradient", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("side", [side for side, _ in STAGES])
def test_lowers_to_triton(side, dtype, gradient, lowered):
    module, kernels = lowered(side, 20, dtype, gradient)  # 20: with and without a ragged last program
    assert "__gpu$xla.gpu.triton" in module
    short = {"float32": "f32", "bfloat16": "bf16"}[dtype]
    products = [line for line in kernels.splitlines() if "= tt.dot" in line]
    assert len(products) == (6 if gradient else 4)  # XLA dropped the unused forward kernel
    types = re.compile(rf"tensor<\d+x\d+x{short}> \* tensor<\d+x\d+x{short}> -> tensor<\d+x\d+xf32>")
    assert all(types.search(line) for line in products)


@pytest.mark.parametrize("gradient", [False, True])
def test_precision_reaches_the_products_in_triton(gradient, lowered):
    """Float32 products are IEEE's (what Triton IR leaves unsaid) at "highest", TF32 below it."""
    below = ("high", "default", None, "TF32_TF32_F32_X3")
    for precision, count in [("highest", 0), *((name, 1) for name in below)]:
        _, kernels = lowered(14, 8, "float32", gradient, precision)
        products = [line for line in kernels.splitlines() if "= tt.dot" in line]
        assert len(products) >= 4
        assert all(line.count("inputPrecision = tf32") == count for line in products), precision


@pytest.mark.parametrize("itemsize", [2, 4])
@pytest.mark.parametrize(("side", "channels"), STAGES)
def test_programs_fit_on_the_chip(side, channels, itemsize):
    tiles = plan_tiles((side, side), channels, 2, itemsize)
    for maps in (1, 2):
        shared, registers = on_chip_bytes(tiles, itemsize, maps)
        assert shared < 163 * 1024  # the least of the GPUs meant: A100
        assert registers <= 128 * 1024  # half of the 64 k registers of a multiprocessor, in bytes
    # Whole transactions of memory in all but the first stage; 8 bytes there.
    assert tiles.channels * itemsize >= (8 if side == 56 else 16)


def test_plan_pads_fine_grids_to_strips_only():
    tiles = plan_tiles((56, 28), 384, 2, 2)
    assert (tiles.height, tiles.width) == (64, 32)
    assert (16 * tiles.strips, tiles.columns * tiles.tiles) == (96, 48)  # 84 and 42


def test_refuses_what_it_cannot_do(draw, monkeypatch):
    x, coefficients = draw(1, 8, 8, 3), draw(3, 3)
    with pytest.raises(ConfigError, match="kernel for GPUs and does not run on 'cpu'; use method='matmul'"):
        fused_up_polynomial_down(x, coefficients)
    with pytest.raises(ConfigError, match=r"200 x 200 \(256 x 256 padded\) are too large.*at most 8192"):
        interpreted(jnp.zeros((1, 200, 200, 3)), coefficients)
    for wrong in (0, 3, 64):
        with pytest.raises(ConfigError, match=f"power of two up to 32 for maps of 8 x 8, got {wrong}"):
            interpreted(x, coefficients, channels_per_program=wrong)
    with pytest.raises(ShapeError, match=r"coefficients \[3, degree \+ 1\] or \[degree \+ 1\], got \[2, 3\]"):
        interpreted(x, coefficients[:2])
    with pytest.raises(ShapeError, match="floating-point images"):
        interpreted(x[0], coefficients)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(ConfigError, match="takes float32 or bfloat16, got float16"):
        fused_up_polynomial_down(x.astype(jnp.float16), coefficients)

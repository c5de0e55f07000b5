"""Ideal filters and resampling: two implementations compared, and the defining properties."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.ops import spectrum
from aliasfree_jax.ops.choices import CHOICES
from aliasfree_jax.ops.resample import (
    apply_matrices,
    ideal_downsample,
    ideal_lowpass,
    ideal_resample,
    ideal_strided_taps,
    ideal_upsample,
)
from aliasfree_jax.ops.shift import fractional_shift

# Matrix products and FFTs of up to 100 samples round differently. Values are of order 1. Each rounds by a few
# units in the last place (2e-16 and 1e-7) times the logarithm of the size.
EXACT = 1e-12
SINGLE = 1e-5

# Odd, even, multiples of 4 and of 8, and the smallest sides. `test_spectrum.py` tests all sides from 1 to 33.
SIZES = [(1, 12), (2, 7), (14, 5), (32, 9)]
MAP = (2, 14, 9, 3)  # several tests share this shape and its compiled programs

OPERATIONS = {
    "lowpass 1/4": functools.partial(ideal_lowpass, cutoff=0.25),
    "lowpass 1/2": functools.partial(ideal_lowpass, cutoff=0.5),
    "lowpass 1": functools.partial(ideal_lowpass, cutoff=1.0),
    "band 6": functools.partial(ideal_lowpass, band=6),
    "resample": functools.partial(ideal_resample, shape=(10, 13)),
    "upsample 2": functools.partial(ideal_upsample, factor=2),
    "upsample 3, original masks": functools.partial(ideal_upsample, factor=3, masks="original"),
    "downsample 2": functools.partial(ideal_downsample, strides=2),
    "downsample 3": functools.partial(ideal_downsample, strides=3),
    "downsample 2, any size": functools.partial(ideal_downsample, strides=2, any_size=True),
    "shift": functools.partial(fractional_shift, shift=(0.3, -7.75)),
}


@functools.partial(jax.jit, static_argnames="method")
def all_operations(x: jax.Array, method: str) -> dict[str, jax.Array]:
    return {name: operation(x, method=method) for name, operation in OPERATIONS.items()}


def compare(x: jax.Array, tolerance: float) -> None:
    products, transforms = (jax.device_get(all_operations(x, method)) for method in ("matmul", "fft"))
    for name in OPERATIONS:
        assert products[name].dtype == transforms[name].dtype == x.dtype
        np.testing.assert_allclose(products[name], transforms[name], atol=tolerance, err_msg=name)


@pytest.mark.parametrize("size", SIZES, ids="{0[0]}x{0[1]}".format)
def test_matrix_products_equal_ffts_in_float64(size, draw, x64):
    compare(draw(2, *size, 3), EXACT)


def test_matrix_products_equal_ffts_in_float32(draw):
    compare(draw(*MAP), SINGLE)


def test_auto_uses_the_fft_from_its_crossover_on(draw, monkeypatch):
    monkeypatch.setitem(CHOICES, "cpu", dataclasses.replace(CHOICES["cpu"], fft_from=8))

    def uses_fft(side: int, method: str) -> bool:
        return "fft" in str(
            jax.make_jaxpr(functools.partial(ideal_lowpass, method=method))(draw(1, 4, side, 1))
        )

    assert [uses_fft(side, "auto") for side in (7, 8)] == [False, True]
    assert [uses_fft(side, "matmul") for side in (7, 8)] == [False, False]
    assert [uses_fft(side, "fft") for side in (7, 8)] == [True, True]


def test_jit_equals_eager(draw):
    x = draw(*MAP)
    compiled = all_operations(x, "matmul")
    for name, operation in OPERATIONS.items():
        np.testing.assert_allclose(
            operation(x), compiled[name], atol=1e-6, err_msg=name
        )  # rounding of float32


@pytest.mark.parametrize("method", ["matmul", "fft"])
def test_bfloat16_in_bfloat16_out(method, draw):
    x = draw(*MAP)
    rough = all_operations(x.astype(jnp.bfloat16), method)
    for name, expected in all_operations(x, method).items():
        assert rough[name].dtype == jnp.bfloat16, name
        # 8 bits of mantissa: the map, the matrix and the value between both products are rounded.
        np.testing.assert_allclose(rough[name].astype(jnp.float32), expected, atol=0.06, err_msg=name)


def test_bfloat16_products_accumulate_in_float32():
    ones = jnp.ones((1, 1, 1000, 1), jnp.bfloat16)

    def mean(x: jax.Array) -> jax.Array:
        return apply_matrices(x, np.ones((1, 1)), np.full((1, 1000), 2.0**-10))

    assert float(mean(ones)[0, 0, 0, 0]) == pytest.approx(1000 / 1024, rel=2**-8)  # bfloat16 sums stop at 256
    # CPUs accumulate in float32 by default; other devices need the argument.
    assert str(jax.make_jaxpr(mean)(ones)).count("preferred_element_type=float32") == 2


def test_the_lower_precision_reaches_the_products(draw):
    text = str(
        jax.make_jaxpr(functools.partial(ideal_resample, shape=(4, 4), precision="default"))(draw(1, 8, 8, 1))
    )
    assert "HIGHEST" not in text.upper()
    text = str(jax.make_jaxpr(functools.partial(ideal_resample, shape=(4, 4)))(draw(1, 8, 8, 1)))
    assert text.upper().count("HIGHEST") >= 2


@pytest.mark.parametrize(("n", "m"), [(5, 5), (6, 6), (5, 8), (14, 21), (1, 4), (2, 3)])
def test_resampling_up_and_back_is_the_identity(n, m, draw, x64):
    x = draw(1, n, n, 2)
    back = ideal_resample(ideal_resample(x, (m, m)), (n, n))
    if n % 2 == 0 and m > n:  # the Nyquist frequency is ambiguous on the way back, so it is dropped
        assert float(jnp.abs(back - x).max()) > 1e-2
        x = ideal_resample(ideal_resample(x, (n - 1, n - 1)), (n, n))
        back = ideal_resample(ideal_resample(x, (m, m)), (n, n))
    np.testing.assert_allclose(back, x, atol=EXACT)


@pytest.mark.parametrize("factor", [1, 2, 3])
@pytest.mark.parametrize("size", [(7, 8), (1, 2)], ids="{0[0]}x{0[1]}".format)
def test_interpolation_keeps_the_samples(size, factor, draw, x64):
    x = draw(2, *size, 3)
    y = ideal_upsample(x, factor)
    assert y.shape == (2, size[0] * factor, size[1] * factor, 3)
    np.testing.assert_allclose(y[:, ::factor, ::factor], x, atol=EXACT)


@pytest.mark.parametrize("n", [7, 14])
def test_the_originals_wrong_masks_do_not_keep_the_samples(n, draw, x64):
    factor = 4 if n == 7 else 3
    x = draw(1, n, n, 1)
    y = ideal_upsample(x, factor, masks="original")[:, ::factor, ::factor]
    assert float(jnp.abs(y - x).max()) > 1e-2


def test_interpolation_passes_a_wave_through_its_samples(x64):
    def wave(n: int) -> jax.Array:
        t = 2 * jnp.pi * jnp.arange(n) / n
        return (jnp.cos(3 * t + 1)[:, None] * jnp.sin(2 * t)[None, :])[None, :, :, None]

    for n, m in [(8, 20), (20, 8), (9, 7)]:
        np.testing.assert_allclose(ideal_resample(wave(n), (m, m)), wave(m), atol=EXACT)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_constants_pass_unchanged(operation, x64):
    y = OPERATIONS[operation](jnp.full((1, 9, 6, 1), 3.0))
    np.testing.assert_allclose(y, 3.0, atol=EXACT)


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(12, 24), (9, 14)], ids="{0[0]}x{0[1]}".format)
def test_downsampling_is_filtering_and_dropping(size, stride, draw, x64):
    x = draw(2, *size, 3)
    expected = ideal_lowpass(x, 1 / stride)[:, ::stride, ::stride]
    np.testing.assert_allclose(ideal_downsample(x, stride), expected, atol=EXACT)


@pytest.mark.parametrize("size", [(8, 16), (24, 32)], ids="{0[0]}x{0[1]}".format)
@pytest.mark.parametrize("stride", [2, 4])
def test_any_size_is_the_same_where_the_stride_divides_evenly(size, stride, draw, x64):
    x = draw(1, *size, 2)
    np.testing.assert_allclose(
        ideal_downsample(x, stride, any_size=True), ideal_downsample(x, stride), atol=EXACT
    )


SHIFTS = [(1.0, 0.0), (0.5, 0.5), (-1 / 3, 2 / 3), (0.123, 7.77)]


def commutes(down, x: jax.Array, shift: tuple[float, float]) -> float:
    """Returns the largest difference between shifting before and after downsampling."""
    y = down(x)
    scaled = tuple(
        s * after / before for s, after, before in zip(shift, y.shape[1:3], x.shape[1:3], strict=True)
    )
    return float(jnp.abs(down(fractional_shift(x, shift)) - fractional_shift(y, scaled)).max())


@pytest.mark.parametrize("stride", [2, 3, 4, 5])
def test_downsampling_commutes_with_every_shift(stride, draw, x64):
    # 4, 5, 6 and 7 outputs: with and without a Nyquist frequency, at sides of every residue modulo 4.
    for outputs in [(4, 7), (6, 5)]:
        x = draw(1, stride * outputs[0], stride * outputs[1], 1)
        for shift in SHIFTS:
            assert commutes(functools.partial(ideal_downsample, strides=stride), x, shift) < EXACT


def test_any_size_commutes_where_the_stride_does_not_divide(draw, x64):
    for size, stride in [((7, 9), 2), ((25, 10), 4)]:
        x = draw(1, *size, 1)
        for shift in SHIFTS:
            assert (
                commutes(functools.partial(ideal_downsample, strides=stride, any_size=True), x, shift) < EXACT
            )
    assert commutes(ideal_downsample, draw(1, 25, 25, 1), (0.5, 0.5)) > 1e-2  # not exact, like the original
    assert (
        commutes(lambda x: x[:, ::2, ::2], draw(1, 24, 24, 1), (0.5, 0.5)) > 1e-2
    )  # negative control: plain subsampling


@pytest.mark.parametrize("any_size", [False, True])
@pytest.mark.parametrize(("taps", "first", "stride"), [(2, 0, 2), (4, -1, 4), (4, -1, 2), (3, -1, 2)])
def test_strided_taps_feed_a_convolution_on_the_coarse_grid(taps, first, stride, any_size, draw, x64):
    x, kernel = draw(2, 16, 9, 3), draw(taps, taps, 3, 4, seed=1)
    correlate = functools.partial(
        jax.lax.conv_general_dilated, rhs=kernel, padding="VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    border = (-first, taps - 1 + first)
    full = correlate(jnp.pad(x, ((0, 0), border, border, (0, 0)), mode="wrap"), window_strides=(1, 1))
    expected = ideal_downsample(full, stride, any_size=any_size)
    laid_out = ideal_strided_taps(x, stride, taps=taps, first=(first, first), any_size=any_size)
    np.testing.assert_allclose(correlate(laid_out, window_strides=(taps, taps)), expected, atol=EXACT)


def test_the_originals_small_examples(x64):
    delta = jnp.zeros((1, 8, 8, 1)).at[0, 2, 3, 0].set(1.0)
    row = ideal_lowpass(delta, 0.5)[0, 2, :, 0]
    printed = [-0.01941626, 0.046875, 0.11316626, 0.140625, 0.11316626, 0.046875, -0.01941626, -0.046875]
    np.testing.assert_allclose(row, printed, atol=1e-8)
    interpolated = {
        4: [1, 0.60355339, 0, -0.10355339, 0, -0.10355339, 0, 0.60355339],
        3: [1, 2 / 3, 0, -1 / 3, 0, 2 / 3],
    }
    for n, printed in interpolated.items():
        up = ideal_upsample(jnp.zeros((1, n, n, 1)).at[0, 0, 0, 0].set(1.0), 2)
        np.testing.assert_allclose(up[0, 0, :, 0], printed, atol=1e-8)


def test_gradients_are_those_of_the_linear_map(draw, x64):
    check_grads(functools.partial(ideal_resample, shape=(9, 4)), (draw(1, 6, 6, 1),), order=1)


@pytest.mark.parametrize("cutoff", [0.0, -0.5, 1.5])
def test_cutoffs_are_fractions_of_nyquist(cutoff, draw):
    with pytest.raises(ConfigError, match=rf"cutoff must lie in \(0, 1\].*got {cutoff}"):
        ideal_lowpass(draw(1, 4, 4, 1), cutoff)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_wrong_images_and_methods_are_named(operation, draw):
    with pytest.raises(
        ShapeError, match=r"expected floating-point images \[N, H, W, C\], got float32\[4, 4, 1\]"
    ):
        OPERATIONS[operation](draw(4, 4, 1))
    with pytest.raises(ShapeError, match=r"got int32\[1, 8, 8, 1\]"):
        OPERATIONS[operation](jnp.zeros((1, 8, 8, 1), jnp.int32))
    with pytest.raises(ConfigError, match="unknown method 'matmull'. Did you mean 'matmul'"):
        OPERATIONS[operation](draw(1, 8, 8, 1), method="matmull")


def test_impossible_targets_are_named(draw):
    x = draw(1, 4, 4, 1)
    with pytest.raises(ShapeError, match=r"cannot resample to \(0, 4\): both sides must be at least 1"):
        ideal_resample(x, (0, 4))
    with pytest.raises(
        ConfigError, match="factor must be an integer of at least 1, or a pair of them, got 0"
    ):
        ideal_upsample(x, 0)
    with pytest.raises(ConfigError, match="unknown masks 'orginal'. Did you mean 'original'"):
        ideal_upsample(x, 2, masks="orginal")


def test_sizes_up_to_224_stay_accurate(draw, x64):
    # Products of positions and frequencies reach 25 000. Their rounding causes angle errors of at most 1e-12.
    x = draw(1, 224, 3, 1)
    assert spectrum.exact_grid(224, 2) == 336
    up = ideal_resample(x, (336, 3))
    np.testing.assert_allclose(up[:, ::3], x[:, ::2], atol=EXACT)


@pytest.mark.parametrize("channels", [1, 3, 16])
def test_transposed_and_repeated_products_are_one_function(channels, draw, x64, monkeypatch):
    x, results = draw(2, 24, 20, channels), []
    for least in (0.0, float("inf")):
        row = dataclasses.replace(CHOICES["cpu"], repeat_matrix_from=least)
        monkeypatch.setitem(CHOICES, "cpu", row)
        y, backward = jax.vjp(lambda x: ideal_resample(x, (36, 11)), x)
        results.append((y, backward(jnp.sin(y))[0]))
    for repeated, transposed in zip(*results, strict=True):
        np.testing.assert_allclose(repeated, transposed, atol=EXACT)

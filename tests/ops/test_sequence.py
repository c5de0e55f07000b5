"""Operations on sequences: values and equivariance."""

import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.ops import sequence
from aliasfree_jax.ops.blurring import binomial_taps

# float64 rounding of sums of at most 30 terms of order 1.
EXACT = 1e-12


@pytest.mark.parametrize("padding", ["CIRCULAR", "REFLECT", "REPLICATE", "ZERO"])
@pytest.mark.parametrize(("size", "stride"), [(1, 2), (2, 2), (3, 1), (3, 2), (4, 3), (7, 2)])
def test_blur_is_a_correlation(size, stride, padding, draw, x64):
    x = draw(2, 13, 3)
    mode = {"CIRCULAR": "wrap", "REFLECT": "reflect", "REPLICATE": "edge", "ZERO": "constant"}[padding]
    wide = np.pad(np.asarray(x), ((0, 0), ((size - 1) // 2, size // 2), (0, 0)), mode=mode)
    expected = sum(tap * wide[:, i : i + 13] for i, tap in enumerate(binomial_taps(size)))[:, ::stride]
    np.testing.assert_allclose(sequence.blur_1d(x, size, stride, padding), expected, atol=EXACT)


@pytest.mark.parametrize("length", [7, 12])
def test_ideal_filters_by_fft(length, draw, x64):
    x = np.asarray(draw(2, length, 3))
    spectrum = np.fft.rfft(x, axis=1)
    spectrum[:, int(length / 4 + 0.999) :] = 0
    expected = np.fft.irfft(spectrum, length, axis=1)
    np.testing.assert_allclose(sequence.ideal_lowpass_1d(jnp.asarray(x)), expected, atol=EXACT)
    fine = sequence.ideal_resample_1d(jnp.asarray(x), 3 * length)
    np.testing.assert_allclose(fine[:, ::3], x, atol=EXACT)
    np.testing.assert_allclose(
        sequence.ideal_resample_1d(jnp.asarray(expected), 2 * length)[:, ::2], expected, atol=EXACT
    )


@pytest.mark.parametrize("stride", [2, 3, 5])
def test_polyphase_sampling_commutes_with_every_shift(stride, draw):
    x = draw(1, 6 * stride, 2)
    expected = None
    for shift in range(6 * stride):
        moved = jnp.roll(x, shift, axis=1)
        y, phase = sequence.polyphase_downsample_1d(moved, strides=stride)
        np.testing.assert_array_equal(y, moved[:, int(phase[0]) :: stride])
        back = jnp.roll(sequence.polyphase_upsample_1d(y, phase, strides=stride), -shift, axis=1)
        expected = back if expected is None else expected
        np.testing.assert_array_equal(back, expected)
    again, _ = sequence.polyphase_downsample_1d(x, phase=jnp.array([1]), strides=stride)
    np.testing.assert_array_equal(again, x[:, 1::stride])


def test_odd_lengths_are_padded(draw):
    x = draw(1, 5, 1)
    y, _ = sequence.polyphase_downsample_1d(x, phase=jnp.array([1]), padding="ZERO")
    assert y.shape == (1, 3, 1) and float(y[0, 2, 0]) == 0

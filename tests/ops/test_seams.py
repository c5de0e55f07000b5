"""Borders and Nyquist bins: cases where an error by one sample or one bin would matter."""

import jax
import numpy as np
import pytest

from aliasfree_jax.ops.padding import pad_windows
from aliasfree_jax.ops.resample import remove_nyquist


@pytest.mark.parametrize(("side", "size", "stride"), [(7, 2, 1), (8, 3, 2), (9, 4, 1)])
def test_same_padding_is_xlas(side, size, stride, draw):
    x = draw(1, side, side, 1)
    amount = jax.lax.padtype_to_pads((side,), (size,), (stride,), "SAME")[0]
    expected = np.pad(x, ((0, 0), amount, amount, (0, 0)))
    np.testing.assert_array_equal(pad_windows(x, (size, size), (stride, stride), "SAME"), expected)


@pytest.mark.parametrize("side", [2, 6])
def test_no_nyquist_frequency_is_left(side, x64):
    alternating = np.where(np.arange(side) % 2, -1.0, 1.0)
    constant = np.ones(side)
    for rows, columns in ((alternating, constant), (constant, alternating), (alternating, alternating)):
        wave = (rows[:, None] * columns)[None, :, :, None]
        assert np.abs(remove_nyquist(wave)).max() < 1e-14  # float64 rounding of sums of at most six ones
        np.testing.assert_allclose(remove_nyquist(wave + 3), np.full_like(wave, 3), atol=1e-14)

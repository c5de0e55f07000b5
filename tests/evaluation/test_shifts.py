"""The draws and their application."""

import jax
import numpy as np
import pytest

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.evaluation.shifts import fractional_shifts, integer_shifts, shift_images

KEY = jax.random.key(3)


def test_integer_shifts_are_uniform_without_zero():
    drawn = np.asarray(integer_shifts(KEY, 450, 20, 1))
    assert drawn.shape == (450, 20, 2) and drawn.dtype == np.int32
    cells, counts = np.unique(drawn.reshape(-1, 2), axis=0, return_counts=True)
    assert {tuple(c) for c in cells} == {(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)} - {(0, 0)}
    # 9000 draws of 8 equally likely shifts: 1125 each, standard deviation 31; five of them.
    assert np.abs(counts - 1125).max() < 160


def test_integer_shifts_span_the_range():
    drawn = np.asarray(integer_shifts(KEY, 200, 20, 3))
    assert {*drawn[..., 0].flat} == {*drawn[..., 1].flat} == {*range(-3, 4)}


@pytest.mark.parametrize("grid", [2, 3, 4])
def test_grid_shifts_are_whole_plus_fraction(grid):
    drawn = np.asarray(fractional_shifts(KEY, 300, 10, 2, grid), np.float64).reshape(-1, 2)
    assert np.abs(drawn * grid - np.round(drawn * grid)).max() < 1e-5  # float32 rounding of 1/3
    steps = np.round(drawn * grid).astype(int)
    parts = {tuple(pair) for pair in steps % grid}
    assert parts == {(p, q) for p in range(grid) for q in range(grid)} - {(0, 0)}
    assert {*(steps // grid).flat} == {*range(-2, 3)}


def test_real_shifts_fill_the_range():
    drawn = np.asarray(fractional_shifts(KEY, 1000, 4, 2, None))
    assert drawn.min() >= -2 and drawn.max() < 3
    counts, _ = np.histogram(drawn, bins=5, range=(-2, 3))
    # 8000 numbers in 5 equal bins: 1600 each, standard deviation 36; five of them.
    assert np.abs(counts - 1600).max() < 180


@pytest.mark.parametrize("grid", [0, 3, None])  # 0 stands for whole pixels
def test_draws_do_not_depend_on_the_batch_size(grid):
    def draw(batch, first):
        if grid == 0:
            return np.asarray(integer_shifts(KEY, 3, batch, 5, first))
        return np.asarray(fractional_shifts(KEY, 3, batch, 5, grid, first))

    whole = draw(6, 0)
    np.testing.assert_array_equal(whole, np.concatenate([draw(2, 0), draw(4, 2)], axis=1))
    assert len(np.unique(whole.reshape(-1, 2), axis=0)) > 1


def test_integer_shift_is_numpy_roll_bit_for_bit():
    images = np.random.default_rng(0).normal(size=(4, 6, 9, 2)).astype(np.float32)
    shift = np.array([[1, 0], [-2, 3], [5, -8], [7, 20]], np.int32)
    expected = np.stack([np.roll(image, s, axis=(0, 1)) for image, s in zip(images, shift, strict=True)])
    np.testing.assert_array_equal(shift_images(images, shift), expected)


def test_fractional_shift_moves_a_wave_down_and_right():
    i, j = np.meshgrid(np.arange(8), np.arange(12), indexing="ij")

    def wave(down, right):
        return np.cos(2 * np.pi * (i - down) / 8 + 1) + np.sin(2 * np.pi * 3 * (j - right) / 12)

    shift = np.array([[0.25, 0.0], [1.5, -2.75]], np.float32)
    images = np.repeat(wave(0, 0)[None, :, :, None], 2, axis=0).astype(np.float32)
    expected = np.stack([wave(*s) for s in shift])[..., None]
    # float32 products of 8 and 12 terms of size 1.
    np.testing.assert_allclose(shift_images(images, shift), expected, atol=5e-6)


def test_impossible_draws_are_explained():
    with pytest.raises(ConfigError, match="at least 1 pixel, got 0"):
        integer_shifts(KEY, 1, 1, 0)
    with pytest.raises(ConfigError, match="got -1 and 2"):
        fractional_shifts(KEY, 1, 1, -1, 2)
    with pytest.raises(ConfigError, match="grid >= 2, got 0 and 1"):
        fractional_shifts(KEY, 1, 1, 0, 1)
    with pytest.raises(ShapeError, match="one .* pair an image"):
        shift_images(np.zeros((2, 4, 4, 1), np.float32), np.zeros((3, 2), np.int32))

"""Tests of the kinds of shifts against NumPy."""

import numpy as np
import pytest

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.evaluation.shifting import Bilinear, Circular, Crop, ZeroFilled, centre
from aliasfree_jax.evaluation.trial import moved_rows


def move(shifting, images, where):
    return np.asarray(moved_rows(shifting, None, images, np.arange(len(images)), np.asarray(where)))


def noise(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def test_integer_shift_is_numpy_roll_bit_for_bit():
    images = np.random.default_rng(0).normal(size=(4, 6, 9, 2)).astype(np.float32)
    shift = np.array([[1, 0], [-2, 3], [5, -8], [7, 20]], np.int32)
    expected = np.stack([np.roll(image, s, axis=(0, 1)) for image, s in zip(images, shift, strict=True)])
    np.testing.assert_array_equal(move(Circular(), images, shift), expected)


def test_fractional_shift_moves_a_wave_down_and_right():
    i, j = np.meshgrid(np.arange(8), np.arange(12), indexing="ij")

    def wave(down, right):
        return np.cos(2 * np.pi * (i - down) / 8 + 1) + np.sin(2 * np.pi * 3 * (j - right) / 12)

    shift = np.array([[0.25, 0.0], [1.5, -2.75]], np.float32)
    images = np.repeat(wave(0, 0)[None, :, :, None], 2, axis=0).astype(np.float32)
    expected = np.stack([wave(*s) for s in shift])[..., None]
    # Tolerance: float32 sums of 8 and 12 terms of size 1.
    np.testing.assert_allclose(move(Circular(), images, shift), expected, atol=5e-6)


@pytest.mark.parametrize("fill", [(0.0,), (-1.0, 2.0)])
def test_what_comes_in_behind_the_border_is_the_filling(fill):
    images = noise(3, 5, 6, 2)
    out = move(ZeroFilled(fill=fill), images, np.int32([[0, 0], [2, -1], [-4, 5]]))
    np.testing.assert_array_equal(out[0], images[0])
    expected = np.full((2, 5, 6, 2), fill, np.float32)
    expected[0, 2:, :-1] = images[1, :-2, 1:]
    expected[1, :1, 5:] = images[2, 4:, :1]
    np.testing.assert_array_equal(out[1:], expected)


def test_a_window_moves_against_its_content():
    images, margin = noise(3, 9, 10, 2), 2
    out = move(Crop(margin), images, np.int32([[0, 0], [2, -1], [-2, 2]]))
    np.testing.assert_array_equal(out[0], centre(images, margin)[0])
    np.testing.assert_array_equal(
        out[1], images[1, 0:5, 3:9]
    )  # the content moves down, so the window starts higher
    np.testing.assert_array_equal(out[2], images[2, 4:9, 0:6])


@pytest.mark.parametrize("margin", [0, 2])
def test_bilinear_shifts_by_whole_pixels_move_samples(margin):
    images = noise(2, 8, 9, 3)
    where = np.int32([[1, -2], [-1, 2]])
    whole = move(Crop(margin) if margin else ZeroFilled(), images, where)
    np.testing.assert_allclose(move(Bilinear(margin), images, where.astype(np.float32)), whole, atol=1e-6)


def test_bilinear_shifts_average_neighbours():
    images = noise(1, 6, 6, 1)
    inner = move(Bilinear(1), images, np.float32([[0.25, 0.5]]))[0, ..., 0]
    x = images[0, ..., 0]
    rows = 0.75 * x[1:5] + 0.25 * x[0:4]  # the content moves down by 1/4, so the row above enters
    np.testing.assert_allclose(inner, 0.5 * rows[:, 1:5] + 0.5 * rows[:, 0:4], atol=1e-6)
    # Without a margin, the border is mixed with the fill value.
    filled = move(Bilinear(fill=(3.0,)), images, np.float32([[0.25, 0]]))[0, 0, :, 0]
    np.testing.assert_allclose(filled, 0.75 * x[0] + 0.25 * 3, atol=1e-6)


@pytest.mark.parametrize(
    ("shifting", "where", "message"),
    [
        (Circular(), [[9, 0]], "shift of 9 pixels is too large: the shorter side of the images has 8"),
        (ZeroFilled(), [[0, -8]], "nothing of an image with a side of 8 pixels would be left"),
        (ZeroFilled(), [[0.5, 0]], "ZeroFilled needs whole pixels, got float"),
        (Crop(2), [[3, 0]], "shift of 3 pixels is too large: the images extend 2 pixels beyond"),
        (Crop(2), [[0.5, 0]], "Crop needs whole pixels"),
        (Bilinear(2), [[0, 2.5]], "shift of 2.5 pixels is too large"),
        (Bilinear(), [[0, 8.5]], "nothing of an image with a side of 8 pixels would be left"),
    ],
)
def test_impossible_shifts_are_explained(shifting, where, message):
    with pytest.raises(ConfigError, match=message):
        shifting.check((1, 8, 9, 3), np.array(where)[None])


def test_images_smaller_than_the_window_and_its_margin_are_refused():
    with pytest.raises(ShapeError, match=r"more than 8 pixels a side .* margin of 4.* got \[1, 8, 9, 3\]"):
        move(Crop(4), noise(1, 8, 9, 3), np.int32([[0, 0]]))
    with pytest.raises(ShapeError, match="pair per image"):
        move(Circular(), noise(2, 4, 4, 1), np.zeros((2, 3), np.int32))

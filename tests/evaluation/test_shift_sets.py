"""Tests of sets of shifts."""

import jax
import numpy as np
import pytest

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.evaluation.shift_sets import (
    Grid,
    Stream,
    fractions,
    halves,
    random_fraction,
    random_in_box,
    random_integer,
    square,
)

KEY = jax.random.key(3)


def test_integer_shifts_are_uniform_without_zero():
    drawn = random_integer(450, 1, KEY).draw(np.arange(20))
    assert drawn.shape == (450, 20, 2) and drawn.dtype == np.int32
    cells, counts = np.unique(drawn.reshape(-1, 2), axis=0, return_counts=True)
    assert {tuple(c) for c in cells} == {(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1)} - {(0, 0)}
    # 9000 draws of 8 equally likely shifts: 1125 each, with standard deviation 31. Tolerance: five of these.
    assert np.abs(counts - 1125).max() < 160


def test_integer_shifts_span_the_range():
    drawn = random_integer(200, 3, KEY).draw(np.arange(20))
    assert {*drawn[..., 0].flat} == {*drawn[..., 1].flat} == {*range(-3, 4)}


@pytest.mark.parametrize("grid", [2, 3, 4])
def test_grid_shifts_are_whole_plus_fraction(grid):
    drawn = random_fraction(300, 2, grid, KEY).draw(np.arange(10)).astype(np.float64).reshape(-1, 2)
    assert np.abs(drawn * grid - np.round(drawn * grid)).max() < 1e-5  # float32 rounding of 1/3
    steps = np.round(drawn * grid).astype(int)
    parts = {tuple(pair) for pair in steps % grid}
    assert parts == {(p, q) for p in range(grid) for q in range(grid)} - {(0, 0)}
    assert {*(steps // grid).flat} == {*range(-2, 3)}


def test_real_shifts_fill_the_range():
    drawn = random_fraction(1000, 2, None, KEY).draw(np.arange(4))
    assert drawn.min() >= -2 and drawn.max() < 3
    counts, _ = np.histogram(drawn, bins=5, range=(-2, 3))
    # 8000 numbers in 5 equal bins: 1600 each, with standard deviation 36. Tolerance: five of these.
    assert np.abs(counts - 1600).max() < 180


@pytest.mark.parametrize("grid", [0, 3, None])  # 0 means whole pixels
def test_draws_do_not_depend_on_the_batch_size(grid):
    def draw(batch, first):
        drawn = random_integer(3, 5, KEY) if grid == 0 else random_fraction(3, 5, grid, KEY)
        return drawn.draw(first + np.arange(batch))

    whole = draw(4, 0)
    np.testing.assert_array_equal(whole, np.concatenate([draw(2, 0), draw(2, 2)], axis=1))
    assert len(np.unique(whole.reshape(-1, 2), axis=0)) > 1


def test_squares_hold_every_shift_once_from_the_inside_out():
    points = square(2).points
    assert len(points) == 24 and len(np.unique(points, axis=0)) == 24 and points.dtype == np.int32
    rings = np.abs(points).max(1)
    assert [int((rings == r).sum()) for r in (0, 1, 2)] == [0, 8, 16]  # ring s has 8 s shifts
    assert (np.diff(rings) >= 0).all()


@pytest.mark.parametrize("side", [5, 6])
def test_round_the_circle_every_roll_comes_once(side):
    for radius in (side // 2, side, 3 * side):
        points = square(radius, side).points % side
        assert len(points) == len(np.unique(points, axis=0)) == side * side - 1
    assert len(square(1, side).points) == 8
    points = np.round(2 * halves(side, side).points).astype(int) % (2 * side)
    assert len(points) == len(np.unique(points, axis=0)) == 3 * side * side


def test_halves_and_fractions():
    points = halves(1).points
    assert len(points) == 25 - 9 and not (points == np.round(points)).all(1).any()
    assert {tuple(p) for p in fractions(2).points} == {(0, 0.5), (0.5, 0), (0.5, 0.5)}
    assert len(fractions(4).points) == 15


def test_scattering_changes_the_order_only():
    grid = square(2)
    scattered = grid.scattered().points
    assert (scattered != grid.points).any()
    assert {tuple(p) for p in scattered} == {tuple(p) for p in grid.points}
    np.testing.assert_array_equal(scattered, grid.scattered().points)


def test_a_stream_draws_for_a_whole_batch():
    stream, numbers = np.random.RandomState(0), np.arange(8, 14)
    shared = Stream(2, lambda: stream.randint(-32, 32, size=(2, 2)))
    # The first draws of APS with its seed 0, computed once with NumPy's legacy generator.
    np.testing.assert_array_equal(shared.draw(numbers)[:, 0], [[12, 15], [21, -32]])
    np.testing.assert_array_equal(shared.draw(numbers)[:, 5], [[-29, 27], [-29, 7]])


def test_numbers_in_a_box_are_drawn_for_each_parameter():
    drawn = random_in_box(500, (-30, 0, 2), (30, 1, 2.5), KEY).draw(np.arange(4))
    assert drawn.shape == (500, 4, 3)
    low, high = drawn.min((0, 1)), drawn.max((0, 1))
    assert (low >= [-30, 0, 2]).all() and (high <= [30, 1, 2.5]).all()
    assert (high - low > 0.9 * np.array([60, 1, 0.5])).all()


def test_impossible_draws_are_explained():
    with pytest.raises(ConfigError, match="at least 1 pixel, got 0"):
        random_integer(1, 0, KEY)
    with pytest.raises(ConfigError, match="got -1 and 2"):
        random_fraction(1, -1, 2, KEY)
    with pytest.raises(ConfigError, match="grid >= 2, got 0 and 1"):
        random_fraction(1, 0, 1, KEY)
    with pytest.raises(ConfigError, match="shifts must be at least 1 per image, got 0"):
        random_integer(0, 1, KEY)
    with pytest.raises(ConfigError, match="radius .* at least 1 pixel, got 0"):
        square(0)
    with pytest.raises(ConfigError, match="n >= 2, got n = 1"):
        fractions(1)
    with pytest.raises(ConfigError, match=r"list of shifts \[K, parameters\], K > 0, got \[0, 2\]"):
        Grid(np.zeros((0, 2)))

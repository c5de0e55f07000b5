"""Tests of the equivariance error of a map."""

import numpy as np
import pytest

from aliasfree_jax.evaluation.alignment import displacements, equivariance_error, moved_along, tolerance
from aliasfree_jax.ops.resample import remove_nyquist
from aliasfree_jax.ops.shift import fractional_shift


@pytest.mark.parametrize("sides", [(8, 8), (7, 10)])
def test_maps_move_along_as_fractional_shift_moves_them(sides, draw, x64):
    maps, by = draw(3, *sides, 2), np.array([[1, 0], [0.3, -2.5], [11.25, 0.5]])
    ours = moved_along(np.fft.fft2(np.asarray(maps), axes=(1, 2)), by)
    np.testing.assert_allclose(ours, fractional_shift(maps, by), atol=1e-13)  # rounding of sums of 10


def test_where_a_map_may_have_moved():
    assert displacements(1, 8, 8) == pytest.approx([1])  # there is no grid to choose
    assert sorted(displacements(1, 4, 8)) == pytest.approx([0, 0.5, 1])
    assert displacements(0.5, 16, 8) == pytest.approx([1])
    assert displacements(3, 5, 9) == pytest.approx([5 / 3, 1, 2])


def test_a_map_that_is_too_far_away_is_not_taken_for_aligned(draw, x64):
    still = np.asarray(remove_nyquist(draw(1, 8, 8, 2)))
    spectrum = np.fft.fft2(still, axes=(1, 2))
    for pixels, fits in (
        (0.5, True),
        (1.5, True),
        (2.5, True),
        (3.5, False),
        (2, False),
    ):  # pixels of the image
        moved = moved_along(spectrum, np.array([[pixels / 2, 0]]))
        error, aligned = equivariance_error(still, moved, (1.5, 0), (1, 16, 16, 3), 1e-9)
        assert (error < 1e-12) == fits and (not fits or aligned == (pixels != 1.5))


def test_numbers_that_are_not_finite_are_no_agreement():
    still = np.ones((1, 4, 4, 1))
    for bad in (np.nan, np.inf):
        assert equivariance_error(still, still * bad, (1, 0), (1, 4, 4, 1), 1e-9) == (np.inf, False)
        assert equivariance_error(still * bad, still * bad, (1, 0), (1, 4, 4, 1), 1e-9) == (np.inf, False)


def test_the_tolerance_lies_between_rounding_and_aliasing():
    assert 200 * 1e4 * np.finfo(np.float64).eps < tolerance("float64") < 1e-6 * 1e-2
    assert tolerance("float32") == pytest.approx(1.2e-4, rel=0.01)

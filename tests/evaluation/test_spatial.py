"""Tests of rotations, scalings and translations with a border."""

import numpy as np
import pytest
from classifiers import labelled, smooth_noise, strided

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.evaluation.adversarial import spatial_attack
from aliasfree_jax.evaluation.evaluator import evaluate
from aliasfree_jax.evaluation.shifting import Bilinear, Warp
from aliasfree_jax.evaluation.trial import moved_rows
from aliasfree_jax.ops.shift import bilinear_sample


def warp(image, down=0.0, right=0.0, degrees=0.0, log_scale=0.0, **options):
    where = np.float32([[down, right, degrees, log_scale]])
    return np.asarray(moved_rows(Warp(**options), None, image[None], np.arange(1), where))[0]


def test_nothing_changes_nothing_and_quarter_turns_are_exact():
    image = smooth_noise(1, 9)[0]
    np.testing.assert_array_equal(warp(image), image)
    # Rows go down and columns go right: clockwise on the screen is rot90 of NumPy with k = -1.
    np.testing.assert_allclose(warp(image, degrees=90), np.rot90(image, -1), atol=1e-5)
    np.testing.assert_allclose(warp(image, degrees=180), image[::-1, ::-1], atol=1e-5)


def test_translations_are_those_of_bilinear():
    image = smooth_noise(1, 9)[0]
    where = np.float32([[1.25, -2.5]])
    moved = np.asarray(moved_rows(Bilinear(fill=(2.0,)), None, image[None], np.arange(1), where))[0]
    np.testing.assert_allclose(warp(image, 1.25, -2.5, fill=(2.0,)), moved, atol=1e-6)


def test_enlargement_is_about_the_centre():
    image = np.zeros((9, 9, 1), np.float32)
    image[3:6, 3:6] = 1
    large = warp(image, log_scale=np.log(2))
    assert large[4, 4] == 1 and large[2, 2] == 1 and large[4, 0] == 0  # 3 pixels become 6
    np.testing.assert_allclose(large, large[::-1, ::-1], atol=1e-6)
    shrunk = warp(np.ones((9, 9, 1), np.float32), log_scale=-np.log(2), fill=(-1.0,))
    assert shrunk[4, 4] == 1 and shrunk[0, 0] == -1


def test_the_originals_positions_stretch_the_image():
    # Sample i is at i N / (N - 1) - 1/2.
    ramp = np.broadcast_to(np.arange(8, dtype=np.float32)[:, None, None] + 10, (8, 8, 1))
    column = warp(ramp, stretched=True)[:, 4, 0]
    at = np.arange(8) * 8 / 7 - 0.5
    inside = (at >= 0) & (at <= 7)
    np.testing.assert_allclose(column[inside], at[inside] + 10, rtol=1e-5)
    assert not inside[0] and column[0] == pytest.approx(0.5 * 10, rel=1e-5)  # half of it is the border


def test_a_border_is_a_part_of_the_unshifted_view():
    images = smooth_noise(2, 5)
    way = Warp(fill=(1.0, 2.0, 3.0), border=2)
    bordered = np.asarray(way.unshifted(images))
    np.testing.assert_allclose(
        bordered[:, 2:-2, 2:-2], images, atol=1e-6
    )  # subtracting and adding the fill causes rounding
    assert bordered.shape == (2, 9, 9, 3) and (bordered[:, :2] == (1, 2, 3)).all()
    still = np.asarray(moved_rows(way, None, images, np.arange(2), np.zeros((2, 4), np.float32)))
    np.testing.assert_allclose(still, bordered, atol=1e-6)
    assert way.view == Warp(fill=(1.0, 2.0, 3.0), border=2, stretched=True).view != Warp().view


def test_the_attack_finds_more_in_a_larger_space():
    batch = labelled(strided, smooth_noise(24, 16))
    shares = []
    for space in ((0.0,), (0.5,), (1.0, 10, 1.1)):
        names = ("translation", "rotation", "enlargement")
        options = dict(zip(names, space, strict=False)) | {"points": 12, "starts": 2, "steps": 8}
        wanted = spatial_attack((0.0,), **options)
        shares.append(evaluate(strided, [batch], [wanted])["spatial_attack"]["worst_case_accuracy"])
    assert shares[0] == 1 > shares[1] > shares[2]


def test_impossible_warps_are_explained():
    with pytest.raises(
        ConfigError, match="a shift of 9 pixels is too large: nothing of an image with a side of 8"
    ):
        Warp().check((1, 8, 8, 1), np.array([[[9, 0, 0, 0]]]))
    with pytest.raises(ShapeError, match=r"rows and columns \[2, h, w\], got \[1, 4, 4\]"):
        bilinear_sample(np.zeros((2, 4, 4, 1), np.float32), np.zeros((1, 4, 4)), np.zeros((1, 4, 4)))

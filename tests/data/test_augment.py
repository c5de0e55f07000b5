import numpy as np
import pytest

from aliasfree_jax.config import CROPS
from aliasfree_jax.data.augment import (
    Preprocessing,
    augment,
    circular_shift,
    color_jitter,
    normalize,
    random_erasing,
    random_flip,
)
from aliasfree_jax.data.crops import (
    Box,
    padded_crop,
    random_box,
    random_resized_crop,
    random_view,
    reflected_crop,
)
from aliasfree_jax.data.decode import resize
from aliasfree_jax.data.views import center_view
from aliasfree_jax.errors import ConfigError


class Scripted:
    """A generator with predefined draws."""

    def __init__(self, uniform, integers=()):
        self._uniform, self._integers = iter(uniform), iter(integers)
        self.bounds = []

    def uniform(self, low, high):
        return next(self._uniform)

    def integers(self, high):
        self.bounds.append(high)
        return next(self._integers)


def noise(height: int, width: int, channels: int = 3, dtype=np.uint8) -> np.ndarray:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, channels))
    return pixels.astype(np.uint8) if dtype == np.uint8 else (pixels / 255).astype(dtype)


def test_random_box_by_hand():
    # 80 x 100, share 1/2, aspect 1: side sqrt(4000) = 63.2 -> 63; offsets from 0..17 and 0..37
    rng = Scripted(uniform=[0.5, 0.0], integers=[17, 4])
    assert random_box(80, 100, rng, (0.08, 1)) == Box(17, 4, 63, 63)
    assert rng.bounds == [18, 38]
    # aspect 4/3 is wider than high: sqrt(8000 / 4 * 4 / 3) = 51.6, sqrt(8000 / 4 * 3 / 4) = 38.7
    assert random_box(80, 100, Scripted([0.25, np.log(4 / 3)], [0, 0]), (0.08, 1)) == Box(0, 0, 39, 52)
    # the first rectangle, 89 x 89, is too high; the second fits
    assert random_box(80, 100, Scripted([1.0, 0.0, 0.5, 0.0], [1, 2]), (0.08, 1)) == Box(1, 2, 63, 63)


@pytest.mark.parametrize(
    ("height", "width", "box"),
    [(10, 100, Box(0, 43, 10, 13)), (100, 10, Box(43, 0, 13, 10)), (90, 100, Box(0, 0, 90, 100))],
)
def test_random_box_falls_back_to_the_centre(height, width, box):
    never = Scripted([1.2, 0.0] * 10)  # more than the whole area, so it does not fit
    assert random_box(height, width, never, (1.2, 1.2)) == box


def test_random_box_statistics():
    rng = np.random.default_rng(0)
    boxes = np.asarray([random_box(1000, 1000, rng, (0.1, 0.5)) for _ in range(2000)], float)
    top, left, height, width = boxes.T
    share, aspect = height * width / 1e6, width / height
    # rounding of both sides changes the area by less than one side: 1/300 of it
    assert share.min() > 0.1 * 0.995 and share.max() < 0.5 * 1.005
    assert aspect.min() > 3 / 4 * 0.995 and aspect.max() < 4 / 3 * 1.005
    # every such box fits at once, so both are uniform; means within 4 standard errors of 2000 draws
    assert abs(share.mean() - 0.3) < 4 * 0.4 / np.sqrt(12 * 2000)
    assert abs(np.log(aspect).mean()) < 4 * 2 * np.log(4 / 3) / np.sqrt(12 * 2000)
    for offset, room in ((top, 1000 - height), (left, 1000 - width)):
        assert (offset <= room).all() and abs((offset / room).mean() - 0.5) < 4 / np.sqrt(12 * 2000)


def test_random_resized_crop_is_crop_then_resize():
    image = noise(80, 100)
    out = random_resized_crop(image, Scripted([0.5, 0.0], [17, 4]), 32)
    np.testing.assert_array_equal(out, resize(image[17:80, 4:67], 32, 32))


def test_padded_crop_shows_black_border_and_every_offset():
    image = np.full((4, 5, 1), 7, np.uint8)
    rng = np.random.default_rng(0)
    seen = set()
    for _ in range(200):
        out = padded_crop(image, rng, 1)
        assert out.shape == image.shape
        rows, columns = np.nonzero(out[..., 0])
        seen.add((rows.min(), rows.max(), columns.min(), columns.max()))
    # each of 3 x 3 offsets; one is missed with probability 9 (8/9)^200 = 5e-10
    assert seen == {(a, b, c, d) for a, b in ((0, 2), (0, 3), (1, 3)) for c, d in ((0, 3), (0, 4), (1, 4))}


@pytest.mark.parametrize("padding", [0, 1, 3, 7])
def test_reflected_crop_is_the_padded_crop_inside_and_the_reflection_outside(padding):
    """Both have the same offset for the same draws. A padding may be larger than the image."""
    image = noise(4, 5)
    mirrored = np.tile(np.concatenate([image, image[2:0:-1]]), (5, 1, 1))
    mirrored = np.tile(np.concatenate([mirrored, mirrored[:, 3:0:-1]], axis=1), (1, 5, 1))
    for seed in range(20):
        top, left = np.random.default_rng(seed).integers(2 * padding + 1, size=2) - padding
        out = reflected_crop(image, np.random.default_rng(seed), padding)
        np.testing.assert_array_equal(out, mirrored[12 + top : 16 + top, 16 + left : 21 + left])
        black = padded_crop(image, np.random.default_rng(seed), padding)
        np.testing.assert_array_equal(black[black > 0], out[black > 0])


def test_random_flip_half_the_time():
    image, rng = noise(4, 4), np.random.default_rng(0)
    flipped = 0
    for _ in range(400):
        out = random_flip(image, rng)
        mirrored = np.array_equal(out, image[:, ::-1])
        assert mirrored or np.array_equal(out, image)
        flipped += mirrored
    assert abs(flipped - 200) < 40  # 4 standard deviations of a fair coin


def test_circular_shift_loses_nothing_and_reaches_everywhere():
    image = np.zeros((3, 4, 1), np.uint8)
    image[0, 0] = 9
    rng = np.random.default_rng(0)
    places = {tuple(np.argwhere(circular_shift(image, rng, 2)[..., 0] == 9)[0]) for _ in range(300)}
    assert len(places) == 12  # the rarest, 1 of 25 shifts, is missed with probability 5e-6


def test_circular_shift_stays_within_its_range():
    image = np.zeros((9, 9, 1), np.uint8)
    image[4, 4] = 9
    rng = np.random.default_rng(0)
    places = {tuple(np.argwhere(circular_shift(image, rng, 1)[..., 0] == 9)[0]) for _ in range(200)}
    assert places == {(row, column) for row in (3, 4, 5) for column in (3, 4, 5)}


def test_random_view_takes_every_place():
    image = noise(100, 151)
    short = resize(image, 64, 96)
    rng, places = np.random.default_rng(0), set()
    windows = {short[t : t + 56, c : c + 56].tobytes(): (t, c) for t in range(9) for c in range(41)}
    for _ in range(200):
        places.add(windows[random_view(image, rng, 56, 0.875).tobytes()])
    assert {t for t, _ in places} == set(range(9)) and len({c for _, c in places}) > 30


def test_color_jitter_scales_brightness_contrast_and_saturation():
    image = np.full((8, 8, 3), 100, np.uint8)  # no contrast, no colour: only brightness is visible
    levels = [color_jitter(image, np.random.default_rng(seed), 0.4).mean() for seed in range(200)]
    assert 59 <= min(levels) < 65 and 135 < max(levels) <= 141
    grey = color_jitter(noise(8, 8), np.random.default_rng(0), 1.0)
    assert grey.dtype == np.uint8 and grey.shape == (8, 8, 3)
    still = color_jitter(noise(8, 8), np.random.default_rng(0), 0.0)
    np.testing.assert_array_equal(still, noise(8, 8))


def test_random_erasing_replaces_one_rectangle_by_normal_numbers():
    image, shares, aspects = np.full((60, 80, 3), 9.0, np.float32), [], []
    for seed in range(300):
        out = random_erasing(image, np.random.default_rng(seed), 1.0)
        erased = (out != 9).any(-1)
        rows, columns = erased.any(1), erased.any(0)
        np.testing.assert_array_equal(erased, rows[:, None] & columns[None])
        shares.append(erased.mean())
        aspects.append(rows.sum() / columns.sum())
        assert out.dtype == np.float32
    assert (image == 9).all()
    # Rounding to whole pixels widens the range a little at both ends.
    assert 0.018 < min(shares) < 0.05 and 0.28 < max(shares) < 0.345
    assert 0.25 < min(aspects) < 0.4 and 2.5 < max(aspects) < 4
    assert abs(out[erased].mean()) < 0.2 and abs(out[erased].std() - 1) < 0.1


def test_random_erasing_has_a_probability():
    image = np.ones((16, 16, 1), np.float32)
    same = sum(random_erasing(image, np.random.default_rng(s), 0.25) is image for s in range(400))
    assert abs(same - 300) < 40  # 4 standard deviations
    narrow = np.ones((1, 1, 3), np.float32)  # no rectangle fits
    assert random_erasing(narrow, np.random.default_rng(0), 1.0) is narrow


@pytest.mark.parametrize("shape", [(1, 500), (500, 1), (3, 3)])
@pytest.mark.parametrize("crop", CROPS)
def test_any_shape_becomes_the_input(crop, shape):
    how = Preprocessing(16, (0.5,) * 3, (0.5,) * 3, crop=crop, flip=True, circular_shift=8)
    out, _ = augment(noise(*shape), np.random.default_rng(0), how)
    assert out.shape == (16, 16, 3) and out.dtype == np.uint8


def test_augment_depends_on_the_generator_only():
    how = Preprocessing(16, (0.5,) * 3, (0.5,) * 3, crop="random_resized", flip=True, circular_shift=8)
    image = noise(40, 50)
    before = image.copy()
    first, same, other = (augment(image, np.random.default_rng(seed), how)[0] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, same)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(image, before)


def test_plain_augment_is_the_evaluation_view():
    how = Preprocessing(16, (0.5,) * 3, (0.5,) * 3)
    image = noise(40, 50)
    np.testing.assert_array_equal(
        augment(image, np.random.default_rng(0), how)[0], center_view(image, 16, 0.875)
    )


def test_unknown_crop():
    with pytest.raises(ConfigError, match="unknown data.crop 'random_resize'.*Did you mean 'random_resized'"):
        augment(noise(8, 8), np.random.default_rng(0), Preprocessing(8, (0.5,), (0.5,), crop="random_resize"))


@pytest.mark.parametrize("flip", [1, -1])  # a mirrored view is not contiguous
def test_normalize(flip):
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    image = noise(5, 7)[:, ::flip]
    out = normalize(image, mean, std)
    expected = (image / 255 - np.asarray(mean)) / np.asarray(std)
    assert out.dtype == np.float32
    np.testing.assert_allclose(out, expected, atol=1e-6)  # float32 rounding of numbers up to 2.6
    np.testing.assert_allclose(normalize((image / 255).astype(np.float32), mean, std), expected, atol=1e-6)


def test_normalize_counts_channels():
    with pytest.raises(
        ConfigError, match="data.mean has 3 and data.std 3 entries, but the images have 1 channel:"
    ):
        normalize(noise(4, 4, 1), (0.5,) * 3, (0.5,) * 3)

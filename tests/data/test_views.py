import numpy as np
import pytest
from PIL import Image

from aliasfree_jax.data.decode import resize
from aliasfree_jax.data.views import center_view, described, evaluation_view, resize_shorter, zero_pad


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels)).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_resize_keeps_dtype_channels_and_constants(interpolation, dtype, channels):
    flat = np.full((13, 9, channels), 100 if dtype == np.uint8 else 0.25, dtype)
    out = resize(flat, 5, 20, interpolation)
    assert out.shape == (5, 20, channels) and out.dtype == dtype
    np.testing.assert_allclose(out, flat[0, 0, 0], rtol=1e-6)  # weights sum to 1 up to float32 rounding


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_resize_is_antialiased(interpolation):
    board = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None]
    # averages of a chequerboard; without antialiasing it would stay black and white
    assert np.abs(resize(board, 16, 16, interpolation).astype(int) - 127).max() <= 8


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_float_and_uint8_resize_agree(interpolation):
    image = noise(20, 30)
    as_float = resize(image.astype(np.float32) / 255, 10, 10, interpolation)
    # uint8 rounds after each of the two passes
    expected = resize(image, 10, 10, interpolation)
    np.testing.assert_allclose(np.clip(as_float * 255, 0, 255), expected, atol=1.5)


def test_bilinear_is_pillows():
    image = noise(30, 20)
    expected = np.asarray(Image.fromarray(image).resize((16, 12), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(resize(image, 12, 16, "bilinear"), expected)
    assert not np.array_equal(resize(image, 12, 16), expected)


def test_center_view_of_a_wide_and_a_high_image():
    image = noise(100, 151)
    # 56 / 0.875 = 64; the longer side is truncated as in torchvision: 64 * 1.51 = 96.6 -> 96
    expected = resize(image, 64, 96)[4:60, 20:76]
    np.testing.assert_array_equal(center_view(image, 56, 0.875), expected)
    high = center_view(image.transpose(1, 0, 2), 56, 0.875)
    np.testing.assert_array_equal(high, resize(image.transpose(1, 0, 2), 96, 64)[20:76, 4:60])


def test_only_an_image_of_just_the_right_size_is_not_zoomed():
    image = noise(56, 56)
    assert center_view(image, 56, 0.875) is image and resize_shorter(image, 56, 0.875) is image
    for height, width in ((57, 57), (56, 57), (57, 56), (55, 56)):
        larger = noise(height, width)
        zoomed = resize_shorter(larger, 56, 0.875)
        assert min(zoomed.shape[:2]) == 64  # as Resize(64)
        top, left = ((side - 56) // 2 for side in zoomed.shape[:2])
        expected = zoomed[top : top + 56, left : left + 56]
        np.testing.assert_array_equal(center_view(larger, 56, 0.875), expected)


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "48 x 48, ratio 0.875, bicubic"),
        ({"interpolation": "bilinear", "exif": True}, "48 x 48, ratio 0.875, bilinear, upright by EXIF"),
        ({"image_size": 384, "zero_pad": 4}, "384 x 384, warped, bicubic, a border of 4 zeros"),
        ({"image_size": 384, "eval_view": "crop"}, "384 x 384, ratio 0.875, bicubic"),
        ({"eval_view": "warp"}, "48 x 48, warped, bicubic"),
    ],
)
def test_a_preparation_in_words(fields, text):
    usual = {"image_size": 48, "zero_pad": 0, "eval_view": "auto", "eval_crop_ratio": 0.875}
    assert described({**usual, "interpolation": "bicubic", "exif": False, **fields}) == text


def test_masks_and_targets_are_not_squeezed():
    fields = {
        "image_size": 512,
        "zero_pad": 0,
        "eval_crop_ratio": 1.0,
        "interpolation": "bilinear",
        "exif": False,
    }
    for task in ("segmentation", "regression"):
        assert described({**fields, "eval_view": "auto"}, task) == "512 x 512, ratio 1, bilinear"
        assert described({**fields, "eval_view": "warp"}, task) == "512 x 512, warped, bilinear"


def test_the_resized_side_is_cut_to_a_whole_number_as_in_the_original():
    # 56 / 0.95 = 58.9
    assert resize_shorter(noise(100, 100), 56, 0.95).shape == (58, 58, 3)


def test_large_views_are_warped_and_small_ones_cropped():
    image = noise(100, 151)
    np.testing.assert_array_equal(evaluation_view(image, 384, 0.875), resize(image, 384, 384))
    np.testing.assert_array_equal(evaluation_view(image, 383, 0.875), center_view(image, 383, 0.875))
    np.testing.assert_array_equal(evaluation_view(image, 384, 0.875, "crop"), center_view(image, 384, 0.875))
    np.testing.assert_array_equal(evaluation_view(image, 56, 0.875, "warp"), resize(image, 56, 56))


def test_zero_pad_surrounds_by_zeros():
    image = 1 + noise(4, 5).astype(np.float32)
    padded = zero_pad(image, 3)
    assert padded.shape == (10, 11, 3) and padded.dtype == np.float32
    np.testing.assert_array_equal(padded[3:7, 3:8], image)
    assert padded.sum() == image.sum()
    assert zero_pad(image, 0) is image

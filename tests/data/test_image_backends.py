"""The fast backend against Pillow: the same boxes, almost the same pixels, the same errors."""

import io
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from aliasfree_jax.config import CROPS, IMAGE_BACKENDS, INTERPOLATIONS
from aliasfree_jax.data import FolderSource
from aliasfree_jax.data.augment import CROPPED
from aliasfree_jax.data.crops import random_box, random_resized_crop
from aliasfree_jax.data.decode import (
    BACKENDS,
    FILTERS,
    decode,
    fast_decode,
    fast_resize,
    image_backend,
    resize,
)
from aliasfree_jax.errors import ConfigError, DataError, MissingPackageError

PHOTOGRAPHS = Path(__file__).resolve().parents[3] / "shared" / "data" / "imagenet-sample.tar"

needs_fast = pytest.mark.usefixtures("fast_packages")


def smooth(height: int, width: int) -> np.ndarray:
    """Three slow waves in each channel, away from 0 and 255, so that no overshoot is clipped."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    rng, image = np.random.default_rng(0), np.full((height, width, 3), 127.5)
    for channel in range(3):
        for down, right, phase in rng.uniform(-6, 6, (3, 3)):
            image[..., channel] += 30 * np.cos(down * y * 6 + right * x * 6 + phase)
    return np.rint(image).astype(np.uint8)


def jpeg(image: Image.Image, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **options)
    return buffer.getvalue()


@needs_fast
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpegs_have_the_same_pixels(mode, subsampling, progressive):
    image = Image.fromarray(smooth(61, 83)).convert(mode)
    data = jpeg(image, subsampling=subsampling, progressive=progressive)
    pixels = fast_decode(data, "x")
    assert pixels.shape == (61, 83, 3) and pixels.dtype == np.uint8
    np.testing.assert_array_equal(pixels, decode(data, "x"))  # the same library with the same settings


@needs_fast
@pytest.mark.parametrize("orientation", range(10))
def test_orientation_is_applied_if_asked(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = jpeg(Image.fromarray(smooth(24, 40)), exif=exif)
    np.testing.assert_array_equal(fast_decode(data, "x", exif=True), decode(data, "x", exif=True))
    upright = (40, 24, 3) if orientation in (5, 6, 7, 8) else (24, 40, 3)
    assert fast_decode(data, "x", exif=True).shape == upright
    np.testing.assert_array_equal(fast_decode(data, "x"), decode(data, "x"))
    assert fast_decode(data, "x").shape == (24, 40, 3)


@needs_fast
def test_other_files_go_to_pillow():
    image = Image.fromarray(smooth(24, 40))
    png = io.BytesIO()
    image.save(png, "PNG")  # ImageNet has a PNG that is called .JPEG
    np.testing.assert_array_equal(fast_decode(png.getvalue(), "x.JPEG"), np.asarray(image))
    cmyk = jpeg(image.convert("CMYK"))
    np.testing.assert_array_equal(fast_decode(cmyk, "x"), decode(cmyk, "x"))


@needs_fast
@pytest.mark.parametrize("data", [b"", b"<html>", b"\xff\xd8\xff\xe0 not really"])
def test_no_image(data):
    with pytest.raises(DataError, match=f"^a/x.jpg: cannot decode these {len(data)} bytes"):
        fast_decode(data, "a/x.jpg")


@needs_fast
@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Pillow's, about damaged metadata
def test_damaged_files_are_read_or_refused_as_by_pillow():
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    data, rng = jpeg(Image.fromarray(noise)), np.random.default_rng(1)
    damaged = [data[: len(data) // 2]]
    for _ in range(200):
        damaged.append(bytearray(data))
        for position in rng.integers(len(data), size=3):
            damaged[-1][position] = rng.integers(256)
    refused = 0
    for file in map(bytes, damaged):
        try:
            expected = decode(file, "x")
        except DataError as error:
            refused += 1
            with pytest.raises(DataError) as caught:
                fast_decode(file, "x")
            words, expected_words = (str(e).split(" object at ")[0] for e in (caught.value, error))
            assert words == expected_words
        else:
            np.testing.assert_array_equal(fast_decode(file, "x"), expected)
    assert 10 < refused < 190  # both cases happened


@needs_fast
@pytest.mark.parametrize("interpolation", INTERPOLATIONS)
@pytest.mark.parametrize(
    "shape", [(300, 400), (64, 48), (37, 500), (500, 37), (225, 225), (3, 300), (1, 1), (700, 900)]
)
def test_resized_images_agree(shape, interpolation):
    image = smooth(*shape)
    expected, found = (r(image, 224, 200, interpolation).astype(int) for r in (resize, fast_resize))
    assert found.shape == (224, 200, 3)
    # Both round to 8 bits after each of two passes, in different orders: each is within 1.2 of exact.
    assert np.abs(found - expected).max() <= 2
    assert np.abs(found - expected).mean() < 0.25


@needs_fast
def test_fast_resize_is_antialiased():
    board = np.repeat((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)[..., None], 3, -1)
    # averages of a chequerboard; without antialiasing it would stay black and white
    assert np.abs(fast_resize(board, 16, 16).astype(int) - 127).max() <= 8


@needs_fast
@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 1), (np.uint8, 4), (np.float32, 3)])
def test_other_arrays_go_to_pillow(dtype, channels):
    image = np.random.default_rng(0).integers(0, 2, (30, 20, channels)).astype(dtype)
    np.testing.assert_array_equal(fast_resize(image, 16, 16), resize(image, 16, 16))


@needs_fast
@pytest.mark.parametrize("name", ["pillow", "fast"])
def test_the_crop_is_the_box_of_the_generator(name):
    y, x = np.mgrid[:100, :150]
    where = np.stack([2 * y, x, np.zeros_like(x)], -1).astype(np.uint8)  # colours identify the place
    crop_and_resize = image_backend(name).resize
    for seed in range(20):
        view = random_resized_crop(
            where, np.random.default_rng(seed), 32, (0.3, 1.0), crop_and_resize
        ).astype(float)
        top, left, height, width = random_box(100, 150, np.random.default_rng(seed), (0.3, 1.0))
        rows, columns = view[4:-4, :, 0].mean(1) / 2, view[:, 4:-4, 1].mean(0)
        # A pixel of the view is at the middle of its part of the box. Bicubic keeps linear functions away
        # from the border, except for rounding to 8 bits in each of two passes.
        middles = (np.arange(32) + 0.5) / 32
        np.testing.assert_allclose(rows, (top + height * middles - 0.5)[4:-4], atol=0.6)
        np.testing.assert_allclose(columns, (left + width * middles - 0.5)[4:-4], atol=1.2)


@needs_fast
def test_backend_pickles_for_worker_processes():
    image = smooth(30, 40)
    backend = image_backend("fast", "bilinear", exif=True)
    copy = pickle.loads(pickle.dumps(backend))
    np.testing.assert_array_equal(copy.resize(image, 8, 8), backend.resize(image, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 6
    assert copy.decode(jpeg(Image.fromarray(image), exif=exif), "x").shape == (40, 30, 3)


@needs_fast
@pytest.mark.skipif(not PHOTOGRAPHS.exists(), reason="no ImageNet sample here")
def test_crops_of_photographs_agree():
    source, differences = FolderSource(PHOTOGRAPHS, "val"), []
    for i in range(len(source)):
        example = source[i]
        np.testing.assert_array_equal(fast_decode(example.image, "x"), decode(example.image, "x"))
        views = [
            random_resized_crop(b.decode(example.image, ""), np.random.default_rng(i), 224, resize=b.resize)
            for b in (image_backend("pillow"), image_backend("fast"))
        ]
        differences.append(np.abs(views[0].astype(int) - views[1]).mean())
    # Rounding, and values clipped at 0 and 255 between the passes, at the strong edges of photographs.
    assert np.mean(differences) < 0.25 and max(differences) < 0.5


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "simplejpeg", None)
    with pytest.raises(MissingPackageError, match=r"needs simplejpeg .*pip install 'aliasfree_jax\[fast\]'"):
        image_backend("fast")


def test_unknown_backend():
    with pytest.raises(ConfigError, match="unknown data.image_backend 'fats'.*Did you mean 'fast'"):
        image_backend("fats")
    with pytest.raises(ConfigError, match="unknown data.interpolation 'bilinea'.*Did you mean 'bilinear'"):
        image_backend("pillow", "bilinea")


def test_what_the_configuration_allows_is_what_there_is():
    assert (tuple(FILTERS), tuple(BACKENDS), tuple(CROPPED)) == (INTERPOLATIONS, IMAGE_BACKENDS, CROPS)

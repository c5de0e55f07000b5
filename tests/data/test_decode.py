import io

import numpy as np
import pytest
from PIL import Image

from aliasfree_jax.data import ArraySource
from aliasfree_jax.data.decode import decode
from aliasfree_jax.data.examples import DecodeOnce
from aliasfree_jax.data.sources import Example
from aliasfree_jax.errors import DataError

GRADIENT = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
COLOURS = np.stack([GRADIENT, GRADIENT[::-1], GRADIENT[:, ::-1]], axis=-1)


def save(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_colour_modes_keep_their_pixels(mode):
    image = Image.fromarray(COLOURS)
    image = image.quantize(256) if mode == "P" else image.convert(mode)
    pixels = decode(save(image), "x")
    assert pixels.dtype == np.uint8 and pixels.shape == (4, 6, 3)
    np.testing.assert_array_equal(pixels, np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_grey_becomes_rgb(mode):
    pixels = decode(save(Image.fromarray(GRADIENT).convert(mode)), "x")
    np.testing.assert_array_equal(pixels, np.repeat(GRADIENT[..., None], 3, -1))


def test_black_and_white():
    pixels = decode(save(Image.fromarray(GRADIENT > 100)), "x")
    np.testing.assert_array_equal(pixels[..., 1], np.where(GRADIENT > 100, 255, 0))


def test_sixteen_bits_are_scaled_not_clipped():
    wide = (GRADIENT.astype(np.uint16) << 8) + 77
    pixels = decode(save(Image.fromarray(wide)), "x")
    np.testing.assert_array_equal(pixels, np.repeat(GRADIENT[..., None], 3, -1))


def test_cmyk_jpeg():
    flat = np.full((8, 8, 3), (200, 40, 90), np.uint8)
    pixels = decode(save(Image.fromarray(flat).convert("CMYK"), "JPEG", quality=95), "x")
    # a flat colour survives JPEG within its rounding (quantiser steps of 1 or 2 at quality 95)
    np.testing.assert_allclose(pixels.astype(int), flat.astype(int), atol=3)


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, COLOURS),
        (2, COLOURS[:, ::-1]),
        (3, COLOURS[::-1, ::-1]),
        (4, COLOURS[::-1]),
        (5, COLOURS.transpose(1, 0, 2)),
        (6, np.rot90(COLOURS, -1)),
        (7, COLOURS[::-1, ::-1].transpose(1, 0, 2)),
        (8, np.rot90(COLOURS)),
        (99, COLOURS),
    ],
)
def test_exif_orientation(orientation, upright):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = save(Image.fromarray(COLOURS), exif=exif)
    np.testing.assert_array_equal(decode(data, "x", exif=True), upright)
    np.testing.assert_array_equal(decode(data, "x"), COLOURS)  # like the originals' loader


def test_damaged_exif_does_not_matter():
    data = save(Image.fromarray(COLOURS), "JPEG", exif=b"Exif\x00\x00garbage")
    assert decode(data, "x", exif=True).shape == (4, 6, 3)


@pytest.mark.parametrize("data", [b"", b"GIF89a", b"<html>", b"\xff\xd8\xff\xe0 not really"])
def test_no_image(data):
    with pytest.raises(DataError, match=f"^folder/x.jpg: cannot decode these {len(data)} bytes"):
        decode(data, "folder/x.jpg")


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncated(kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = save(Image.fromarray(noise), kind)
    with pytest.raises(DataError, match="^x: cannot decode"):
        decode(data[: len(data) // 2], "x")


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # Pillow's, about damaged metadata
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF"])
def test_random_damage_is_an_image_or_a_data_error(kind):
    rng = np.random.default_rng(1)
    data = save(Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)), kind)
    for _ in range(150):
        damaged = bytearray(data)
        for position in rng.integers(len(data), size=4):
            damaged[position] = rng.integers(256)
        try:
            assert decode(bytes(damaged), "x").ndim == 3
        except DataError as error:
            assert str(error).startswith("x: ")


class Counting:
    class_names = ("a",)

    def __init__(self, files: list[bytes]):
        self.files, self.reads = files, 0

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        self.reads += 1
        return Example(self.files[index], 0, str(index))


def test_decode_once_keeps_what_fits():
    source = Counting([save(Image.fromarray(COLOURS))] * 3)
    once = DecodeOnce(source, max_bytes=2 * COLOURS.nbytes)
    for _ in range(4):
        for i in range(3):
            np.testing.assert_array_equal(once[i].image, COLOURS)
    assert source.reads == 3 + 3  # the third image does not fit and is read every time


def test_decode_once_leaves_arrays_alone():
    source = ArraySource(COLOURS[None], [0])
    assert DecodeOnce(source)[0].image is not None
    assert DecodeOnce(source)._seen == {}

"""Encoded image files to RGB arrays, and resizing: by Pillow, or for training by faster libraries.

"fast" decodes JPEGs with simplejpeg (libjpeg-turbo with Pillow's settings: the same pixels) and resizes with
cykooz-resizer (the Rust crate fast_image_resize, whose Catmull-Rom and triangle convolutions are Pillow's
antialiased bicubic and bilinear but for rounding). Whatever they cannot take goes to Pillow, damaged files
included, so both backends accept and refuse the same files with the same messages.
"""

import dataclasses
import functools
import io
import math
import struct
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from aliasfree_jax.errors import ConfigError, DataError, needed, unknown

Decoder = Callable[[bytes, str], np.ndarray]  # file and its name -> uint8 [H, W, 3]
Resize = Callable[[np.ndarray, int, int], np.ndarray]  # [H, W, C], height, width -> [height, width, C]

# data.interpolation; what Pillow makes of each is antialiased.
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
# What Pillow raises on damaged files, besides UnidentifiedImageError (an OSError).
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error)
ORIENTATION_TAG = 0x0112
# How to turn an image of each EXIF orientation upright; 1 is upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# Markers of JPEG files (ISO/IEC 10918-1, table B.1).
FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
METADATA = 0xE1  # EXIF or XMP, which may hold the orientation
SCAN = 0xDA


def decode(data: bytes, name: str, exif: bool = False) -> np.ndarray:
    """The image in `data` as uint8 [H, W, 3].

    The kind of file is told by its content. Grey, palette, CMYK and 16-bit images are converted,
    transparency is dropped, the first frame of an animation is taken. The EXIF orientation is ignored, as
    by the loader of torchvision, with which the originals train and evaluate.

    Args:
      data: the file.
      name: for messages.
      exif: turn the image upright, as its EXIF orientation says.

    Raises:
      DataError: not an image, truncated or damaged; the message starts with `name`.
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        turn = UPRIGHT.get(orientation(image)) if exif else None
        return _rgb(image if turn is None else image.transpose(turn))
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: cannot decode these {len(data)} bytes as an image: {error}") from error


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an opened file, 1 (upright) if it says none."""
    try:
        return image.getexif().get(ORIENTATION_TAG, 1)
    except DAMAGE:  # damaged metadata do not make the pixels unreadable
        return 1


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16 bits in up to 32, which Pillow's own conversion would clip at 255
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > 65535:
            raise ValueError(f"grey values {wide.min()}..{wide.max()} exceed 16 bits")
        return np.repeat((wide.astype(np.int32) >> 8).astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode == "F":
        raise ValueError("floating-point images have no defined range")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def resize(image: np.ndarray, height: int, width: int, interpolation: str = "bicubic") -> np.ndarray:
    """`image` at a new size, antialiased, by Pillow; uint8 results are rounded and clipped."""
    if image.shape[:2] == (height, width):
        return image
    size, how = (width, height), FILTERS[interpolation]
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.asarray(Image.fromarray(image).resize(size, how))
    planes = [np.ascontiguousarray(image[:, :, c]) for c in range(image.shape[2])]  # modes L and F
    resized = [Image.fromarray(plane).resize(size, how) for plane in planes]
    return np.stack([np.asarray(plane) for plane in resized], axis=-1)


def fast_decode(data: bytes, name: str, exif: bool = False) -> np.ndarray:
    """`decode` by simplejpeg: the image in `data` as uint8 [H, W, 3]; the same pixels and errors."""
    import simplejpeg

    try:
        if _is_plain_jpeg(data, exif):
            return simplejpeg.decode_jpeg(data, "RGB")
    except (*DAMAGE, Image.DecompressionBombError):
        pass  # Pillow decides what can be read, and says what is wrong
    return decode(data, name, exif)


def _is_plain_jpeg(data: bytes, upright: bool) -> bool:
    """Whether `data` begins as a JPEG of one or three colours, no attack by its size, and `upright` if asked.

    Walks the markers up to the first scan; `Image.open` takes a tenth of the time of decoding.
    """
    if not data.startswith(b"\xff\xd8"):
        return False
    position, plain, metadata = 2, False, False
    while (start := data[position : position + 10])[:1] == b"\xff" and len(start) == 10 and start[1] != 0xFF:
        _, marker, length, _, height, width, colours = struct.unpack(">BBHBHHB", start)
        if marker == SCAN:
            return plain and not (metadata and orientation(Image.open(io.BytesIO(data))) in UPRIGHT)
        metadata |= upright and marker == METADATA
        if marker in FRAMES:
            plain = colours in (1, 3) and height * width <= (Image.MAX_IMAGE_PIXELS or math.inf)
        position += 2 + length
    return False


def fast_resize(image: np.ndarray, height: int, width: int, interpolation: str = "bicubic") -> np.ndarray:
    """`resize` by cykooz-resizer, for uint8 [H, W, 3]; by Pillow for other images.

    The results differ by rounding, and next to edges where bicubic overshoots 0..255: the two passes come
    in the other order, and each is clipped.
    """
    if image.dtype != np.uint8 or image.shape[2] != 3 or image.shape[:2] == (height, width):
        return resize(image, height, width, interpolation)
    from cykooz_resizer import ImageData, PixelType, Resizer

    source = ImageData(image.shape[1], image.shape[0], PixelType.U8x3, image.tobytes())
    target = ImageData(width, height, PixelType.U8x3)
    options = _options(interpolation)
    Resizer().resize(source, target, options)  # one a call: a resizer serves one thread at a time
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(height, width, 3)


@functools.cache
def _options(interpolation: str) -> Any:
    from cykooz_resizer import FilterType, ResizeAlg, ResizeOptions

    filters = {"bicubic": FilterType.catmull_rom, "bilinear": FilterType.bilinear}
    return ResizeOptions(resize_alg=ResizeAlg.convolution(filters[interpolation]))


# data.image_backend
BACKENDS: dict[str, tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]]] = {
    "pillow": (decode, resize),
    "fast": (fast_decode, fast_resize),
}


@dataclasses.dataclass(frozen=True)
class ImageBackend:
    """How images are decoded and resized."""

    decode: Decoder
    resize: Resize


def image_backend(name: str, interpolation: str = "bicubic", exif: bool = False) -> ImageBackend:
    """The backend that `config.data.image_backend` names.

    Args:
      name: of `BACKENDS`.
      interpolation, exif: as in `config.data`.

    Raises:
      ConfigError: unknown name or interpolation.
      MissingPackageError: a package that the backend needs.
    """
    if interpolation not in FILTERS:
        raise ConfigError(unknown("data.interpolation", interpolation, FILTERS))
    if name not in BACKENDS:
        raise ConfigError(unknown("data.image_backend", name, BACKENDS))
    for package in ("cykooz_resizer", "simplejpeg") if name == "fast" else ():
        needed(package, "data.image_backend = 'fast' (the other is 'pillow')")
    decoder, resizer = BACKENDS[name]
    return ImageBackend(
        functools.partial(decoder, exif=exif), functools.partial(resizer, interpolation=interpolation)
    )

"""Decodes image files to RGB arrays and resizes them, with Pillow or with faster libraries for training.

"fast" decodes JPEGs with simplejpeg: libjpeg-turbo with Pillow's settings, so the pixels are the same. It
resizes with cykooz-resizer, the Rust crate `fast_image_resize`. The Catmull-Rom and triangle convolutions of
this crate equal Pillow's antialiased bicubic and bilinear filters, except for rounding. Pillow handles
everything that these libraries cannot, including damaged files. So both backends accept and refuse the same
files, with the same messages.
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

# data.interpolation; Pillow's filters are antialiased.
FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
# What Pillow raises on damaged files, besides UnidentifiedImageError (an OSError).
DAMAGE = (OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, struct.error)
ORIENTATION_TAG = 0x0112
# The operation that turns an image of each EXIF orientation upright; 1 is upright already.
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
    """Decodes the image in `data` to uint8 `[H, W, 3]`.

    The content of the file decides its format. Grey, palette, CMYK and 16-bit images are converted,
    transparency is dropped, and the first frame of an animation is used. By default the EXIF orientation is
    ignored, as torchvision's loader does. The original works train and evaluate with that loader.

    Args:
      data: the content of the file.
      name: the file, for messages.
      exif: turn the image upright, according to its EXIF orientation.

    Raises:
      DataError: not an image, or truncated or damaged. The message starts with `name`.
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
        turn = UPRIGHT.get(orientation(image)) if exif else None
        return _rgb(image if turn is None else image.transpose(turn))
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: cannot decode these {len(data)} bytes as an image: {error}") from error


def orientation(image: Image.Image) -> int:
    """The EXIF orientation of an opened file; 1 (upright) if the file does not state it."""
    try:
        return image.getexif().get(ORIENTATION_TAG, 1)
    except DAMAGE:  # damaged metadata do not make the pixels unreadable
        return 1


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I"):  # 16 bits in up to 32; Pillow's conversion would clip at 255
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > 65535:
            raise ValueError(f"grey values {wide.min()}..{wide.max()} exceed 16 bits")
        return np.repeat((wide.astype(np.int32) >> 8).astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode == "F":
        raise ValueError("floating-point images have no defined range")
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def resize(image: np.ndarray, height: int, width: int, interpolation: str = "bicubic") -> np.ndarray:
    """Resizes `image` with Pillow, antialiased. uint8 results are rounded and clipped."""
    if image.shape[:2] == (height, width):
        return image
    size, how = (width, height), FILTERS[interpolation]
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.asarray(Image.fromarray(image).resize(size, how))
    planes = [np.ascontiguousarray(image[:, :, c]) for c in range(image.shape[2])]  # modes L and F
    resized = [Image.fromarray(plane).resize(size, how) for plane in planes]
    return np.stack([np.asarray(plane) for plane in resized], axis=-1)


def fast_decode(data: bytes, name: str, exif: bool = False) -> np.ndarray:
    """`decode` with simplejpeg: uint8 `[H, W, 3]`, with the same pixels and errors."""
    import simplejpeg

    try:
        if _is_plain_jpeg(data, exif):
            return simplejpeg.decode_jpeg(data, "RGB")
    except (*DAMAGE, Image.DecompressionBombError):
        pass  # Pillow tries again, and its message says what is wrong
    return decode(data, name, exif)


def _is_plain_jpeg(data: bytes, upright: bool) -> bool:
    """Whether simplejpeg may decode `data`: a JPEG of one or three colours and of an allowed size.

    With `upright`, its EXIF orientation must not turn it. The function walks the markers up to the first
    scan, since `Image.open` takes a tenth of the time of decoding.
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
    """`resize` with cykooz-resizer for uint8 `[H, W, 3]`, and with Pillow for other images.

    The results differ by rounding. They also differ near edges where bicubic overshoots 0..255, because the
    two passes come in the other order and each is clipped.
    """
    if image.dtype != np.uint8 or image.shape[2] != 3 or image.shape[:2] == (height, width):
        return resize(image, height, width, interpolation)
    from cykooz_resizer import ImageData, PixelType, Resizer

    source = ImageData(image.shape[1], image.shape[0], PixelType.U8x3, image.tobytes())
    target = ImageData(width, height, PixelType.U8x3)
    options = _options(interpolation)
    Resizer().resize(source, target, options)  # a new one for each call: it is not thread-safe
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
    """The functions that decode and resize images."""

    decode: Decoder
    resize: Resize


def image_backend(name: str, interpolation: str = "bicubic", exif: bool = False) -> ImageBackend:
    """Returns the backend that `config.data.image_backend` names.

    Args:
      name: a key of `BACKENDS`.
      interpolation: `config.data.interpolation`.
      exif: `config.data.exif`.

    Raises:
      ConfigError: unknown name or interpolation.
      MissingPackageError: a package that the backend needs is missing.
    """
    if interpolation not in FILTERS:
        raise ConfigError(unknown("data.interpolation", interpolation, FILTERS))
    if name not in BACKENDS:
        raise ConfigError(unknown("data.image_backend", name, BACKENDS))
    for package in ("cykooz_resizer", "simplejpeg") if name == "fast" else ():
        needed(package, "data.image_backend = 'fast' (the alternative is 'pillow')")
    decoder, resizer = BACKENDS[name]
    return ImageBackend(
        functools.partial(decoder, exif=exif), functools.partial(resizer, interpolation=interpolation)
    )

"""What decodes and resamples images: Pillow, or for training faster libraries that compute the same.

"fast" decodes JPEGs with simplejpeg (libjpeg-turbo with Pillow's settings: the same pixels) and resizes with
cykooz-resizer (the Rust crate fast_image_resize, whose Catmull-Rom and triangle convolutions are Pillow's
antialiased bicubic and bilinear but for rounding). Whatever they cannot take goes to Pillow, damaged files
included, so both backends accept and refuse the same files with the same messages.
"""

import functools
import io
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from aliasfree_jax.config import IMAGE_BACKENDS, INTERPOLATIONS
from aliasfree_jax.data.decode import DAMAGE, UPRIGHT, Decoder, decode, orientation
from aliasfree_jax.data.views import Resize, resize
from aliasfree_jax.errors import ConfigError, needed, unknown

# Markers of JPEG files (ISO/IEC 10918-1, table B.1).
FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
METADATA = 0xE1  # EXIF or XMP, which may hold the orientation
SCAN = 0xDA


@dataclass(frozen=True)
class ImageBackend:
    """How images are decoded and resized."""

    decode: Decoder
    resize: Resize


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


def image_backend(name: str, interpolation: str = "bicubic", exif: bool = False) -> ImageBackend:
    """The backend that `config.data.image_backend` names: "pillow" or "fast".

    Args:
      name: of the backend.
      interpolation, exif: as in `config.data`.

    Raises:
      ConfigError: unknown name or interpolation.
      MissingPackageError: a package that the backend needs.
    """
    if interpolation not in INTERPOLATIONS:
        raise ConfigError(unknown("data.interpolation", interpolation, INTERPOLATIONS))
    match name:
        case "pillow":
            chosen: tuple[Callable[..., np.ndarray], Callable[..., np.ndarray]] = (decode, resize)
        case "fast":
            for package in ("cykooz_resizer", "simplejpeg"):
                needed(package, "data.image_backend = 'fast' (the other is 'pillow')")
            chosen = (fast_decode, fast_resize)
        case _:
            raise ConfigError(unknown("data.image_backend", name, IMAGE_BACKENDS))
    return ImageBackend(partial(chosen[0], exif=exif), partial(chosen[1], interpolation=interpolation))

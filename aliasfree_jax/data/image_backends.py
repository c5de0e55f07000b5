"""What decodes and resamples training images: Pillow, or faster libraries that compute the same.

"fast" decodes JPEGs with simplejpeg (libjpeg-turbo with Pillow's settings: the same pixels) and resizes with
cykooz-resizer (the Rust crate fast_image_resize, whose Catmull-Rom convolution is Pillow's antialiased
bicubic but for rounding). Whatever they cannot take goes to Pillow, damaged files included, so both
backends accept and refuse the same files with the same messages.
"""

import functools
import io
import math
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from aliasfree_jax.config import IMAGE_BACKENDS
from aliasfree_jax.data.decode import DAMAGE, UPRIGHT, Decoder, decode, orientation
from aliasfree_jax.data.views import Resize, resize
from aliasfree_jax.errors import ConfigError, unknown

# Markers of JPEG files (ISO/IEC 10918-1, table B.1).
FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
METADATA = 0xE1  # EXIF or XMP, which may hold the orientation
SCAN = 0xDA


@dataclass(frozen=True)
class ImageBackend:
    """How training images are decoded, and resized by random_resized crops."""

    decode: Decoder
    resize: Resize


def fast_decode(data: bytes, name: str) -> np.ndarray:
    """`decode` by simplejpeg: the image in `data` as uint8 [H, W, 3], upright; the same pixels and errors."""
    import simplejpeg

    try:
        if _is_plain_jpeg(data):
            return simplejpeg.decode_jpeg(data, "RGB")
    except (*DAMAGE, Image.DecompressionBombError):
        pass  # Pillow decides what can be read, and says what is wrong
    return decode(data, name)


def _is_plain_jpeg(data: bytes) -> bool:
    """Whether `data` begins as an upright JPEG of one or three colours and of a size that is no attack.

    Walks the markers up to the first scan; `Image.open` takes a tenth of the time of decoding.
    """
    if not data.startswith(b"\xff\xd8"):
        return False
    position, plain, metadata = 2, False, False
    while (start := data[position : position + 10])[:1] == b"\xff" and len(start) == 10 and start[1] != 0xFF:
        _, marker, length, _, height, width, colours = struct.unpack(">BBHBHHB", start)
        if marker == SCAN:
            return plain and not (metadata and orientation(Image.open(io.BytesIO(data))) in UPRIGHT)
        metadata |= marker == METADATA
        if marker in FRAMES:
            plain = colours in (1, 3) and height * width <= (Image.MAX_IMAGE_PIXELS or math.inf)
        position += 2 + length
    return False


def fast_resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """`resize` by cykooz-resizer, for uint8 [H, W, 3]; by Pillow for other images.

    The results differ by rounding, and next to edges where bicubic overshoots 0..255: the two passes come
    in the other order, and each is clipped.
    """
    if image.dtype != np.uint8 or image.shape[2] != 3 or image.shape[:2] == (height, width):
        return resize(image, height, width)
    from cykooz_resizer import ImageData, PixelType, Resizer

    source = ImageData(image.shape[1], image.shape[0], PixelType.U8x3, image.tobytes())
    target = ImageData(width, height, PixelType.U8x3)
    Resizer().resize(source, target, _bicubic())  # one a call: a resizer serves one thread at a time
    return np.frombuffer(target.get_buffer(), np.uint8).reshape(height, width, 3)


@functools.cache
def _bicubic() -> Any:
    from cykooz_resizer import FilterType, ResizeAlg, ResizeOptions

    return ResizeOptions(resize_alg=ResizeAlg.convolution(FilterType.catmull_rom))


def image_backend(name: str) -> ImageBackend:
    """The backend that `config.data.image_backend` names: "pillow" or "fast".

    Raises:
      ConfigError: unknown name, or a package that it needs is missing.
    """
    match name:
        case "pillow":
            return ImageBackend(decode, resize)
        case "fast":
            try:
                import cykooz_resizer  # noqa: F401
                import simplejpeg  # noqa: F401
            except ImportError as error:
                raise ConfigError(
                    f"data.image_backend = 'fast' needs simplejpeg and cykooz-resizer ({error}): "
                    "pip install 'aliasfree_jax[fast]', or take data.image_backend = 'pillow'."
                ) from error
            return ImageBackend(fast_decode, fast_resize)
        case _:
            raise ConfigError(unknown("data.image_backend", name, IMAGE_BACKENDS))

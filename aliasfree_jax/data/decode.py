"""Encoded image files to RGB arrays, with Pillow."""

import dataclasses
import io
import struct
from collections.abc import Callable

import numpy as np
from PIL import Image

from aliasfree_jax.data.sources import Example, Source
from aliasfree_jax.errors import DataError

Decoder = Callable[[bytes, str], np.ndarray]  # file and its name -> uint8 [H, W, 3]

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


def decoded(example: Example, decoder: Decoder = decode) -> Example:
    """`example` with its image as an array; raises `DataError` as `decode` does."""
    if not isinstance(example.image, bytes):
        return example
    return dataclasses.replace(example, image=decoder(example.image, example.name))


class DecodeOnce:
    """`source`, with decoded images kept in memory up to `max_bytes`: for data sets of small images."""

    def __init__(self, source: Source, decoder: Decoder = decode, max_bytes: int = 1 << 30):
        self._source, self._decoder = source, decoder
        self._seen: dict[int, Example] = {}
        self._bytes_left = max_bytes
        self.class_names = source.class_names

    def __len__(self) -> int:
        """Number of examples."""
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        """The decoded example at `index`."""
        if (example := self._seen.get(index)) is not None:
            return example
        stored = self._source[index]
        example = decoded(stored, self._decoder)
        if example is not stored and self._bytes_left > 0:
            self._seen[index] = example
            self._bytes_left -= np.asarray(example.image).nbytes
        return example

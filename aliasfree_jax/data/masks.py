"""Masks: images whose values are the classes of their pixels, or IGNORED."""

import io

import numpy as np
from PIL import Image

from aliasfree_jax.data.decode import DAMAGE
from aliasfree_jax.data.sources import IGNORED, Example
from aliasfree_jax.errors import DataError

NUMBERS = ("1", "L", "P", "I", "I;16", "I;16B")  # Pillow's modes whose single value is a number
EXPECTED = (
    "a PNG with a palette, or a grey one, whose values are the numbers of the classes, and 255 for ignored "
    "pixels"
)


def decode_mask(data: bytes, name: str) -> np.ndarray:
    """The numbers in an image file, integers `[H, W]`.

    For an image with a palette these are the indices, not the colours.

    Raises:
      DataError: damaged, or not an image of numbers. The message starts with `name`.
    """
    try:
        image = Image.open(io.BytesIO(data))
        image.load()
    except (*DAMAGE, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: cannot decode these {len(data)} bytes as a mask: {error}") from error
    if image.mode not in NUMBERS:
        raise DataError(
            f"{name} is a colour image ({image.mode}), not a mask: expected {EXPECTED}. Replace each "
            "colour by the number of its class."
        )
    if image.format == "JPEG":
        raise DataError(f"{name} is a JPEG, which changes the numbers of classes: expected {EXPECTED}.")
    return np.asarray(image).astype(np.uint8 if image.mode in ("1", "L", "P") else np.int32)


def mask_of(example: Example, classes: int) -> np.ndarray:
    """The label of an example as integers `[H, W]`, each below `classes` or IGNORED.

    Raises:
      DataError: the label is not such a mask.
    """
    label, name = example.label, example.label_name or f"the mask of {example.name}"
    mask = decode_mask(label, name) if isinstance(label, bytes) else np.asarray(label)
    if mask.ndim != 2 or mask.dtype.kind not in "iu":
        raise DataError(
            f"{name}: expected a class for each pixel, integers [H, W], got {mask.dtype}{list(mask.shape)}."
        )
    wrong = ((mask >= classes) & (mask != IGNORED)) | (mask < 0)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise DataError(
            f"{name} has the class {mask[row, column]} at row {row}, column {column}; expected 0 to "
            f"{classes - 1}, the {classes} classes of these data, or {IGNORED} (ignored). Correct the mask, "
            "or add its class to the names of the classes."
        )
    return mask


def resize_nearest(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes `mask` `[H, W, C]`. A new pixel has the old value at its centre, so no values are blended."""
    rows, columns = (
        (2 * np.arange(new) + 1) * old // (2 * new)
        for new, old in zip((height, width), mask.shape[:2], strict=True)
    )
    return mask[rows[:, None], columns]

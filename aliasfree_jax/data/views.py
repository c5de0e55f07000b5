"""Resizing, and the views of an image that involve no chance: pure functions of NumPy arrays [H, W, C]."""

from collections.abc import Callable

import numpy as np
from PIL import Image

Resize = Callable[[np.ndarray, int, int], np.ndarray]  # [H, W, C], height, width -> [height, width, C]

# From this side on the originals evaluate whole images, squeezed into the square, instead of their centre.
WARPED_FROM = 384


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """`image` at a new size, bicubic and antialiased, by Pillow; uint8 results are rounded and clipped."""
    if image.shape[:2] == (height, width):
        return image
    if image.dtype == np.uint8 and image.shape[2] == 3:
        return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    planes = [np.ascontiguousarray(image[:, :, c]) for c in range(image.shape[2])]  # modes L and F
    resized = [Image.fromarray(plane).resize((width, height), Image.Resampling.BICUBIC) for plane in planes]
    return np.stack([np.asarray(plane) for plane in resized], axis=-1)


def resize_shorter(image: np.ndarray, size: int, crop_ratio: float) -> np.ndarray:
    """The shorter side at int(size / crop_ratio); the longer one truncated, as in torchvision.

    An image that is `size` square already is returned as it is.
    """
    if image.shape[:2] == (size, size):
        return image
    short = int(size / crop_ratio)
    height, width = image.shape[:2]
    if height <= width:
        return resize(image, short, int(short * width / height))
    return resize(image, int(short * height / width), short)


def center_view(image: np.ndarray, size: int, crop_ratio: float) -> np.ndarray:
    """[size, size, C]: `resize_shorter`, then the centre crop of torchvision."""
    if image.shape[:2] == (size, size):
        return image
    image = resize_shorter(image, size, crop_ratio)
    top, left = (round((side - size) / 2) for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def evaluation_view(image: np.ndarray, size: int, crop_ratio: float, kind: str = "auto") -> np.ndarray:
    """What is evaluated of `image`, [size, size, C].

    Args:
      image: [H, W, C].
      size: side of the view, pixels.
      crop_ratio: side of the centre crop over the resized shorter side.
      kind: "crop", the centre (`center_view`); "warp", all of it, its aspect ratio given up; "auto", as
        the original of alias-free ConvNeXt: a crop below 384 pixels, warped from there on.
    """
    if kind == "warp" or (kind == "auto" and size >= WARPED_FROM):
        return resize(image, size, size)
    return center_view(image, size, crop_ratio)


def zero_pad(image: np.ndarray, pixels: int) -> np.ndarray:
    """`image` with a border of zeros, [H + 2 pixels, W + 2 pixels, C].

    Of a normalised image that is the mean colour, and circular shifts then move no edge to the other side
    until they exceed the border.
    """
    if pixels == 0:
        return image
    return np.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)))

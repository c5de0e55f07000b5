"""Random crops of images, and of their masks and target images.

Each function takes an array `[H, W, C]` and a random generator. What it draws depends only on the sides of
the array. So with a generator in the same state, a mask is cropped like its image.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from aliasfree_jax.data.decode import Resize, resize
from aliasfree_jax.data.views import resize_shorter

ASPECT_RATIOS = (3 / 4, 4 / 3)
ATTEMPTS = 10  # draws of a rectangle until one fits


class Box(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


def rectangles(
    area: int, rng: np.random.Generator, scale: tuple[float, float], ratios: tuple[float, float]
) -> Iterator[tuple[int, int]]:
    """Sides of random rectangles: share of `area` uniform in `scale`, aspect log-uniform in `ratios`."""
    low, high = (math.log(ratio) for ratio in ratios)
    for _ in range(ATTEMPTS):
        covered = area * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(low, high))
        yield round(math.sqrt(covered * aspect)), round(math.sqrt(covered / aspect))


def random_box(height: int, width: int, rng: np.random.Generator, scale: tuple[float, float]) -> Box:
    """The rectangle of RandomResizedCrop (torchvision, timm) in an image of `height` x `width`.

    Its share of the area is uniform in `scale`, its aspect ratio log-uniform in 3/4..4/3. If ten rectangles
    do not fit, the result is the largest centred one whose aspect ratio is within these bounds.
    """
    for w, h in rectangles(height * width, rng, scale, ASPECT_RATIOS):
        if 0 < w <= width and 0 < h <= height:
            return Box(int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w)
    h = min(height, round(width / ASPECT_RATIOS[0]))
    w = min(width, round(height * ASPECT_RATIOS[1]))
    return Box((height - h) // 2, (width - w) // 2, h, w)


def random_resized_crop(
    image: np.ndarray,
    rng: np.random.Generator,
    size: int,
    scale: tuple[float, float] = (0.08, 1.0),
    resize: Resize = resize,
) -> np.ndarray:
    """Resizes a random rectangle (`random_box`) of `image` to `[size, size, C]`."""
    top, left, height, width = random_box(image.shape[0], image.shape[1], rng, scale)
    return resize(image[top : top + height, left : left + width], size, size)


def _window(
    image: np.ndarray, top: int, left: int, sides: tuple[int, int], outside: float | np.ndarray
) -> np.ndarray:
    """The rectangle of `image` with this corner, which may lie outside, and these `sides`."""
    height, width, channels = image.shape
    window = np.empty((*sides, channels), image.dtype)
    window[:] = outside
    rows = slice(max(0, top), max(0, min(height, top + sides[0])))
    columns = slice(max(0, left), max(0, min(width, left + sides[1])))
    inside = image[rows, columns]
    if inside.size:  # the window may miss the image
        down, right = rows.start - top, columns.start - left
        window[down : down + inside.shape[0], right : right + inside.shape[1]] = inside
    return window


def padded_crop(image: np.ndarray, rng: np.random.Generator, padding: int, outside: float = 0) -> np.ndarray:
    """Pads all sides of `image` by `padding` pixels of value `outside`, then crops randomly to its size."""
    top, left = rng.integers(2 * padding + 1, size=2) - padding
    return _window(image, top, left, (image.shape[0], image.shape[1]), outside)


def reflected_crop(image: np.ndarray, rng: np.random.Generator, padding: int) -> np.ndarray:
    """Pads all sides of `image` by its reflection (without its border), then crops randomly to its size.

    Source: Zagoruyko & Komodakis 2016 (arXiv 1605.07146), section 3.
    """
    top, left = rng.integers(2 * padding + 1, size=2)
    padded = np.pad(image, ((padding, padding), (padding, padding), (0, 0)), "reflect")
    return padded[top : top + image.shape[0], left : left + image.shape[1]]


def random_scaled_crop(
    image: np.ndarray,
    rng: np.random.Generator,
    size: int,
    scale_range: tuple[float, float],
    outside: float | np.ndarray = 0,
    resize: Resize = resize,
) -> np.ndarray:
    """Scales both sides by a factor uniform in `scale_range`, then crops `[size, size, C]` at a random place.

    This is the recipe of LPS for segmentation. If a side of the scaled image is shorter than `size`, the
    image is placed randomly along it, and `outside` (one value, or one for each channel) surrounds it.
    """
    factor = rng.uniform(*scale_range)
    sides = [max(1, round(factor * side)) for side in image.shape[:2]]
    top, left = (int(rng.integers(min(0, side - size), max(0, side - size) + 1)) for side in sides)
    return _window(resize(image, sides[0], sides[1]), top, left, (size, size), outside)


def random_view(
    image: np.ndarray, rng: np.random.Generator, size: int, crop_ratio: float, resize: Resize = resize
) -> np.ndarray:
    """`resize_shorter`, then a crop `[size, size, C]` at a random place."""
    image = resize_shorter(image, size, crop_ratio, resize)
    top, left = (int(rng.integers(side - size + 1)) for side in image.shape[:2])
    return image[top : top + size, left : left + size]

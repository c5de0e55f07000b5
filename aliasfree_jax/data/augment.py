"""Preparing single images for training and evaluation: pure functions of NumPy arrays.

Images are [H, W, C], uint8 or float32 in [0, 1]; every function keeps the dtype. Resizing is antialiased,
by the function that is passed in; all randomness comes from the generator that is passed in.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from PIL import ImageEnhance

from aliasfree_jax.data.decode import Resize, resize
from aliasfree_jax.data.rand_augment import RandAugment, as_pillow, from_pillow
from aliasfree_jax.data.views import evaluation_view, resize_shorter
from aliasfree_jax.errors import ConfigError, unknown

ASPECT_RATIOS = (3 / 4, 4 / 3)
ERASED_ASPECT_RATIOS = (0.3, 1 / 0.3)
ATTEMPTS = 10  # rectangles drawn until one fits


class Box(NamedTuple):
    """A rectangle of an image, in pixels."""

    top: int
    left: int
    height: int
    width: int


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The fields of `config.data` that say how an image becomes an input; same names and meanings.

    How it is decoded and resized is up to `decode.image_backend`.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: str = "none"
    crop_padding: int = 4
    crop_scale: tuple[float, float] = (0.08, 1.0)
    flip: bool = False
    rand_augment: RandAugment | None = None
    color_jitter: float = 0.0
    circular_shift: int = 0
    erase_probability: float = 0.0
    eval_crop_ratio: float = 0.875
    eval_view: str = "auto"
    zero_pad: int = 0

    @property
    def input_size(self) -> int:
        """Side of the network's square input, pixels."""
        return self.image_size + 2 * self.zero_pad

    @classmethod
    def from_config(cls, data: ConfigDict) -> "Preprocessing":
        """Reads `config.data`; ConfigError for a `rand_augment` of another notation."""
        values = {field.name: data[field.name] for field in dataclasses.fields(cls)}
        for name in ("mean", "std", "crop_scale"):
            values[name] = tuple(values[name])
        how = data.rand_augment
        return cls(**{**values, "rand_augment": RandAugment.parse(how) if how else None})


def _rectangles(
    area: int, rng: np.random.Generator, scale: tuple[float, float], ratios: tuple[float, float]
) -> Iterator[tuple[int, int]]:
    """Sides of random rectangles: share of `area` uniform in `scale`, quotient log-uniform in `ratios`."""
    low, high = (math.log(ratio) for ratio in ratios)
    for _ in range(ATTEMPTS):
        covered = area * rng.uniform(*scale)
        aspect = math.exp(rng.uniform(low, high))
        yield round(math.sqrt(covered * aspect)), round(math.sqrt(covered / aspect))


def random_box(height: int, width: int, rng: np.random.Generator, scale: tuple[float, float]) -> Box:
    """The rectangle of torchvision's and timm's RandomResizedCrop, in an image of `height` x `width`.

    Its share of the area is uniform in `scale`, its aspect ratio log-uniform in 3/4..4/3. After ten
    rectangles that do not fit: the largest centred one whose aspect ratio is within those bounds.
    """
    for w, h in _rectangles(height * width, rng, scale, ASPECT_RATIOS):
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
    """A random rectangle (`random_box`) of `image`, resized to [size, size, C]."""
    top, left, height, width = random_box(image.shape[0], image.shape[1], rng, scale)
    return resize(image[top : top + height, left : left + width], size, size)


def padded_crop(image: np.ndarray, rng: np.random.Generator, padding: int) -> np.ndarray:
    """Surrounds `image` by `padding` black pixels and takes a random crop of the original size."""
    height, width = image.shape[:2]
    padded = np.zeros((height + 2 * padding, width + 2 * padding, image.shape[2]), image.dtype)
    padded[padding : padding + height, padding : padding + width] = image
    top, left = rng.integers(2 * padding + 1, size=2)
    return padded[top : top + height, left : left + width]


def random_flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """`image`, mirrored left to right with probability 1/2."""
    return image[:, ::-1] if rng.random() < 0.5 else image


def circular_shift(image: np.ndarray, rng: np.random.Generator, largest: int) -> np.ndarray:
    """`image` rolled by whole numbers of pixels, uniform in -largest..largest along either axis.

    That is RandomCircularShift of LPS; circular_data_aug of APS draws one shift for a whole batch.
    """
    return np.roll(image, rng.integers(-largest, largest + 1, size=2), axis=(0, 1))


def color_jitter(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Brightness, contrast and saturation by factors uniform in 1 +- strength, in random order.

    ColorJitter of torchvision with one strength for the three, and no change of hue.
    """
    result = as_pillow(image)
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for index in rng.permutation(3):
        result = enhancers[index](result).enhance(rng.uniform(max(0.0, 1 - strength), 1 + strength))
    return from_pillow(result, image)


def random_erasing(image: np.ndarray, rng: np.random.Generator, probability: float) -> np.ndarray:
    """`image`, normalised, with one rectangle of normal random numbers (Zhong et al., arXiv 1708.04896).

    Its share of the area is uniform in 0.02..1/3, its aspect ratio log-uniform in 0.3..1/0.3; after ten
    rectangles that do not fit, none. The constants of timm's `pixel` mode.
    """
    if rng.random() >= probability:
        return image
    height, width, channels = image.shape
    for h, w in _rectangles(height * width, rng, (0.02, 1 / 3), ERASED_ASPECT_RATIOS):
        if 0 < h < height and 0 < w < width:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            image = image.copy()
            image[top : top + h, left : left + w] = rng.standard_normal((h, w, channels), np.float32)
            break
    return image


def random_view(
    image: np.ndarray, rng: np.random.Generator, size: int, crop_ratio: float, resize: Resize = resize
) -> np.ndarray:
    """`resize_shorter`, then a crop [size, size, C] anywhere."""
    image = resize_shorter(image, size, crop_ratio, resize)
    top, left = (int(rng.integers(side - size + 1)) for side in image.shape[:2])
    return image[top : top + size, left : left + size]


def _evaluated(image: np.ndarray, how: Preprocessing, resize: Resize) -> np.ndarray:
    return evaluation_view(image, how.image_size, how.eval_crop_ratio, how.eval_view, resize)


# data.crop
CROPPED: dict[str, Callable[[np.ndarray, np.random.Generator, Preprocessing, Resize], np.ndarray]] = {
    "none": lambda image, rng, how, resize: _evaluated(image, how, resize),
    "padded": lambda image, rng, how, resize: padded_crop(
        _evaluated(image, how, resize), rng, how.crop_padding
    ),
    "random": lambda image, rng, how, resize: random_view(
        image, rng, how.image_size, how.eval_crop_ratio, resize
    ),
    "random_resized": lambda image, rng, how, resize: random_resized_crop(
        image, rng, how.image_size, how.crop_scale, resize
    ),
}


def augment(
    image: np.ndarray, rng: np.random.Generator, how: Preprocessing, resize: Resize = resize
) -> np.ndarray:
    """The training view of `image`, [image_size, image_size, C].

    Crop, flip, RandAugment or colour jitter, circular shift. The crops "none" and "padded" start from the
    evaluation view. Erasing and padding come after `normalize`.
    """
    if how.crop not in CROPPED:
        raise ConfigError(unknown("data.crop", how.crop, CROPPED))
    image = CROPPED[how.crop](image, rng, how, resize)
    if how.flip:
        image = random_flip(image, rng)
    if how.rand_augment:
        image = how.rand_augment(image, rng)
    elif how.color_jitter:
        image = color_jitter(image, rng, how.color_jitter)
    return circular_shift(image, rng, how.circular_shift) if how.circular_shift else image


def normalize(image: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """(image - mean) / std a channel, of the image in [0, 1] (uint8 is divided by 255); float32 [H, W, C].

    Raises:
      ConfigError: `mean` or `std` does not have one number a channel.
    """
    height, width, channels = image.shape
    if len(mean) != channels or len(std) != channels:
        raise ConfigError(
            f"data.mean has {len(mean)} and data.std {len(std)} entries, but the images have {channels} "
            f"channel{'s' * (channels > 1)}: give one number a channel."
        )
    scale, offset = _row_constants(mean, std, width, 255 if image.dtype == np.uint8 else 1)
    rows = image.reshape(height, width * channels) * scale
    rows -= offset
    return rows.reshape(image.shape)


def denormalize(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Undoes `normalize`: [..., C] as uint8, clipped and rounded, to be looked at."""
    return np.rint(np.clip(images * np.asarray(std) + np.asarray(mean), 0, 1) * 255).astype(np.uint8)


@lru_cache
def _row_constants(
    mean: tuple[float, ...], std: tuple[float, ...], width: int, unit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset of a whole row: NumPy is slow when the innermost axis has three elements."""
    scale = np.tile(1 / (unit * np.asarray(std, np.float64)), width)
    offset = np.tile(np.asarray(mean, np.float64) / np.asarray(std, np.float64), width)
    return scale.astype(np.float32), offset.astype(np.float32)

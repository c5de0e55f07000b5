"""Prepares images, and labels of pixels, for training: pure functions of NumPy arrays.

Images are `[H, W, C]`, uint8 or float32 in [0, 1]; every function keeps the dtype. The caller passes in the
antialiased resize function and the random generator. If a label is a mask `[H, W, 1]` or a target image,
every step that moves pixels moves the label in the same way.
"""

import dataclasses
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict
from PIL import ImageEnhance

from aliasfree_jax.data.crops import (
    padded_crop,
    random_resized_crop,
    random_scaled_crop,
    random_view,
    rectangles,
    reflected_crop,
)
from aliasfree_jax.data.decode import Resize, resize
from aliasfree_jax.data.masks import resize_nearest
from aliasfree_jax.data.rand_augment import RandAugment, as_pillow, from_pillow
from aliasfree_jax.data.sources import IGNORED
from aliasfree_jax.data.views import evaluation_view, kind_of_view
from aliasfree_jax.errors import ConfigError, unknown

ERASED_ASPECT_RATIOS = (0.3, 1 / 0.3)


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """The fields of `config.data` that turn an image into an input, with the same names and meanings.

    `decode.image_backend` decides how an image is decoded and resized.
    """

    image_size: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop: str = "none"
    crop_padding: int = 4
    crop_scale: tuple[float, float] = (0.08, 1.0)
    scale_range: tuple[float, float] = (0.5, 2.0)
    flip: bool = False
    rand_augment: RandAugment | None = None
    color_jitter: float = 0.0
    circular_shift: int = 0
    erase_probability: float = 0.0
    noise: float = 0.0
    reduction: int = 1
    eval_crop_ratio: float = 0.875
    eval_view: str = "auto"
    zero_pad: int = 0
    task: str = "classification"

    @property
    def input_size(self) -> int:
        """Side of the network's square input in pixels."""
        return self.image_size + 2 * self.zero_pad

    @classmethod
    def from_config(cls, data: ConfigDict, task: str = "classification") -> "Preprocessing":
        """Reads `config.data`.

        Args:
          data: the section `config.data`.
          task: a name of `config.TASKS`.

        Raises:
          ConfigError: `data.rand_augment` is not in the expected notation.
        """
        values = {field.name: data[field.name] for field in dataclasses.fields(cls) if field.name != "task"}
        for name in ("mean", "std", "crop_scale", "scale_range"):
            values[name] = tuple(values[name])
        values["eval_view"] = kind_of_view(data.eval_view, task)
        how = data.rand_augment
        return cls(**{**values, "rand_augment": RandAugment.parse(how) if how else None, "task": task})


def check_task(data: ConfigDict, task: str) -> None:
    """Refuses fields that examples of this task cannot use.

    Raises:
      ConfigError: such a field is set.
    """
    if data.rand_augment and task != "classification":
        raise ConfigError(
            f"data.rand_augment = {data.rand_augment!r} moves images without their masks or targets, so task "
            f"= {task!r} cannot use it: set data.rand_augment = ''. data.color_jitter changes colours only."
        )
    if task != "regression" and (data.noise > 0 or data.reduction > 1):
        raise ConfigError(
            f"data.noise = {data.noise:g} and data.reduction = {data.reduction} are only for task = "
            f"'regression', but the task is {task}: set config.task, or data.noise = 0 and "
            "data.reduction = 1."
        )


def random_flip(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Mirrors `image` left to right with probability 1/2."""
    return image[:, ::-1] if rng.random() < 0.5 else image


def circular_shift(image: np.ndarray, rng: np.random.Generator, largest: int) -> np.ndarray:
    """Rolls `image` by whole pixels, uniform in -largest..largest along each axis.

    This is RandomCircularShift of LPS. In contrast, circular_data_aug of APS draws one shift for a whole
    batch.
    """
    return np.roll(image, rng.integers(-largest, largest + 1, size=2), axis=(0, 1))


def color_jitter(image: np.ndarray, rng: np.random.Generator, strength: float) -> np.ndarray:
    """Scales brightness, contrast and saturation by factors uniform in 1 +- strength, in random order.

    Like torchvision's ColorJitter with one strength for all three, and without a change of hue.
    """
    result = as_pillow(image)
    enhancers = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
    for index in rng.permutation(3):
        result = enhancers[index](result).enhance(rng.uniform(max(0.0, 1 - strength), 1 + strength))
    return from_pillow(result, image)


def random_erasing(image: np.ndarray, rng: np.random.Generator, probability: float) -> np.ndarray:
    """Replaces one rectangle of a normalised image by normal random numbers (Zhong et al., arXiv 1708.04896).

    Its share of the area is uniform in 0.02..1/3, its aspect ratio log-uniform in 0.3..1/0.3. If ten
    rectangles do not fit, nothing is erased. The constants are those of timm's `pixel` mode.
    """
    if rng.random() >= probability:
        return image
    height, width, channels = image.shape
    for h, w in rectangles(height * width, rng, (0.02, 1 / 3), ERASED_ASPECT_RATIOS):
        if 0 < h < height and 0 < w < width:
            top, left = rng.integers(height - h + 1), rng.integers(width - w + 1)
            image = image.copy()
            image[top : top + h, left : left + w] = rng.standard_normal((h, w, channels), np.float32)
            break
    return image


class Surface(NamedTuple):
    """How the pixels of an image or label are moved.

    Attributes:
      resize: the resize function.
      ignored: value outside a mask; None for images.
    """

    resize: Resize
    ignored: int | None = None


def surface_of_label(how: Preprocessing, resize: Resize) -> Surface:
    """Class numbers are never blended; a target image is moved like its image."""
    return Surface(resize_nearest, IGNORED) if how.task == "segmentation" else Surface(resize)


def evaluated(image: np.ndarray, how: Preprocessing, resize: Resize) -> np.ndarray:
    """The evaluation view of an image, mask or target image."""
    return evaluation_view(image, how.image_size, how.eval_crop_ratio, how.eval_view, resize)


def _outside(image: np.ndarray, how: Preprocessing, on: Surface) -> int | np.ndarray:
    """The mean colour, which is zero after normalisation; for a mask, IGNORED."""
    if on.ignored is not None:
        return on.ignored
    check_channels(image, how.mean, how.std)
    return np.rint(np.multiply(how.mean, 255)) if image.dtype == np.uint8 else np.asarray(how.mean)


# data.crop
CROPPED: dict[str, Callable[[np.ndarray, np.random.Generator, Preprocessing, Surface], np.ndarray]] = {
    "none": lambda image, rng, how, on: evaluated(image, how, on.resize),
    "padded": lambda image, rng, how, on: padded_crop(
        evaluated(image, how, on.resize), rng, how.crop_padding, on.ignored or 0
    ),
    "reflected": lambda image, rng, how, on: reflected_crop(
        evaluated(image, how, on.resize), rng, how.crop_padding
    ),
    "random": lambda image, rng, how, on: random_view(
        image, rng, how.image_size, how.eval_crop_ratio, on.resize
    ),
    "random_resized": lambda image, rng, how, on: random_resized_crop(
        image, rng, how.image_size, how.crop_scale, on.resize
    ),
    "random_scaled": lambda image, rng, how, on: random_scaled_crop(
        image, rng, how.image_size, how.scale_range, _outside(image, how, on), on.resize
    ),
}


class _Together:
    """An image and, if it has one, its label of pixels. Steps that move pixels move both."""

    def __init__(self, image: np.ndarray, label: np.ndarray | None, how: Preprocessing, resize: Resize):
        self.image, self.label = image, label
        self._surfaces = Surface(resize), surface_of_label(how, resize)

    def move(
        self, step: Callable[[np.ndarray, np.random.Generator, Surface], np.ndarray], rng: np.random.Generator
    ) -> None:
        """Applies `step` to both with the same random draws, which depend only on the sides of the array."""
        before = rng.bit_generator.state
        same = self.label is self.image
        self.image = step(self.image, rng, self._surfaces[0])
        if same:
            self.label = self.image
        elif self.label is not None:
            rng.bit_generator.state = before
            self.label = step(self.label, rng, self._surfaces[1])


def augment(
    image: np.ndarray,
    rng: np.random.Generator,
    how: Preprocessing,
    resize: Resize = resize,
    label: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray | None]:
    """The training view of `image` `[image_size, image_size, C]`, and of its label of pixels.

    The steps are crop, flip, RandAugment or colour jitter, and circular shift. Colours change in the image
    only. The crops "none" and "padded" start from the evaluation view. Erasing and padding follow after
    `normalize`.

    Args:
      image: `[H, W, C]`.
      rng: the generator; a label does not change the draws.
      how: the steps, and the task, which decides the kind of label.
      resize: the function that resizes images.
      label: a mask `[H, W, 1]`, or a target image `[H, W, K]`, which may be the image itself.

    Raises:
      ConfigError: `how.crop` is unknown, or the image has the wrong number of channels.
    """
    if how.crop not in CROPPED:
        raise ConfigError(unknown("data.crop", how.crop, CROPPED))
    pair = _Together(image, label, how, resize)
    pair.move(lambda image, rng, on: CROPPED[how.crop](image, rng, how, on), rng)
    if how.flip:
        pair.move(lambda image, rng, on: random_flip(image, rng), rng)
    if how.rand_augment:
        pair.image = how.rand_augment(pair.image, rng)
    elif how.color_jitter:
        pair.image = color_jitter(pair.image, rng, how.color_jitter)
    if how.circular_shift:
        pair.move(lambda image, rng, on: circular_shift(image, rng, how.circular_shift), rng)
    return pair.image, pair.label


def check_channels(image: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Checks that `mean` and `std` have one number for each channel.

    Raises:
      ConfigError: they do not.
    """
    channels = image.shape[2]
    if len(mean) != channels or len(std) != channels:
        raise ConfigError(
            f"data.mean has {len(mean)} and data.std {len(std)} entries, but the images have {channels} "
            f"channel{'s' * (channels > 1)}: give one number for each channel."
        )


def normalize(image: np.ndarray, mean: tuple[float, ...], std: tuple[float, ...]) -> np.ndarray:
    """Computes (image - mean) / std for each channel of the image in [0, 1]; float32 `[H, W, C]`.

    uint8 images are divided by 255 first.

    Raises:
      ConfigError: `mean` or `std` does not have one number for each channel.
    """
    check_channels(image, mean, std)
    height, width, channels = image.shape
    scale, offset = _row_constants(mean, std, width, 255 if image.dtype == np.uint8 else 1)
    rows = image.reshape(height, width * channels) * scale
    rows -= offset
    return rows.reshape(image.shape)


def denormalize(images: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Reverses `normalize` for display: `[..., C]` as uint8, clipped and rounded."""
    return np.rint(np.clip(images * np.asarray(std) + np.asarray(mean), 0, 1) * 255).astype(np.uint8)


@lru_cache
def _row_constants(
    mean: tuple[float, ...], std: tuple[float, ...], width: int, unit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scale and offset of a whole row. NumPy is slow if the innermost axis has three elements."""
    scale = np.tile(1 / (unit * np.asarray(std, np.float64)), width)
    offset = np.tile(np.asarray(mean, np.float64) / np.asarray(std, np.float64), width)
    return scale.astype(np.float32), offset.astype(np.float32)

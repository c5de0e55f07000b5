"""RandAugment (Cubuk et al. 2020, arXiv 1909.13719) with the operations of timm's `rand-...-inc1`.

It has fifteen operations of Pillow, whose strength grows with a magnitude from 0 to 10. The constants are
those of ConvNeXt's recipe.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from aliasfree_jax.errors import ConfigError

Operation = Callable[[Image.Image, float, np.random.Generator], Image.Image]

LARGEST = 10.0  # magnitude
FILL = (124, 116, 104)  # colour of pixels from outside the image: the mean of ImageNet


def _fill(image: Image.Image) -> int | tuple[int, ...]:
    return FILL if image.mode == "RGB" else FILL[1]


def _signed(value: float, rng: np.random.Generator) -> float:
    return value if rng.random() < 0.5 else -value


def _affine(largest: float, matrix: Callable[[float, Image.Image], tuple[float, ...]]) -> Operation:
    """Moves pixels by the `matrix` of a number of random sign, whose size grows up to `largest`."""

    def operation(image: Image.Image, magnitude: float, rng: np.random.Generator) -> Image.Image:
        moved = matrix(_signed(largest * magnitude / LARGEST, rng), image)
        kind, how = Image.Transform.AFFINE, Image.Resampling.BICUBIC
        return image.transform(image.size, kind, moved, how, fillcolor=_fill(image))

    return operation


def _rotate(image: Image.Image, magnitude: float, rng: np.random.Generator) -> Image.Image:
    degrees = _signed(30 * magnitude / LARGEST, rng)
    return image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=_fill(image))


def _posterize(image: Image.Image, magnitude: float, rng: np.random.Generator) -> Image.Image:
    # A table, because Pillow refuses the 0 bits of magnitude 10 (a black image).
    kept = 256 - 2 ** (8 - (4 - int(0.4 * magnitude)))
    return image.point([value & kept for value in range(256)] * len(image.getbands()))


def _solarize(image: Image.Image, magnitude: float, rng: np.random.Generator) -> Image.Image:
    return ImageOps.solarize(image, 256 - int(25.6 * magnitude))


def _solarize_add(image: Image.Image, magnitude: float, rng: np.random.Generator) -> Image.Image:
    more = int(11 * magnitude)
    table = [min(255, value + more) if value < 128 else value for value in range(256)]
    return image.point(table * len(image.getbands()))


def _enhanced(enhancer: Callable[[Image.Image], ImageEnhance._Enhance]) -> Operation:
    def operation(image: Image.Image, magnitude: float, rng: np.random.Generator) -> Image.Image:
        return enhancer(image).enhance(1 + _signed(0.9 * magnitude / LARGEST, rng))

    return operation


OPERATIONS: dict[str, Operation] = {
    "AutoContrast": lambda image, magnitude, rng: ImageOps.autocontrast(image),
    "Equalize": lambda image, magnitude, rng: ImageOps.equalize(image),
    "Invert": lambda image, magnitude, rng: ImageOps.invert(image),
    "Rotate": _rotate,
    "Posterize": _posterize,
    "Solarize": _solarize,
    "SolarizeAdd": _solarize_add,
    "Color": _enhanced(ImageEnhance.Color),
    "Contrast": _enhanced(ImageEnhance.Contrast),
    "Brightness": _enhanced(ImageEnhance.Brightness),
    "Sharpness": _enhanced(ImageEnhance.Sharpness),
    "ShearX": _affine(0.3, lambda by, image: (1, by, 0, 0, 1, 0)),
    "ShearY": _affine(0.3, lambda by, image: (1, 0, 0, by, 1, 0)),
    "TranslateX": _affine(0.45, lambda by, image: (1, 0, by * image.width, 0, 1, 0)),
    "TranslateY": _affine(0.45, lambda by, image: (1, 0, 0, 0, 1, by * image.height)),
}


def as_pillow(image: np.ndarray) -> Image.Image:
    """Converts uint8, or float32 in [0, 1], `[H, W, 1 or 3]` to an image of 8 bits.

    Raises:
      ConfigError: another number of channels.
    """
    if image.shape[2] not in (1, 3):
        raise ConfigError(
            f"RandAugment and colour jitter need images of 1 or 3 channels, not {image.shape[2]}: set "
            "data.rand_augment = '' and data.color_jitter = 0."
        )
    if image.dtype != np.uint8:
        image = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    return Image.fromarray(image if image.shape[2] == 3 else image[..., 0])


def from_pillow(image: Image.Image, like: np.ndarray) -> np.ndarray:
    """Converts to an array `[H, W, C]` with the dtype and channels of `like`."""
    array = np.asarray(image).reshape(image.height, image.width, like.shape[2])
    return array if like.dtype == np.uint8 else array.astype(like.dtype) / 255


@dataclass(frozen=True)
class RandAugment:
    """Applies several of the fifteen operations in sequence, drawn with replacement.

    Attributes:
      magnitude: mean of the magnitude of each operation.
      deviation: standard deviation of the magnitude, which is clipped to 0..10.
      operations: number of operations drawn.
      probability: probability that a drawn operation is applied.
    """

    magnitude: float = 9.0
    deviation: float = 0.0
    operations: int = 2
    probability: float = 0.5

    @classmethod
    def parse(cls, text: str) -> "RandAugment":
        """Reads timm's notation: `rand-m9-mstd0.5-inc1`, optionally with n2 and p0.5.

        Raises:
          ConfigError: another notation, or one without inc1 (operations that weaken as the magnitude grows).
        """
        name, *parts = text.split("-")
        found = [re.fullmatch(r"(mstd|m|n|p|inc)(\d+(?:\.\d+)?)", part) for part in parts]
        values = {"m": 9.0} | {match[1]: float(match[2]) for match in found if match}
        if name != "rand" or None in found or values.get("inc") != 1 or values["m"] > LARGEST:
            raise ConfigError(
                f"data.rand_augment = {text!r} does not have the form 'rand-m9-mstd0.5-inc1': m is the "
                "magnitude (0 to 10), mstd its standard deviation. Optional are n2 (the number of "
                "operations) and p0.5 (their probability)."
            )
        return cls(values["m"], values.get("mstd", 0.0), int(values.get("n", 2)), values.get("p", 0.5))

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Augments an image `[H, W, C]`; shape and dtype stay. Float images are rounded to 8 bits."""
        result, names = as_pillow(image), list(OPERATIONS)
        for index in rng.integers(len(names), size=self.operations):
            if rng.random() < self.probability:
                magnitude = min(LARGEST, max(0.0, rng.normal(self.magnitude, self.deviation)))
                result = OPERATIONS[names[index]](result, magnitude, rng)
        return from_pillow(result, image)

"""RandAugment (Cubuk et al. 2020, arXiv 1909.13719) with the operations of timm's `rand-...-inc1`.

Fifteen operations of Pillow, whose severity grows with a magnitude from 0 to 10. The constants are those
of the recipe of ConvNeXt.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from aliasfree_jax.errors import ConfigError

Operation = Callable[[Image.Image, float, np.random.Generator], Image.Image]

LARGEST = 10.0  # magnitude
FILL = (124, 116, 104)  # what comes in from outside: the mean colour of ImageNet


def _fill(image: Image.Image) -> int | tuple[int, ...]:
    return FILL if image.mode == "RGB" else FILL[1]


def _signed(value: float, rng: np.random.Generator) -> float:
    return value if rng.random() < 0.5 else -value


def _affine(largest: float, matrix: Callable[[float, Image.Image], tuple[float, ...]]) -> Operation:
    """Moves pixels by the `matrix` of a number of either sign, which grows up to `largest`."""

    def operation(image: Image.Image, magnitude: float, rng: np.random.Generator) -> Image.Image:
        moved = matrix(_signed(largest * magnitude / LARGEST, rng), image)
        kind, how = Image.Transform.AFFINE, Image.Resampling.BICUBIC
        return image.transform(image.size, kind, moved, how, fillcolor=_fill(image))

    return operation


def _rotate(image: Image.Image, magnitude: float, rng: np.random.Generator) -> Image.Image:
    degrees = _signed(30 * magnitude / LARGEST, rng)
    return image.rotate(degrees, Image.Resampling.BICUBIC, fillcolor=_fill(image))


def _posterize(image: Image.Image, magnitude: float, rng: np.random.Generator) -> Image.Image:
    # By a table: Pillow refuses the 0 bits of magnitude 10, which leave a black image.
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
    """uint8 or float32 in [0, 1], [H, W, 1 or 3], as an image of 8 bits.

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
    """[H, W, C] in the dtype and with the channels of `like`."""
    array = np.asarray(image).reshape(image.height, image.width, like.shape[2])
    return array if like.dtype == np.uint8 else array.astype(like.dtype) / 255


@dataclass(frozen=True)
class RandAugment:
    """Applies `operations` of the fifteen, drawn with replacement, each with a `probability`.

    Each time the magnitude is normal around `magnitude` with `deviation`, cut to 0..10.
    """

    magnitude: float = 9.0
    deviation: float = 0.0
    operations: int = 2
    probability: float = 0.5

    @classmethod
    def parse(cls, text: str) -> "RandAugment":
        """From timm's notation: `rand-m9-mstd0.5-inc1`, with n2 and p0.5 besides.

        Raises:
          ConfigError: another notation, or without inc1 (operations that get milder with the magnitude).
        """
        name, *parts = text.split("-")
        found = [re.fullmatch(r"(mstd|m|n|p|inc)(\d+(?:\.\d+)?)", part) for part in parts]
        values = {"m": 9.0} | {match[1]: float(match[2]) for match in found if match}
        if name != "rand" or None in found or values.get("inc") != 1 or values["m"] > LARGEST:
            raise ConfigError(
                f"data.rand_augment = {text!r} is not of the form 'rand-m9-mstd0.5-inc1': m is the "
                "magnitude, 0 to 10, mstd its deviation; n2 operations with probability p0.5 may be given "
                "besides."
            )
        return cls(values["m"], values.get("mstd", 0.0), int(values.get("n", 2)), values.get("p", 0.5))

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """[H, W, C] to the same shape and dtype; float images are rounded to 8 bits."""
        result, names = as_pillow(image), list(OPERATIONS)
        for index in rng.integers(len(names), size=self.operations):
            if rng.random() < self.probability:
                magnitude = min(LARGEST, max(0.0, rng.normal(self.magnitude, self.deviation)))
                result = OPERATIONS[names[index]](result, magnitude, rng)
        return from_pillow(result, image)

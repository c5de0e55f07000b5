"""Scenes of handwritten digits on textured ground, with the class of each pixel. They are made on demand.

A scene is periodic and band-limited. Digits have real-valued places and sizes, and wrap around the border. So
a shifted scene is one that could have been made too.
"""

from functools import lru_cache

import numpy as np

from aliasfree_jax.data.digits import read_digits
from aliasfree_jax.data.sources import Example

COUNTS = {"train": 4096, "val": 512}
SEED = 0
SIDE = 40  # side of a scene in which SIZES are in pixels
SIZES = (1.6, 2.4)  # distance between the samples of a digit
DIGITS = (2, 4)  # smallest number of digits, and one more than the largest
PLACES = 6  # places drawn for a digit; the one farthest from the other digits is used
INK = (0.45, 0.75)  # brightness of a digit
MASKED_FROM = 0.3  # share of full ink from which a pixel belongs to the digit
GROUND = 0.25  # mean brightness of the ground
TEXTURE = 0.08  # standard deviation of the ground
FREQUENCIES = 6  # highest frequency of the texture, cycles per scene


class DigitScenesSource:
    """Scenes of 2 or 3 digits, float32 `[image_size, image_size, 1]`: 4096 of "train" or 512 of "val".

    Class 0 is the ground, class 1 + d is the digit d. A pixel belongs to the last painted digit whose ink
    there is at least 0.3 of full ink. Scene `index` of a split is always the same. The splits use different
    digits, those of `DigitsSource`. Values overshoot [0, 1] slightly.

    Raises:
      ConfigError: another split.
      MissingPackageError: scikit-learn is not installed.
    """

    task = "segmentation"
    class_names = ("ground", *map(str, range(10)))

    def __init__(self, split: str, image_size: int):
        self._digits, self._classes = read_digits(split)
        self._split, self._size = split, image_size

    def __len__(self) -> int:
        """Number of scenes."""
        return COUNTS[self._split]

    def __getitem__(self, index: int) -> Example:
        """The scene at `index` and its mask."""
        rng = np.random.default_rng((SEED, list(COUNTS).index(self._split), index))
        scene = GROUND + TEXTURE * _texture(self._size, rng)
        mask = np.zeros(scene.shape, np.uint8)
        smallest, largest = (max(1.0, size * self._size / SIDE) for size in SIZES)
        centres: list[np.ndarray] = []
        for chosen in rng.integers(len(self._digits), size=rng.integers(*DIGITS)):
            centres.append(_place(centres, self._size, rng))
            step = rng.uniform(smallest, largest)
            rows, columns = (_placed(self._size, centre, step) for centre in centres[-1])
            ink = rows @ self._digits[chosen] @ columns.T
            scene += rng.uniform(*INK) * ink
            mask[ink >= MASKED_FROM] = 1 + self._classes[chosen]
        image = scene[..., None].astype(np.float32)
        return Example(image, mask, f"digit_scenes/{self._split}[{index}]")


def _place(others: list[np.ndarray], size: int, rng: np.random.Generator) -> np.ndarray:
    """Centre of a digit (row, column): the farthest from the others of a few random places."""
    places = rng.uniform(0, size, (PLACES, 2))
    if not others:
        return places[0]
    apart = np.abs(places[:, None] - np.asarray(others)[None])
    distances = np.minimum(apart, size - apart).max(-1).min(-1)
    return places[np.argmax(distances)]


def _placed(size: int, centre: float, step: float) -> np.ndarray:
    """Ideal interpolation of 8 samples, `step` pixels apart around `centre`, on a circle; `[size, 8]`.

    A sample becomes the periodic kernel of the frequencies that samples at this distance can represent.
    """
    highest = int((size / step - 1) // 2)
    distance = np.arange(size)[:, None] - (centre + step * (np.arange(8) - 3.5))[None]
    angle = np.pi * distance / size
    below = np.sin(angle)
    near = np.abs(below) < 1e-9  # on the sample, the quotient is replaced by its limit
    kernel = np.sin((2 * highest + 1) * angle) / np.where(near, 1, below)
    return np.where(near, 2 * highest + 1, kernel) * step / size


def _texture(size: int, rng: np.random.Generator) -> np.ndarray:
    """A random map [size, size] of low frequencies, mean 0, standard deviation 1."""
    basis = _basis(size)
    amplitudes = rng.standard_normal((basis.shape[1], basis.shape[1]))
    amplitudes[0, 0] = 0
    return basis @ amplitudes @ basis.T / np.sqrt((amplitudes**2).sum())


@lru_cache
def _basis(size: int) -> np.ndarray:
    """The sines and cosines of an axis up to the highest frequency, with mean square 1; `[size, 2 K + 1]`."""
    highest = min(FREQUENCIES, (size - 1) // 2)
    angles = 2 * np.pi * np.arange(size)[:, None] * np.arange(1, highest + 1)[None] / size
    return np.concatenate([np.ones((size, 1)), np.sqrt(2) * np.cos(angles), np.sqrt(2) * np.sin(angles)], 1)

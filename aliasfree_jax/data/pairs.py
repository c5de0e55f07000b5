"""Makes the network's input and label from an example, for training and for evaluation."""

import numpy as np

from aliasfree_jax.data.augment import (
    Preprocessing,
    augment,
    evaluated,
    normalize,
    random_erasing,
    surface_of_label,
)
from aliasfree_jax.data.decode import Resize
from aliasfree_jax.data.degrade import degrade
from aliasfree_jax.data.sources import IGNORED, Example
from aliasfree_jax.data.views import zero_pad

Label = int | np.ndarray


def training_pair(
    example: Example, rng: np.random.Generator, how: Preprocessing, resize: Resize
) -> tuple[np.ndarray, Label]:
    """The augmented input, float32 `[H, W, C]`, and the label of a decoded example."""
    image, label = augment(np.asarray(example.image), rng, how, resize, _of_pixels(example, how))
    image = normalize(degrade(image, rng, how.noise, how.reduction), how.mean, how.std)
    image = random_erasing(image, rng, how.erase_probability)
    return zero_pad(image, how.zero_pad), _finished(example, label, how)


def evaluation_pair(
    example: Example, index: int, how: Preprocessing, resize: Resize
) -> tuple[np.ndarray, Label]:
    """The input and label of a decoded example for evaluation. Its index is the seed of the noise."""
    label = _of_pixels(example, how)
    if label is not None:
        label = evaluated(label, how, surface_of_label(how, resize).resize)
    image = evaluated(np.asarray(example.image), how, resize)
    image = degrade(image, np.random.default_rng(index), how.noise, how.reduction)
    return zero_pad(normalize(image, how.mean, how.std), how.zero_pad), _finished(example, label, how)


def label_form(how: Preprocessing) -> tuple[tuple[int, ...], type, int]:
    """Shape, dtype and padding value of a label in a batch."""
    side = how.input_size
    return {
        "classification": ((), np.int32, 0),
        "segmentation": ((side, side), np.int32, IGNORED),
        "regression": ((side, side, len(how.mean)), np.float32, 0),
    }[how.task]


def _of_pixels(example: Example, how: Preprocessing) -> np.ndarray | None:
    """The label `[H, W, K]` if it is a label of pixels; else None."""
    if how.task == "classification":
        return None
    label = np.asarray(example.label)
    return label[..., None] if how.task == "segmentation" else label


def _finished(example: Example, label: np.ndarray | None, how: Preprocessing) -> Label:
    """The label in a batch: the class, the classes of pixels, or the target normalised like the image."""
    if label is None:
        return int(example.label)
    if how.task == "segmentation":
        return zero_pad(label, how.zero_pad, IGNORED)[..., 0].astype(np.int32)
    return zero_pad(normalize(label, how.mean, how.std), how.zero_pad)

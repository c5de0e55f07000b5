"""scikit-learn's handwritten digits, which need no download."""

import jax.numpy as jnp
import numpy as np

from aliasfree_jax.data.arrays import ArraySource
from aliasfree_jax.data.sources import balanced_quotas
from aliasfree_jax.errors import ConfigError, needed, unknown
from aliasfree_jax.ops.resample import ideal_resample

VAL_EXAMPLES = 297
GREY_LEVELS = 16
SPLIT_SEED = 0


def read_digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Images and classes of a split: 1500 of "train" or 297 of "val".

    Returns:
      float32 `[N, 8, 8]` in [0, 1], and the classes `[N]`.

    Raises:
      ConfigError: another split.
      MissingPackageError: scikit-learn is not installed.
    """
    if split not in ("train", "val"):
        raise ConfigError(unknown("split of digits", split, ("train", "val")))
    # Imported here because it is slow, and other sources do not need it.
    data = needed("sklearn.datasets", "data.source = 'digits' or 'digit_scenes'").load_digits()
    indices = _split_indices(data.target, split)
    return (data.images[indices] / GREY_LEVELS).astype(np.float32), data.target[indices]


class DigitsSource(ArraySource):
    """scikit-learn's 8x8 digits as float `[image_size, image_size, 1]`: 1500 of "train" or 297 of "val".

    The images are enlarged by ideal, periodic interpolation, so they are band-limited. They overshoot [0, 1]
    slightly; clipping would bring aliasing back. The split is fixed and stratified.

    Raises:
      ConfigError: another split.
      MissingPackageError: scikit-learn is not installed.
    """

    def __init__(self, split: str, image_size: int):
        images, classes = read_digits(split)
        resized = np.asarray(ideal_resample(jnp.asarray(images[..., None]), (image_size, image_size)))
        super().__init__(resized, classes, [str(d) for d in range(10)], name=f"digits/{split}")


def _split_indices(labels: np.ndarray, split: str) -> np.ndarray:
    """Indices of the examples of `split`. A fixed random share of every class is for validation."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    quotas = balanced_quotas(np.bincount(labels), VAL_EXAMPLES)
    val = np.concatenate([order[labels[order] == k][:quota] for k, quota in enumerate(quotas)])
    held_out = np.isin(order, val)
    return order[held_out] if split == "val" else order[~held_out]

"""scikit-learn's bundled 8x8 digits: a real data set that needs no download, for demos and tests."""

import numpy as np

from aliasfree_jax.data.sources import ArraySource, balanced_quotas
from aliasfree_jax.errors import ConfigError, needed, unknown
from aliasfree_jax.ops.resample import ideal_resample

VAL_EXAMPLES = 297
GREY_LEVELS = 16
SPLIT_SEED = 0


class DigitsSource(ArraySource):
    """1500 training ("train") or 297 validation ("val") digits, float [image_size, image_size, 1].

    Enlarged by ideal, periodic interpolation, so the images are band-limited; they overshoot [0, 1]
    a little, and clipping would bring aliasing back. The split is fixed and stratified.

    Raises:
      ConfigError: another split.
      MissingPackageError: scikit-learn is not installed.
    """

    def __init__(self, split: str, image_size: int):
        if split not in ("train", "val"):
            raise ConfigError(unknown("split of digits", split, ("train", "val")))
        # Slow to import, and other sources do not need it.
        data = needed("sklearn.datasets", "data.source = 'digits'").load_digits()
        indices = _split_indices(data.target, split)
        images = (data.images[indices, :, :, None] / GREY_LEVELS).astype(np.float32)
        resized = np.asarray(ideal_resample(images, (image_size, image_size)))
        super().__init__(resized, data.target[indices], [str(d) for d in range(10)], name=f"digits/{split}")


def _split_indices(labels: np.ndarray, split: str) -> np.ndarray:
    """Positions of the examples of `split`: a fixed random share of every class is for validation."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    quotas = balanced_quotas(np.bincount(labels), VAL_EXAMPLES)
    val = np.concatenate([order[labels[order] == k][:quota] for k, quota in enumerate(quotas)])
    held_out = np.isin(order, val)
    return order[held_out] if split == "val" else order[~held_out]

"""From the data section of a configuration to a source; the digits, which need no download."""

from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from aliasfree_jax.config import SOURCES
from aliasfree_jax.data.archives import open_tree
from aliasfree_jax.data.cifar import FILES, CifarSource, find_cifar
from aliasfree_jax.data.folder import FolderSource, data_path, is_kept
from aliasfree_jax.data.records import RecordSource
from aliasfree_jax.data.sources import ArraySource, Source, balanced_quotas, limit, split_names
from aliasfree_jax.data.tfds import TfdsSource
from aliasfree_jax.errors import ConfigError, DataError, needed, unknown
from aliasfree_jax.ops.resample import ideal_resample

VAL_EXAMPLES = 297
GREY_LEVELS = 16
SPLIT_SEED = 0


class DigitsSource(ArraySource):
    """scikit-learn's 8x8 digits, float [image_size, image_size, 1]: 1500 of "train" or 297 of "val".

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


def open_source(data: ConfigDict, *, train: bool) -> Source:
    """Opens the training or evaluation split named by `config.data`, with its limit applied.

    The training split has all its images: `sources.hold_out` divides off those of `data.validation`.

    Raises:
      ConfigError: unknown source, a field that the source needs is empty, or `arrays`.
      DataError: the data are missing or unreadable.
    """
    split = data.train_split if train else data.eval_split
    return limit(_open_split(data, split), data.train_limit if train else data.eval_limit)


def open_images(text: str | Path, split: str) -> Source:
    """The images of one split of a directory or archive: class folders, or the pickles of CIFAR.

    Raises:
      ConfigError: an address.
      DataError: the data are missing or unreadable.
    """
    path, names = data_path(text), split_names(split)
    tree = open_tree(path, lambda name: is_kept(name, names) or name.rpartition("/")[2] in FILES)
    cifar = find_cifar(tree)
    if not cifar or any(tree.children(folder) & set(names) for folder in ("", *tree.children(""))):
        return FolderSource(path, split, tree)
    if len(cifar) > 1:
        raise DataError(f"{path} holds several data sets: {', '.join(cifar)}. Choose one as data.path.")
    [(root, layout)] = cifar.items()
    return CifarSource(path, split, tree, layout, root)


def _open_split(data: ConfigDict, split: str) -> Source:
    match data.source:
        case "digits":
            return DigitsSource(split, data.image_size)
        case "folder":
            if not data.path:
                raise ConfigError("data.source = 'folder' needs data.path: a directory, .tar* or .zip.")
            return open_images(data.path, split)
        case "records":
            if not data.path:
                raise ConfigError("data.source = 'records' needs data.path: where they were prepared.")
            return RecordSource(data.path, split)
        case "tfds":
            if not data.name:
                raise ConfigError("data.source = 'tfds' needs data.name, e.g. 'imagenet2012'.")
            return TfdsSource(data.name, split, data.path)
        case "arrays":
            raise ConfigError(
                "data.source = 'arrays' has nothing to open: in Python, make ArraySource(images, labels) "
                "and hand it to train_batches and eval_batches."
            )
        case _:
            raise ConfigError(unknown("data.source", data.source, SOURCES))

"""From the data section of a configuration to a source."""

from pathlib import Path

from ml_collections import ConfigDict

from aliasfree_jax.config import SOURCES
from aliasfree_jax.data.archives import open_tree
from aliasfree_jax.data.cifar import FILES, CifarSource, find_cifar
from aliasfree_jax.data.digits import DigitsSource
from aliasfree_jax.data.folder import FolderSource, data_path, is_kept
from aliasfree_jax.data.records import RecordSource
from aliasfree_jax.data.sources import Source, limit, split_names
from aliasfree_jax.data.tfds import TfdsSource
from aliasfree_jax.errors import ConfigError, DataError, unknown


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

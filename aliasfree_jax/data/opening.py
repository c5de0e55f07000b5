"""Opens the source that the data section of a configuration names."""

from pathlib import Path

from ml_collections import ConfigDict

from aliasfree_jax.config import SOURCES, TASKS
from aliasfree_jax.data.archives import Tree, open_tree
from aliasfree_jax.data.cifar import FILES, CifarSource, Layout, find_cifar
from aliasfree_jax.data.digits import DigitsSource
from aliasfree_jax.data.folder import FolderSource, data_path, is_kept
from aliasfree_jax.data.image_files import is_image
from aliasfree_jax.data.paired_files import (
    CLASSES,
    LABELS,
    OwnTargets,
    folder_pairs,
    images_alone,
    pair_folders,
)
from aliasfree_jax.data.records import RecordSource
from aliasfree_jax.data.scenes import DigitScenesSource
from aliasfree_jax.data.segmentation_sets import open_cityscapes, open_voc
from aliasfree_jax.data.sources import Source, limit, split_names, task_of
from aliasfree_jax.data.tfds import TfdsSource
from aliasfree_jax.errors import ConfigError, DataError, unknown

PAIRS = (
    "<split>/images and <split>/{0} (or images/<split> and {0}/<split>) with files of the same names, except "
    "for their extensions"
)
# The tasks that each source has labels for. In regression, images may be their own targets.
SOURCE_TASKS = {
    "digits": ("classification", "regression"),
    "digit_scenes": ("segmentation", "regression"),
    "folder": TASKS,
    "voc": ("segmentation",),
    "cityscapes": ("segmentation",),
    "records": ("classification",),
    "tfds": TASKS,
    "arrays": TASKS,
}


def open_source(data: ConfigDict, *, train: bool, task: str = "classification") -> Source:
    """Opens the training or evaluation split that `config.data` names, and applies its limit.

    The training split has all its images; `sources.hold_out` separates those of `data.validation` later.

    Args:
      data: the section `config.data`.
      train: True for the training split, False for the evaluation split.
      task: `config.task`.

    Raises:
      ConfigError: the source is unknown or is "arrays", it has no labels for the task, or a field that it
        needs is empty.
      DataError: the data are missing or unreadable.
    """
    if data.source not in SOURCE_TASKS:
        raise ConfigError(unknown("data.source", data.source, SOURCES))
    if task not in SOURCE_TASKS[data.source]:
        others = [name for name, tasks in SOURCE_TASKS.items() if task in tasks]
        raise ConfigError(
            f"data.source = {data.source!r} has no labels for task = {task!r}, only for "
            f"{' and '.join(SOURCE_TASKS[data.source])}: set config.task, or a data.source that supports "
            f"{task} ({', '.join(others)})."
        )
    if data.source in PATHS and not data.path:
        raise ConfigError(f"data.source = {data.source!r} needs data.path: {PATHS[data.source]}.")
    source = _open_split(data, data.train_split if train else data.eval_split, task)
    if task == "regression" and task_of(source) != task:
        source = OwnTargets(source)
    return limit(source, data.train_limit if train else data.eval_limit)


def open_images(text: str | Path, split: str) -> Source:
    """The images of one split of a directory or archive: class folders, or CIFAR's pickles.

    Raises:
      ConfigError: `text` is an address such as gs://.
      DataError: the data are missing or unreadable.
    """
    path, names = data_path(text), split_names(split)
    tree = open_tree(path, lambda name: is_kept(name, names) or name.rpartition("/")[2] in FILES)
    cifar = find_cifar(tree)
    if not cifar or any(tree.children(folder) & set(names) for folder in ("", *tree.children(""))):
        return FolderSource(path, split, tree)
    return _cifar(path, split, tree, cifar)


def _cifar(path: Path, split: str, tree: Tree, found: dict[str, Layout]) -> CifarSource:
    if len(found) > 1:
        raise DataError(f"{path} contains several data sets: {', '.join(found)}. Set data.path to one.")
    [(root, layout)] = found.items()
    return CifarSource(path, split, tree, layout, root)


def open_pairs(text: str | Path, split: str, task: str) -> Source:
    """The images of one split of a directory or archive, with their masks or target images.

    For regression without a folder of targets, this reads any images, or CIFAR's pickles.

    Raises:
      ConfigError: `text` is an address such as gs://.
      DataError: the data are missing or unreadable, or an image has no label.
    """
    layout = PAIRS.format(LABELS[task]) + (
        f", and {CLASSES}" if task == "segmentation" else ", or any images"
    )
    path = data_path(text, f"{layout}.")
    tree = open_tree(path, lambda name: is_image(name) or name.rpartition("/")[2] in {CLASSES, *FILES})
    if folders := pair_folders(tree, split, task):
        return folder_pairs(path, tree, folders, task)
    if task == "segmentation":
        raise DataError(f"{path} (data.path) has no split {split!r} with masks: expected {layout}.")
    if cifar := find_cifar(tree):
        return _cifar(path, split, tree, cifar)
    return images_alone(path, tree, split)


# The meaning of data.path, for the sources that need it.
PATHS = {
    "folder": "a directory, .tar* or .zip",
    "voc": "VOCdevkit/VOC2012, or a directory above it",
    "cityscapes": "the directory of leftImg8bit and gtFine",
    "records": "the directory that prepare wrote",
}


def _open_split(data: ConfigDict, split: str, task: str) -> Source:
    match data.source:
        case "digits":
            return DigitsSource(split, data.image_size)
        case "digit_scenes":
            return DigitScenesSource(split, data.image_size)
        case "folder":
            return (
                open_images(data.path, split)
                if task == "classification"
                else open_pairs(data.path, split, task)
            )
        case "voc":
            return open_voc(data.path, split)
        case "cityscapes":
            return open_cityscapes(data.path, split)
        case "records":
            return RecordSource(data.path, split)
        case "tfds":
            if not data.name:
                raise ConfigError("data.source = 'tfds' needs data.name, e.g. 'imagenet2012'.")
            return TfdsSource(data.name, split, data.path, task)
        case _:
            raise ConfigError(
                "data.source = 'arrays' names no files. In Python, make ArraySource(images, labels) and pass "
                "it to train_batches and eval_batches."
            )

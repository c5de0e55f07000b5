"""Images in class folders, `<split>/<class>/*.jpg`, in a directory, a tar or a zip."""

import difflib
import warnings
from pathlib import Path

import numpy as np

from aliasfree_jax.data.archives import Tree, open_tree
from aliasfree_jax.data.image_files import BYPRODUCT, EMPTY, HIDDEN, OUTSIDE, Ignored, is_image
from aliasfree_jax.data.sources import Example, split_names
from aliasfree_jax.errors import ConfigError, DataError
from aliasfree_jax.files import local_path

PAIRED = ({"images", "masks"}, {"images", "targets"})  # read by paired_files
USUAL_SPLITS = ("train", "val", "validation", "test")

LAYOUT = "<split>/<class>/*.jpg (or .png, ...; the tree may be one folder down)"
HOW_TO_GET = (
    "ImageNet: register at https://image-net.org/download, unpack ILSVRC2012 and sort the validation images "
    "into their class folders. CIFAR-10: cifar-10-python.tar.gz from "
    "https://www.cs.toronto.edu/~kriz/cifar.html; do not unpack it."
)


class FolderSource:
    """The images of one split in a directory, .tar, .tar.gz, .tar.xz, .tar.bz2 or .zip.

    The classes are the folders of the split that contain an image, sorted by name. If there is a `train`
    folder, its classes are used for every split, so that labels mean the same everywhere. Images may lie
    deeper inside their class folder. Images are recognised by their extension. One warning lists everything
    else in the split. For the split "val", a folder `validation` or `test` is accepted if there is no `val`.

    A compressed tar is read once, into memory. Directories, tars and zips are read on demand.

    Args:
      path: the directory or archive.
      split: name of the folder in it.
      tree: `path`, if it is open already.

    Raises:
      DataError: nothing at `path`, no such split, no images, or classes that `train` does not have.
      ConfigError: the folders belong to another task.
    """

    def __init__(self, path: str | Path, split: str, tree: Tree | None = None):
        self._path = data_path(path)
        names = split_names(split)
        tree = tree or open_tree(self._path, lambda name: is_kept(name, names))
        root, self.split = _find_split(tree, split, names, self._path)
        folder = f"{root}{self.split}"
        self.names, ignored = _images(tree, folder)
        start = len(folder) + 1  # where the class begins in a path
        classes = [name[start:].split("/", 1)[0] for name in self.names]
        if set(classes) in PAIRED:
            raise ConfigError(
                f"{self._path}/{folder} contains {' and '.join(sorted(set(classes)))}, which are not "
                "classes. Read such pairs with config.task = 'segmentation' (masks) or 'regression' "
                "(targets) and data.source = 'folder'; the command prepare cannot pack them."
            )
        for empty in tree.children(folder) - set(classes):
            ignored.add(EMPTY, empty)
        if not self.names:
            raise DataError(
                f"no images in the class folders of {self._path}/{folder}; expected {LAYOUT}."
                + (f" Ignored there: {ignored}." if str(ignored) else "")
            )
        self.class_names = _class_names(tree, root, self.split, set(classes), self._path)
        positions = {name: k for k, name in enumerate(self.class_names)}
        self.labels = np.fromiter((positions[name] for name in classes), np.int32, len(self.names))
        if text := str(ignored):
            warnings.warn(f"{self._path}/{folder}: ignored {text}.", stacklevel=2)
        self._reader = tree.reader(self.names)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        """The encoded image at `index`.

        Raises:
          DataError: the file cannot be read.
        """
        name = f"{self._path}/{self.names[index]}"
        try:
            return Example(self._reader(index), int(self.labels[index]), name)
        except (OSError, DataError) as error:
            raise DataError(f"cannot read {name}: {error}") from error


def data_path(text: str | Path, layout: str = f"{LAYOUT}. {HOW_TO_GET}") -> Path:
    """Returns `data.path` as an absolute path.

    Args:
      text: the path.
      layout: the expected content of the directory or archive, for messages.

    Raises:
      DataError: nothing exists there.
      ConfigError: `text` is an address such as gs://.
    """
    path = local_path(text, "data.path").absolute()
    if not path.exists():
        raise DataError(
            f"no data at {path} (data.path): expected a directory, .tar, .tar.gz, .tar.xz or .zip "
            f"that contains {layout}"
        )
    return path


def is_kept(name: str, splits: tuple[str, ...]) -> bool:
    """Whether a file of an archive can be an image of one of the `splits`."""
    return is_image(name) and not set(splits).isdisjoint(name.split("/")[:2])


def _images(tree: Tree, folder: str) -> tuple[list[str], Ignored]:
    """The paths of all images in the class folders of `folder`, sorted, and everything else found there."""
    images, ignored = [], Ignored()
    start = len(folder) + 1
    for path in tree.walk(folder):
        if is_image(path) and path.find("/", start) > 0:
            images.append(path)
        elif path.endswith("/"):
            name = path[:-1].rpartition("/")[2]
            ignored.add(HIDDEN if name.startswith(".") else BYPRODUCT, path[start:-1])
        elif is_image(path):
            ignored.add(OUTSIDE, path[start:])
        else:
            ignored.add_file(path[start:])
    return sorted(images), ignored


def _find_split(tree: Tree, split: str, names: tuple[str, ...], path: Path) -> tuple[str, str]:
    """The folder that contains the split (with a final slash, or ""), and the split's name there."""
    top = tree.children("")
    for name in names:
        if name in top:
            return "", name
    children = {f"{folder}/": tree.children(folder) for folder in sorted(top)}
    for name in names:
        holders = [root for root in children if name in children[root]]
        if len(holders) > 1:
            places = ", ".join(f"{root}{name}" for root in holders)
            raise DataError(
                f"{path} contains several trees with the split {name!r}: {places}. Set data.path to one of "
                "them."
            )
        if holders:
            return holders[0], name
    found = sorted(top.union(*children.values()) & set(USUAL_SPLITS))
    near = difflib.get_close_matches(split, sorted(top), n=1)
    raise DataError(
        f"no split {split!r} in {path}: "
        + (f"it has the splits {', '.join(found)}." if found else f"expected {LAYOUT}.")
        + (f" Did you mean {near[0]!r}?" if near and near[0] not in found else "")
        + f" Folders at the top level: {', '.join(sorted(top)[:10]) or 'none'}."
    )


def _class_names(tree: Tree, root: str, split: str, classes: set[str], path: Path) -> tuple[str, ...]:
    """The classes of `train` if there is a `train`; it must have all `classes` of the split."""
    if split == "train" or "train" not in tree.children(root.rstrip("/")):
        return tuple(sorted(classes))
    folders = tree.children(f"{root}train")
    train = {name for name in folders if any(map(is_image, tree.walk(f"{root}train/{name}")))}
    if train and (strangers := sorted(classes - train)):
        raise DataError(
            f"{path}/{root}{split} has {len(strangers)} classes that {root}train does not have, so labels "
            f"would differ in meaning: {', '.join(strangers[:5])}{', ...' if len(strangers) > 5 else ''}."
            + (f" {root}train/{strangers[0]} exists, but has no images." if strangers[0] in folders else "")
        )
    return tuple(sorted(train or classes))

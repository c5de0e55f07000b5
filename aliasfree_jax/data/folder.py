"""Images in class folders, `<split>/<class>/*.jpg`: in a directory, a tar or a zip."""

import difflib
from pathlib import Path

import numpy as np

from aliasfree_jax.data.archives import Tree, is_hidden, open_tree
from aliasfree_jax.data.sources import Example, split_names
from aliasfree_jax.errors import DataError

EXTENSIONS = frozenset("jpg jpeg png webp bmp gif ppm tif tiff".split())
USUAL_SPLITS = ("train", "val", "validation", "test")

LAYOUT = "<split>/<class>/*.jpg (or .png, ...; the tree may sit one folder down)"
HOW_TO_GET = (
    "ImageNet: register at https://image-net.org/download, unpack ILSVRC2012 and sort the validation images "
    "into their class folders. CIFAR-10: write https://www.cs.toronto.edu/~kriz/cifar.html as image files, "
    "or use data.source = 'tfds', data.name = 'cifar10'."
)


class FolderSource:
    """The images of one split of a directory, .tar, .tar.gz, .tar.xz, .tar.bz2 or .zip.

    Classes are the folders of the split sorted by name, or those of `train` where there is a `train`,
    so that labels mean the same in every split. Images may lie deeper inside their class folder.
    For the split "val", a folder `validation` or `test` is accepted if there is no `val`.

    A compressed tar is read once, into memory; the others are read at random places on demand.

    Raises:
      DataError: nothing at `path`, no such split, no images, or classes that `train` does not have.
    """

    def __init__(self, path: str | Path, split: str):
        self._path = Path(path).expanduser().absolute()
        if not self._path.exists():
            raise DataError(
                f"no data at {self._path} (data.path): expected a directory, .tar, .tar.gz, .tar.xz or .zip "
                f"that holds {LAYOUT}. {HOW_TO_GET}"
            )
        names = split_names(split)
        tree = open_tree(self._path, _is_image, lambda name: not set(names).isdisjoint(name.split("/")[:2]))
        root, self.split = _find_split(tree, split, names, self._path)
        folder = f"{root}{self.split}"
        self.class_names = _class_names(tree, root, self.split, self._path)
        start = len(folder) + 1  # of the part of a path that starts with the class
        self._names = sorted(name for name in tree.files(folder) if _is_image(name) and "/" in name[start:])
        if not self._names:
            raise DataError(f"no images in the class folders of {self._path}/{folder}; expected {LAYOUT}.")
        positions = {name: k for k, name in enumerate(self.class_names)}
        classes = (name[start:].split("/", 1)[0] for name in self._names)
        self.labels = np.fromiter((positions[name] for name in classes), np.int32, len(self._names))
        self._reader = tree.reader(self._names)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._names)

    def __getitem__(self, index: int) -> Example:
        """The encoded image at `index`; raises `DataError` if its file cannot be read."""
        name = f"{self._path}/{self._names[index]}"
        try:
            return Example(self._reader.read(index), int(self.labels[index]), name)
        except (OSError, DataError) as error:
            raise DataError(f"cannot read {name}: {error}") from error


def _is_image(name: str) -> bool:
    extension = name.rpartition(".")[2].lower()
    return extension in EXTENSIONS and not any(map(is_hidden, name.split("/")))


def _find_split(tree: Tree, split: str, names: tuple[str, ...], path: Path) -> tuple[str, str]:
    """The folder (with a slash, or "") that holds the split, and the name that the split has there."""
    roots = ["", *(f"{name}/" for name in sorted(tree.children("")))]
    children = {root: tree.children(root.rstrip("/")) for root in roots}
    for name in names:
        holders = [root for root in roots if name in children[root]]
        if len(holders) > 1 and "" not in holders:
            places = ", ".join(f"{root}{name}" for root in holders)
            raise DataError(
                f"{path} holds several trees with the split {name!r}: {places}. Choose one as data.path."
            )
        if holders:
            return holders[0], name
    found = sorted(set().union(*children.values()) & set(USUAL_SPLITS))
    near = difflib.get_close_matches(split, sorted(children[""]), n=1)
    raise DataError(
        f"no split {split!r} in {path}: "
        + (f"splits there: {', '.join(found)}." if found else f"expected {LAYOUT}.")
        + (f" Did you mean {near[0]!r}?" if near and near[0] not in found else "")
        + f" Folders at the top: {', '.join(sorted(children[''])[:10]) or 'none'}."
    )


def _class_names(tree: Tree, root: str, split: str, path: Path) -> tuple[str, ...]:
    classes = tree.children(f"{root}{split}")
    train = tree.children(f"{root}train") if "train" in tree.children(root.rstrip("/")) else set()
    if train and (strangers := sorted(classes - train)):
        raise DataError(
            f"{path}/{root}{split} has {len(strangers)} classes that {root}train does not have, so labels "
            f"would not mean the same: {', '.join(strangers[:5])}{', ...' if len(strangers) > 5 else ''}."
        )
    return tuple(sorted(train or classes))

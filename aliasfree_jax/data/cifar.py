"""Reads the original Python files of CIFAR-10 and CIFAR-100: pickles, without executing them."""

import io
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aliasfree_jax.data.archives import Tree
from aliasfree_jax.data.arrays import ArraySource
from aliasfree_jax.data.sources import split_of
from aliasfree_jax.errors import ConversionError, DataError
from aliasfree_jax.pickles.inert import NumpyArray, plain_names
from aliasfree_jax.pickles.unpickling import load_pickle

SHAPE = (3, 32, 32)  # of a stored image: colours, rows, columns


class Layout(NamedTuple):
    """The files of a data set and the names of their parts.

    Attributes:
      folder: name of the folder in the original archive.
      splits: the files of each split.
      meta: the file with the names of the classes.
      labels: key of the labels.
      class_names: key of the names of the classes.
    """

    folder: str
    splits: dict[str, tuple[str, ...]]
    meta: str
    labels: str
    class_names: str

    def files(self) -> tuple[str, ...]:
        """All files of the data set."""
        return (*(name for names in self.splits.values() for name in names), self.meta)


LAYOUTS = (
    Layout(
        "cifar-10-batches-py",
        {"train": tuple(f"data_batch_{k}" for k in range(1, 6)), "test": ("test_batch",)},
        "batches.meta",
        "labels",
        "label_names",
    ),
    Layout(
        "cifar-100-python",
        {"train": ("train",), "test": ("test",)},
        "meta",
        "fine_labels",
        "fine_label_names",
    ),
)
FILES = frozenset(name for layout in LAYOUTS for name in layout.files())


def find_cifar(tree: Tree) -> dict[str, Layout]:
    """Folders (with a final slash, or "") that contain CIFAR: the top folder, else folders one level down."""
    for roots in ([""], [f"{folder}/" for folder in sorted(tree.children(""))]):
        found = {root: layout for root in roots for layout in LAYOUTS if _holds(tree, root, layout)}
        if found:
            return found
    return {}


def _holds(tree: Tree, root: str, layout: Layout) -> bool:
    """Whether the folder has this layout; files may be missing."""
    return any(tree.has(f"{root}{name}") for name in (layout.meta, layout.splits["train"][0]))


class CifarSource(ArraySource):
    """One split of CIFAR in memory: "train", or "test", also called "val".

    Args:
      path: the directory or archive, for messages.
      split: name of the split.
      tree: `path`, opened.
      layout: the data set that `find_cifar` found.
      root: the folder that `find_cifar` found.

    Raises:
      DataError: no such split, or a file is missing, damaged or of another kind.
    """

    def __init__(self, path: Path, split: str, tree: Tree, layout: Layout, root: str):
        self.split = split_of(split, layout.splits, path)
        if missing := [name for name in layout.files() if not tree.has(f"{root}{name}")]:
            raise DataError(
                f"{path}/{root} is an incomplete {layout.folder}: it lacks {', '.join(missing)}. "
                "Unpack it again."
            )
        files = [layout.meta, *layout.splits[self.split]]
        reader = tree.reader([f"{root}{name}" for name in files])
        contents = [_Contents(f"{path}/{root}{name}", reader(k)) for k, name in enumerate(files)]
        class_names = [str(name) for name in contents[0].listed(layout.class_names, str)]
        batches = [batch.images(layout.labels, len(class_names)) for batch in contents[1:]]
        images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
        super().__init__(images, labels, class_names, name=f"{path}/{self.split}")


class _Contents:
    """The dictionary in one of the files. Messages begin with the file's `name`."""

    def __init__(self, name: str, data: bytes):
        self._name = name
        names = plain_names()
        try:
            value = load_pickle(io.BytesIO(data), len(data), lambda *pair: names.get(pair), _no_persistent)
        except ConversionError as error:
            raise DataError(f"{name}: {error}.") from error
        if type(value) is not dict:
            raise DataError(
                f"{name} contains a {type(value).__name__}, not a dictionary. Is it a file of CIFAR?"
            )
        self._parts = {_as_text(key): part for key, part in value.items()}

    def _part(self, key: str) -> Any:
        if key not in self._parts:
            raise DataError(
                f"{self._name} has no {key!r}, only {', '.join(sorted(self._parts)) or 'nothing'}."
            )
        return self._parts[key]

    def listed(self, key: str, kind: type) -> list[Any]:
        """The list at `key`; all its values must be of a `kind`."""
        values = self._part(key)
        values = [_as_text(value) for value in values] if type(values) is list and kind is str else values
        if type(values) is not list or not all(type(value) is kind for value in values):
            raise DataError(f"{self._name}: {key!r} is not a list of {kind.__name__}.")
        return values

    def images(self, key: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
        """Images `[N, H, W, 3]`, and their labels from the list at `key`."""
        labels, data = self.listed(key, int), self._part("data")
        pixels = data.value if type(data) is NumpyArray else None
        if not isinstance(pixels, np.ndarray):
            raise DataError(f"{self._name}: 'data' is not an array of numbers. Is it a file of CIFAR?")
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), int(np.prod(SHAPE))):
            raise DataError(
                f"{self._name}: expected 'data' of uint8[{len(labels)}, {np.prod(SHAPE)}], one row for each "
                f"label, got {pixels.dtype}{list(pixels.shape)}."
            )
        if wrong := [label for label in labels if not 0 <= label < classes]:
            raise DataError(f"{self._name}: labels must be in 0..{classes - 1}, got {wrong[0]}.")
        images = np.ascontiguousarray(pixels.reshape(-1, *SHAPE).transpose(0, 2, 3, 1))
        return images, np.array(labels, np.int32)


def _as_text(value: object) -> Any:
    return value.decode("utf-8", "replace") if type(value) is bytes else value


def _no_persistent(identifier: object) -> object:
    raise ConversionError("it refers to values outside the file; CIFAR's pickles never do")

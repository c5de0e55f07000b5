"""CIFAR-10 and CIFAR-100 as their authors distribute them for Python: pickles, read without running them."""

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

SHAPE = (3, 32, 32)  # of an image: colours, rows, columns


class Layout(NamedTuple):
    """Which files make up a data set, and how they call their parts."""

    folder: str  # as it is distributed
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
    """Folders (with a slash, or "") that hold such a data set: the top, or else those one folder down."""
    for roots in ([""], [f"{folder}/" for folder in sorted(tree.children(""))]):
        found = {root: layout for root in roots for layout in LAYOUTS if _holds(tree, root, layout)}
        if found:
            return found
    return {}


def _holds(tree: Tree, root: str, layout: Layout) -> bool:
    """Whether the folder is of this layout, though perhaps incomplete."""
    return any(tree.has(f"{root}{name}") for name in (layout.meta, layout.splits["train"][0]))


class CifarSource(ArraySource):
    """One split of CIFAR, in memory: "train", or "test", for which "val" stands too.

    Args:
      path: of the directory or archive, for messages.
      split: name of the split.
      tree: `path`, opened.
      layout: the data set that `find_cifar` found in it.
      root: its folder, likewise.

    Raises:
      DataError: no such split, or a file that is missing, damaged, or not what it should be.
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
    """The dictionary in one of the files; messages begin with the file's `name`."""

    def __init__(self, name: str, data: bytes):
        self._name = name
        names = plain_names()
        try:
            value = load_pickle(io.BytesIO(data), len(data), lambda *pair: names.get(pair), _no_persistent)
        except ConversionError as error:
            raise DataError(f"{name}: {error}.") from error
        if type(value) is not dict:
            raise DataError(f"{name} holds a {type(value).__name__}, not a dictionary: is it of CIFAR?")
        self._parts = {_as_text(key): part for key, part in value.items()}

    def _part(self, key: str) -> Any:
        if key not in self._parts:
            raise DataError(
                f"{self._name} has no {key!r}, only {', '.join(sorted(self._parts)) or 'nothing'}."
            )
        return self._parts[key]

    def listed(self, key: str, kind: type) -> list[Any]:
        """The list `key`, all of whose values are of a kind."""
        values = self._part(key)
        values = [_as_text(value) for value in values] if type(values) is list and kind is str else values
        if type(values) is not list or not all(type(value) is kind for value in values):
            raise DataError(f"{self._name}: {key!r} is not a list of {kind.__name__}.")
        return values

    def images(self, key: str, classes: int) -> tuple[np.ndarray, np.ndarray]:
        """Images [N, H, W, 3] and their labels, which the list `key` holds."""
        labels, data = self.listed(key, int), self._part("data")
        pixels = data.value if type(data) is NumpyArray else None
        if not isinstance(pixels, np.ndarray):
            raise DataError(f"{self._name}: its 'data' are no array of numbers.")
        if pixels.dtype != np.uint8 or pixels.shape != (len(labels), int(np.prod(SHAPE))):
            raise DataError(
                f"{self._name}: expected 'data' of uint8[{len(labels)}, {np.prod(SHAPE)}], one row a label, "
                f"got {pixels.dtype}{list(pixels.shape)}."
            )
        if wrong := [label for label in labels if not 0 <= label < classes]:
            raise DataError(f"{self._name}: its labels must lie in 0..{classes - 1}, got {wrong[0]}.")
        images = np.ascontiguousarray(pixels.reshape(-1, *SHAPE).transpose(0, 2, 3, 1))
        return images, np.array(labels, np.int32)


def _as_text(value: object) -> Any:
    return value.decode("utf-8", "replace") if type(value) is bytes else value


def _no_persistent(identifier: object) -> object:
    raise ConversionError("it refers to values outside the file, which CIFAR's pickles do not")

"""Images in files, each with the file of its mask or target image: folders of pairs, or images alone."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aliasfree_jax.data.archives import Reader, Tree
from aliasfree_jax.data.image_files import is_image
from aliasfree_jax.data.masks import mask_of
from aliasfree_jax.data.sources import Example, Source, channel_names, split_names
from aliasfree_jax.errors import DataError, listed, unknown

LABELS = {"segmentation": "masks", "regression": "targets"}  # folder of the labels, by task
CLASSES = "classes.txt"
LISTED = 5  # at most so many names in a message
HELD_OUT = 10  # without split folders, every tenth image is for evaluation


class PairedFiles:
    """The pairs of images and labels in a `tree`.

    Args:
      path: the directory or archive, for messages.
      tree: `path`, opened.
      images: paths of the images.
      labels: paths of the masks or target images, in the same order; equal to `images` if each image is its
        own target.
      class_names: names of the masks' classes, or of the targets' channels.
      task: "segmentation" or "regression".
      numbers: the class for each value of a mask, `[256]`; None leaves the values unchanged.
    """

    def __init__(
        self,
        path: Path,
        tree: Tree,
        images: Sequence[str],
        labels: Sequence[str],
        class_names: Sequence[str],
        task: str,
        numbers: np.ndarray | None = None,
    ):
        self._path, self.names, self._label_names = path, list(images), list(labels)
        self.class_names, self.task = tuple(class_names), task
        self._numbers = numbers
        self._image = tree.reader(self.names)
        self._label = None if self.names == self._label_names else tree.reader(self._label_names)

    def __len__(self) -> int:
        """Number of pairs."""
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        """The encoded image and label at `index`.

        Raises:
          DataError: a file cannot be read.
        """
        name, label_name = (f"{self._path}/{of[index]}" for of in (self.names, self._label_names))
        image = _read(self._image, index, name)
        label = image if self._label is None else _read(self._label, index, label_name)
        example = Example(image, label, name, label_name)
        if self._numbers is None:
            return example
        numbered = self._numbers[mask_of(example, len(self._numbers))]
        return Example(image, numbered, name, label_name)


def _read(reader: Reader, index: int, name: str) -> bytes:
    try:
        return reader(index)
    except (OSError, DataError) as error:
        raise DataError(f"cannot read {name}: {error}") from error


class OwnTargets:
    """The images of `source`, each with itself as target. The network restores what data.noise degrades."""

    task = "regression"

    def __init__(self, source: Source):
        self._source = source
        image = source[0].image
        self.class_names = channel_names(3 if isinstance(image, bytes) else image.shape[-1])

    def __len__(self) -> int:
        """Number of images."""
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        """The image at `index`."""
        example = self._source[index]
        return Example(example.image, example.image, example.name)


def missing_labels(path: Path, kind: str, pairs: dict[str, str], there: set[str], remedy: str) -> None:
    """Checks that every image has its label.

    Args:
      path: the directory or archive, for the message.
      kind: "mask" or "target".
      pairs: the path of the label for each path of an image.
      there: the paths that exist.
      remedy: the end of the message.

    Raises:
      DataError: labels are missing.
    """
    if missing := [f"{image} (expected {label})" for image, label in pairs.items() if label not in there]:
        raise DataError(
            f"{path}: {len(missing)} of {len(pairs)} images have no {kind}: {listed(missing, LISTED)}. "
            f"{remedy}"
        )


def pair_folders(tree: Tree, split: str, task: str) -> tuple[str, str, str] | None:
    """Finds the folders of images and labels of a split.

    They are `<split>/images` and `<split>/masks` (or `targets`), or `images/<split>` and `masks/<split>`, at
    the top or one folder down.

    Returns:
      The root (with a final slash, or ""), the folder of images and the folder of labels; None if there are
        none.
    """
    labels = LABELS[task]
    for root in ("", *(f"{folder}/" for folder in sorted(tree.children("")))):
        top = tree.children(root.rstrip("/"))
        for name in split_names(split):
            if name in top and {"images", labels} <= tree.children(f"{root}{name}"):
                return root, f"{root}{name}/images", f"{root}{name}/{labels}"
            if {"images", labels} <= top and name in tree.children(f"{root}images"):
                return root, f"{root}images/{name}", f"{root}{labels}/{name}"
    return None


def folder_pairs(path: Path, tree: Tree, folders: tuple[str, str, str], task: str) -> PairedFiles:
    """The pairs with equal names, except for their extensions, in the folders that `pair_folders` found.

    Raises:
      DataError: there are no images or no names of classes, an image has no label, or a name is not unique.
    """
    root, image_folder, label_folder = folders
    images, labels = (_by_stem(path, tree, folder) for folder in folders[1:])
    if not images:
        raise DataError(f"no images in {path}/{image_folder}.")
    kind = LABELS[task].removesuffix("s")
    pairs = {image: labels.get(stem, f"{label_folder}/{stem}.png") for stem, image in images.items()}
    remedy = f"A {kind} needs the name of its image, except for the extension. Add it, or remove the image."
    missing_labels(path, kind, pairs, set(labels.values()), remedy)
    names = channel_names(3) if task == "regression" else read_classes(path, tree, root)
    return PairedFiles(path, tree, list(pairs), list(pairs.values()), names, task)


def _by_stem(path: Path, tree: Tree, folder: str) -> dict[str, str]:
    """The images in a folder, sorted, by their relative paths without extensions."""
    found = sorted(name for name in tree.walk(folder) if is_image(name))
    stems = [name[len(folder) + 1 :].rpartition(".")[0] for name in found]
    if several := [stem for stem, count in Counter(stems).items() if count > 1]:
        raise DataError(
            f"{path}/{folder} has several images named {several[0]!r} with different extensions: keep one."
        )
    return dict(zip(stems, found, strict=True))


def read_classes(path: Path, tree: Tree, root: str) -> list[str]:
    """The names in classes.txt, one per line, in the order of the numbers in the masks."""
    file = f"{root}{CLASSES}"
    if not tree.has(file):
        raise DataError(
            f"{path}/{file} is missing: masks contain numbers, so this file must name the classes, one per "
            "line, in the order of the numbers (the first is class 0)."
        )
    names = [line.strip() for line in read_lines(path, tree, file)]
    if not names or len(names) > 255 or len(set(names)) < len(names):
        raise DataError(
            f"{path}/{file} names {len(names)} classes, {len(set(names))} of them different: expected 1 to "
            "255 different names, one per line."
        )
    return names


def read_lines(path: Path, tree: Tree, file: str) -> list[str]:
    """The lines of a text file that are not blank."""
    try:
        text = tree.reader([file])(0).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {path}/{file} as text: {error}") from error
    return [line for line in text.splitlines() if line.strip()]


def images_alone(path: Path, tree: Tree, split: str) -> PairedFiles:
    """All images of a split, in folders of any depth. Each image is its own target.

    If no folder has the name of a split, every tenth image is for evaluation and the others are for training.

    Raises:
      DataError: there are no images, or no such split.
    """
    usual = {name for kind in ("train", "val") for name in split_names(kind)}
    roots = ["", *(f"{folder}/" for folder in sorted(tree.children("")))]
    splits = [f"{root}{name}" for root in roots for name in tree.children(root.rstrip("/")) & {*usual, split}]
    if splits:
        chosen = [s for name in split_names(split) for s in splits if s.rpartition("/")[2] == name]
        if not chosen:
            raise DataError(f"no split {split!r} in {path}; splits there: {', '.join(sorted(splits))}.")
        if len({s.rpartition("/")[0] for s in chosen}) > 1:
            raise DataError(f"{path} contains several trees: {', '.join(chosen)}. Set data.path to one.")
        folder = chosen[0] + ("/images" if "images" in tree.children(chosen[0]) else "")  # not the masks
        found = sorted(name for name in tree.walk(folder) if is_image(name))
    elif split in usual:
        every = sorted(name for name in tree.walk("") if is_image(name))
        held_out = every[HELD_OUT - 1 :: HELD_OUT]
        found = held_out if split != "train" else sorted(set(every) - set(held_out))
    else:
        raise DataError(unknown(f"split of {path} (which has no split folders)", split, usual))
    if not found:
        raise DataError(f"no images for the split {split!r} in {path}.")
    return PairedFiles(path, tree, found, found, channel_names(3), "regression")

"""Pascal VOC and Cityscapes in their original files."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from aliasfree_jax.data.archives import Tree, open_tree
from aliasfree_jax.data.folder import data_path
from aliasfree_jax.data.image_files import is_image
from aliasfree_jax.data.paired_files import LISTED, PairedFiles, missing_labels, read_lines
from aliasfree_jax.data.sources import IGNORED, split_of
from aliasfree_jax.errors import DataError, listed

VOC_CLASSES = tuple(
    "background aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike "
    "person pottedplant sheep sofa train tvmonitor".split()
)
VOC_LISTS = "ImageSets/Segmentation"
VOC_LAYOUT = (
    f"JPEGImages, SegmentationClass and {VOC_LISTS}, like VOCdevkit/VOC2012. Pascal VOC 2012: "
    "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar"
)
AUGMENTED = "_aug"  # lists with this ending use the masks in SegmentationClassAug

# The classes used in training, by their numbers in *_labelIds.png.
CITYSCAPES_CLASSES = {
    7: "road", 8: "sidewalk", 11: "building", 12: "wall", 13: "fence", 17: "pole", 19: "traffic light",
    20: "traffic sign", 21: "vegetation", 22: "terrain", 23: "sky", 24: "person", 25: "rider", 26: "car",
    27: "truck", 28: "bus", 31: "train", 32: "motorcycle", 33: "bicycle",
}  # fmt: skip
CITYSCAPES_LAYOUT = (
    "leftImg8bit/<split>/<city>/*_leftImg8bit.png and gtFine/<split>/<city>/*_gtFine_labelIds.png. "
    "Cityscapes: register at https://www.cityscapes-dataset.com, and unpack leftImg8bit_trainvaltest.zip and "
    "gtFine_trainvaltest.zip in one folder"
)


def _open(text: str, wanted: set[str], layout: str) -> tuple[Path, Tree, str]:
    """The directory or archive, and the folder in it (with a final slash, or "") that contains `wanted`."""
    path = data_path(text, layout)
    tree = open_tree(path, lambda name: is_image(name) or name.endswith(".txt"))
    level = [""]
    for _ in range(3):
        found = [root for root in level if wanted <= tree.children(root.rstrip("/"))]
        if len(found) > 1:
            raise DataError(f"{path} contains several data sets: {', '.join(found)}. Set data.path to one.")
        if found:
            return path, tree, found[0]
        level = [f"{root}{child}/" for root in level for child in sorted(tree.children(root.rstrip("/")))]
    raise DataError(f"{path} (data.path) does not contain {layout}.")


def open_voc(text: str, split: str) -> PairedFiles:
    """Pascal VOC's images of a list in ImageSets/Segmentation, with their masks: 21 classes, borders ignored.

    A list whose name ends in "_aug", such as "train_aug", uses the masks in SegmentationClassAug. Its lines
    are names, as in Pascal VOC's lists, or pairs of paths.

    Args:
      text: data.path: VOC2012, or a directory or archive that contains it.
      split: the name of the list.

    Raises:
      DataError: the data, the list, or images or masks in it are missing, or the list is empty.
    """
    path, tree, root = _open(text, {"JPEGImages", "ImageSets"}, VOC_LAYOUT)
    lists = {name.rpartition("/")[2].removesuffix(".txt") for name in _files(tree, [root + VOC_LISTS])}
    split = split_of(split, lists, f"{path}/{root}{VOC_LISTS}")
    file = f"{root}{VOC_LISTS}/{split}.txt"
    folder = "SegmentationClass" + ("Aug" if split.endswith(AUGMENTED) else "")
    pairs = dict(_voc_pair(root, folder, line) for line in read_lines(path, tree, file))
    if not pairs:
        raise DataError(f"{path}/{file} names no images: expected one name per line. Unpack it again.")
    images = _files(tree, {name.rpartition("/")[0] for name in pairs})
    if missing := [name for name in pairs if name not in images]:
        raise DataError(
            f"{path}/{file} names {len(missing)} of {len(pairs)} images that do not exist: "
            f"{listed(missing, LISTED)}. Unpack them, or remove them from the list."
        )
    masks = _files(tree, {name.rpartition("/")[0] for name in pairs.values()})
    remedy = f"Unpack {folder}, or remove the images from {path}/{file}."
    missing_labels(path, "mask", pairs, masks, remedy)
    return PairedFiles(path, tree, list(pairs), list(pairs.values()), VOC_CLASSES, "segmentation")


def _voc_pair(root: str, folder: str, line: str) -> tuple[str, str]:
    parts = line.split()
    if len(parts) == 2 and "/" in line:
        return root + parts[0].lstrip("/"), root + parts[1].lstrip("/")
    return f"{root}JPEGImages/{line.strip()}.jpg", f"{root}{folder}/{line.strip()}.png"


def _files(tree: Tree, folders: Iterable[str]) -> set[str]:
    """All files of the folders that exist. They are listed once, since asking for each file is slow."""
    there = (
        folder for folder in folders if folder.rpartition("/")[2] in tree.children(folder.rpartition("/")[0])
    )
    return {name for folder in there for name in tree.walk(folder)}


def open_cityscapes(text: str, split: str) -> PairedFiles:
    """The images of a split of Cityscapes with their masks: the 19 training classes, others ignored.

    Args:
      text: data.path: the directory that contains leftImg8bit and gtFine.
      split: "train" or "val".

    Raises:
      DataError: the data, the split or masks are missing.
    """
    path, tree, root = _open(text, {"leftImg8bit", "gtFine"}, CITYSCAPES_LAYOUT)
    folder = f"{root}leftImg8bit"
    split = split_of(split, tree.children(folder), f"{path}/{folder}")
    end = "_leftImg8bit.png"
    images = sorted(name for name in tree.walk(f"{folder}/{split}") if name.endswith(end))
    if not images:
        raise DataError(f"no images in {path}/{folder}/{split}; expected {CITYSCAPES_LAYOUT}.")
    there = _files(tree, {f"{root}gtFine/{split}"})
    stems = [name.removesuffix(end).replace(f"{folder}/", f"{root}gtFine/", 1) for name in images]
    trained = any(f"{stem}_gtFine_labelTrainIds.png" in there for stem in stems)
    masks = [f"{stem}_gtFine_{'labelTrainIds' if trained else 'labelIds'}.png" for stem in stems]
    pairs = dict(zip(images, masks, strict=True))
    missing_labels(path, "mask", pairs, there, "Unpack gtFine_trainvaltest.zip beside leftImg8bit.")
    names = list(CITYSCAPES_CLASSES.values())
    return PairedFiles(
        path, tree, images, masks, names, "segmentation", None if trained else trained_numbers()
    )


def trained_numbers() -> np.ndarray:
    """The training class of each number in `*_labelIds.png` of Cityscapes, else IGNORED; `[256]`."""
    numbers = np.full(256, IGNORED, np.uint8)
    numbers[list(CITYSCAPES_CLASSES)] = np.arange(len(CITYSCAPES_CLASSES))
    return numbers

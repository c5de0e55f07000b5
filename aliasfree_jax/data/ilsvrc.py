"""The tar files of ILSVRC2012 (ImageNet-1k) as they are distributed, read at random places."""

import io
import tarfile
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from aliasfree_jax.data.readers import TarReader
from aliasfree_jax.data.sources import Example
from aliasfree_jax.errors import DataError

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
_DEVKIT_ROOT = "ILSVRC2012_devkit_t12/data"


class _Places:
    """Files inside a tar by offset and size."""

    def __init__(self, path: Path, names: list[str], places: list[tuple[int, int]], labels: np.ndarray):
        self._reader, self._names, self.labels = TarReader(path, places), names, labels

    def __len__(self) -> int:
        """Number of images."""
        return len(self._names)

    def __getitem__(self, index: int) -> Example:
        """The encoded image at `index`."""
        return Example(self._reader.read(index), int(self.labels[index]), self._names[index])


class IlsvrcTrain(_Places):
    """`ILSVRC2012_img_train.tar`: a tar of tars, one for each class, named by its WordNet id."""

    def __init__(self, path: Path):
        names, places, owners = [], [], []
        try:
            with tarfile.open(path, "r:") as outer:
                for member in outer:
                    if not member.name.endswith(".tar"):
                        continue
                    class_name = Path(member.name).stem
                    with tarfile.open(fileobj=outer.extractfile(member), mode="r:") as inner:
                        for image in inner:
                            names.append(f"{class_name}/{Path(image.name).name}")
                            places.append((member.offset_data + image.offset_data, image.size))
                            owners.append(class_name)
        except tarfile.TarError as error:
            raise DataError(f"{path} is damaged, or no tar of ILSVRC2012: {error}.") from error
        if not names:
            raise DataError(f"no class archives (n01440764.tar, ...) in {path}: is it {TRAIN}?")
        self.class_names = tuple(sorted(set(owners)))
        ranks = {name: rank for rank, name in enumerate(self.class_names)}
        super().__init__(path, names, places, np.array([ranks[owner] for owner in owners], np.int32))


class IlsvrcVal(_Places):
    """`ILSVRC2012_img_val.tar`, with the labels from the development kit beside it."""

    def __init__(self, path: Path, class_names: tuple[str, ...]):
        self.class_names = class_names
        truth = _validation_classes(path.with_name(DEVKIT))
        try:
            with tarfile.open(path, "r:") as archive:
                images = sorted((m for m in archive if m.isfile()), key=lambda member: member.name)
        except (OSError, tarfile.TarError) as error:
            raise DataError(f"{path} is missing or damaged: {error}.") from error
        if len(images) != len(truth):
            raise DataError(f"{path} has {len(images)} images, {DEVKIT} has labels of {len(truth)}.")
        if strangers := sorted(set(truth) - set(class_names)):
            raise DataError(f"{DEVKIT} names classes that {TRAIN} does not have, e.g. {strangers[0]}.")
        ranks = {name: rank for rank, name in enumerate(class_names)}
        labels = np.array([ranks[name] for name in truth], np.int32)
        places = [(image.offset_data, image.size) for image in images]
        super().__init__(path, [Path(image.name).name for image in images], places, labels)


def _validation_classes(devkit: Path) -> list[str]:
    """The WordNet id of every validation image, in the order of their names."""
    try:
        with tarfile.open(devkit) as kit:
            synsets = loadmat(io.BytesIO(_read(kit, "meta.mat")), squeeze_me=True)["synsets"]
            text = _read(kit, "ILSVRC2012_validation_ground_truth.txt").decode()
    except (OSError, KeyError, ValueError, tarfile.TarError) as error:
        raise DataError(
            f"the labels of the validation images are in {DEVKIT}, which must lie beside {VAL}: {error}."
        ) from error
    ids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in np.atleast_1d(synsets)}
    return [ids[int(line)] for line in text.split()]


def _read(kit: tarfile.TarFile, name: str) -> bytes:
    file = kit.extractfile(f"{_DEVKIT_ROOT}/{name}")
    assert file is not None
    return file.read()

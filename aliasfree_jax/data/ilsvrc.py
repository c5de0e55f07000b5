"""Reads the original tar files of ILSVRC2012 (ImageNet-1k) with random access."""

import io
import tarfile
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from aliasfree_jax.data.archives import check_end, slices
from aliasfree_jax.data.decode import DAMAGE
from aliasfree_jax.data.image_files import EMPTY, Ignored, is_image
from aliasfree_jax.data.sources import Example
from aliasfree_jax.errors import DataError

TRAIN, VAL = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
_DEVKIT_ROOT = "ILSVRC2012_devkit_t12/data"


class _Places:
    """Files inside a tar (name, offset and size), and the class of each."""

    def __init__(
        self,
        path: Path,
        images: list[tuple[str, tuple[int, int]]],
        classes: Sequence[str],
        class_names: tuple[str, ...],
    ):
        self.names, self.class_names = [name for name, _ in images], class_names
        self._reader = slices(path, [place for _, place in images])
        ranks = {name: rank for rank, name in enumerate(class_names)}
        self.labels = np.array([ranks[name] for name in classes], np.int32)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    def __getitem__(self, index: int) -> Example:
        """The encoded image at `index`."""
        return Example(self._reader(index), int(self.labels[index]), self.names[index])


class IlsvrcTrain(_Places):
    """`ILSVRC2012_img_train.tar`: a tar that contains one tar for each class, named by its WordNet id."""

    def __init__(self, path: Path):
        images: list[tuple[str, tuple[int, int]]] = []
        owners: list[str] = []
        ignored = Ignored()
        with _opened(path, TRAIN) as outer:
            for member in outer:
                if not (member.isfile() and member.name.endswith(".tar")):
                    _note(member, ignored)
                    continue
                file, owner = outer.extractfile(member), Path(member.name).stem
                with tarfile.open(fileobj=file, mode="r:") as inner:
                    found = [(f"{owner}/{name}", place) for name, place in _images(inner, member, ignored)]
                images += found
                owners += [owner] * len(found)
                if not found:
                    ignored.add(EMPTY, member.name)
        if not images:
            raise DataError(
                f"{path} contains no class archives (n01440764.tar, ...). Is it really {TRAIN} of ILSVRC2012?"
            )
        _tell(path, ignored)
        super().__init__(path, images, owners, tuple(sorted(set(owners))))


class IlsvrcVal(_Places):
    """`ILSVRC2012_img_val.tar`, with the labels from the development kit in the same directory."""

    def __init__(self, path: Path, class_names: tuple[str, ...]):
        truth, ignored = _validation_classes(path.with_name(DEVKIT)), Ignored()
        with _opened(path, VAL) as archive:
            images = sorted(_images(archive, None, ignored))
        if len(images) != len(truth):
            raise DataError(
                f"{path} has {len(images)} images, but {DEVKIT} has {len(truth)} labels. Both must come from "
                "ILSVRC2012, whole."
            )
        if strangers := sorted(set(truth) - set(class_names)):
            raise DataError(
                f"{DEVKIT} names classes that {TRAIN} does not have, e.g. {strangers[0]}. Download both "
                "files again."
            )
        _tell(path, ignored)
        super().__init__(path, images, truth, class_names)


def _images(
    archive: tarfile.TarFile, within: tarfile.TarInfo | None, ignored: Ignored
) -> Iterator[tuple[str, tuple[int, int]]]:
    """Name, offset and size of the images in a tar, which may be `within` another; counts other files."""
    start = within.offset_data if within else 0
    for member in archive:
        if member.isfile() and is_image(member.name):
            yield Path(member.name).name, (start + member.offset_data, member.size)
        else:
            _note(member, ignored)


@contextmanager
def _opened(path: Path, name: str) -> Iterator[tarfile.TarFile]:
    """Opens the tar; the block must read all its members. `DataError` if the tar is missing or incomplete."""
    try:
        with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as archive:
            yield archive
            check_end(archive, file)
    except (OSError, EOFError, tarfile.TarError) as error:
        raise DataError(f"{path} is missing, damaged, or not {name} of ILSVRC2012: {error}.") from error


def _note(member: tarfile.TarInfo, ignored: Ignored) -> None:
    if not member.isdir():
        ignored.add_file(member.name)


def _tell(path: Path, ignored: Ignored) -> None:
    if text := str(ignored):
        warnings.warn(f"{path}: ignored {text}.", stacklevel=3)


def _validation_classes(devkit: Path) -> list[str]:
    """The WordNet id of every validation image, in the order of the images' names."""
    try:
        with tarfile.open(devkit) as kit:
            synsets = loadmat(io.BytesIO(_read(kit, "meta.mat")), squeeze_me=True)["synsets"]
            text = _read(kit, "ILSVRC2012_validation_ground_truth.txt").decode()
        ids = {int(row["ILSVRC2012_ID"]): str(row["WNID"]) for row in np.atleast_1d(synsets)}
        return [ids[int(line)] for line in text.split()]
    except (*DAMAGE, MatReadError, tarfile.TarError, zlib.error) as error:
        raise DataError(
            f"cannot read the labels of the validation images from {DEVKIT}, which must be complete and in "
            f"the same directory as {VAL}: {type(error).__name__}: {error}."
        ) from error


def _read(kit: tarfile.TarFile, name: str) -> bytes:
    file = kit.extractfile(f"{_DEVKIT_ROOT}/{name}")
    if file is None:
        raise KeyError(f"{name} is no file")
    return file.read()

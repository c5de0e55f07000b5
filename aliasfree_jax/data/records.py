"""Reads the ArrayRecord shards that `aliasfree_jax.data.prepare` writes.

A directory contains the shards, `<split>-labels.npy`, and `info.json`, which is written last. A record is one
encoded image: the label and the length of the name (little-endian, 4 and 2 bytes), the name, and the bytes of
the image file.
"""

import hashlib
import json
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from grain.sources import ArrayRecordDataSource

from aliasfree_jax.data.sources import Example, split_of
from aliasfree_jax.errors import DataError
from aliasfree_jax.files import local_path

FORMAT = 1
INFO = "info.json"
AGAIN = f"Remove {INFO}, and prepare the images again."
_HEADER = struct.Struct("<IH")
NAMES = "surrogateescape"  # names of files may be any bytes


def pack(example: Example) -> bytes:
    """Packs an example with an encoded image into one record."""
    assert isinstance(example.image, bytes)
    name = example.name.encode(errors=NAMES)
    return _HEADER.pack(example.label, len(name)) + name + example.image


def unpack(record: bytes) -> Example:
    """Reverses `pack`; `DataError` for other bytes."""
    try:
        label, length = _HEADER.unpack_from(record)
    except struct.error as error:
        raise DataError(f"a record of {len(record)} bytes is damaged: {error}") from error
    start = _HEADER.size + length
    if start > len(record):
        raise DataError(f"a record of {len(record)} bytes is damaged: its name has {length} bytes.")
    return Example(record[start:], label, record[_HEADER.size : start].decode(errors=NAMES))


def checksum(path: Path) -> str:
    """SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_info(directory: Path) -> dict[str, Any]:
    """The content of `info.json`.

    Raises:
      DataError: it is missing, damaged, or of another version.
    """
    try:
        info = json.loads((directory / INFO).read_text())
        if isinstance(info, dict) and info.get("format") != FORMAT:
            raise DataError(
                f"{directory}/{INFO} has format {info.get('format')}, but this version reads only format "
                f"{FORMAT}. {AGAIN}"
            )
        shards = [shard for split in info["splits"].values() for shard in split["shards"]]
        sum(shard["images"] for shard in shards)
        "".join([*info["class_names"], *(shard["file"] + shard["sha256"] for shard in shards)])
    except OSError as error:
        raise DataError(
            f"no prepared data set in {directory} (data.path): {error}. Make one with python -m "
            f"aliasfree_jax prepare IMAGES {directory}. If it was interrupted, run it again: it continues."
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{directory}/{INFO} is damaged ({type(error).__name__}: {error}). {AGAIN}"
        ) from error
    return info


def labels_file(directory: Path, split: str) -> Path:
    """The file that contains the labels of all images of a split, in order."""
    return directory / f"{split}-labels.npy"


def read_labels(directory: Path, split: str, info: dict[str, Any]) -> np.ndarray:
    """The labels of a split, int `[N]`.

    Raises:
      DataError: the file is missing, damaged, or does not fit the images that `info` lists.
    """
    path, classes = labels_file(directory, split), len(info["class_names"])
    try:
        labels = np.load(path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"{path} is missing or damaged: {error}. {AGAIN}") from error
    count = sum(shard["images"] for shard in info["splits"][split]["shards"])
    fits = isinstance(labels, np.ndarray) and labels.shape == (count,) and labels.dtype.kind in "iu"
    if not fits or (count and not 0 <= labels.min() <= labels.max() < classes):
        raise DataError(f"{path} does not contain {count} labels in 0..{classes - 1}. {AGAIN}")
    return labels


class RecordSource:
    """One split of a prepared directory. For "val", `validation` or `test` is accepted too.

    Raises:
      DataError: the directory is not prepared, has no such split, or has missing or incomplete shards.
    """

    def __init__(self, path: str | Path, split: str):
        directory = local_path(path, "data.path").absolute()
        info = read_info(directory)
        self.split = split_of(split, info["splits"], directory)
        self.class_names = tuple(info["class_names"])
        self.labels = read_labels(directory, self.split, info)
        shards = [directory / shard["file"] for shard in info["splits"][self.split]["shards"]]
        if missing := [shard.name for shard in shards if not shard.exists()]:
            raise DataError(
                f"{directory} lacks {len(missing)} of {len(shards)} shards, e.g. {missing[0]}. Copy them "
                "there, or prepare the images again."
            )
        self._check = f"check it with python -m aliasfree_jax prepare --verify {directory}"
        try:
            self._records = ArrayRecordDataSource([str(shard) for shard in shards])
        except RuntimeError as error:
            raise DataError(f"a shard of {directory} is damaged ({error}): {self._check}") from error
        if len(self._records) != len(self.labels):
            raise DataError(
                f"{directory} has {len(self._records)} images in {self.split}, but {len(self.labels)} "
                f"labels: {self._check}"
            )

    def __len__(self) -> int:
        """Number of images."""
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        """The encoded image at `index`."""
        try:
            record = self._records[index]
        except RuntimeError as error:
            raise DataError(f"record {index} of {self.split} is damaged ({error}): {self._check}") from error
        return unpack(record)

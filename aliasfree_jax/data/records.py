"""Images packed in ArrayRecord shards by `aliasfree_jax.data.prepare`.

A directory holds the shards, `<split>-labels.npy`, and `info.json`, which is written last. A record is one
encoded image: label and length of the name (little-endian, 4 and 2 bytes), the name, the file's bytes.
"""

import hashlib
import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
from grain.sources import ArrayRecordDataSource

from aliasfree_jax.data.sources import Example, split_names
from aliasfree_jax.errors import DataError, unknown

FORMAT = 1
INFO = "info.json"
_HEADER = struct.Struct("<IH")


def pack(example: Example) -> bytes:
    """An example with an encoded image as one record."""
    assert isinstance(example.image, bytes)
    name = example.name.encode()
    return _HEADER.pack(example.label, len(name)) + name + example.image


def unpack(record: bytes) -> Example:
    """What `pack` packed; `DataError` for other bytes."""
    try:
        label, length = _HEADER.unpack_from(record)
        start = _HEADER.size + length
        return Example(record[start:], label, record[_HEADER.size : start].decode())
    except (struct.error, UnicodeDecodeError) as error:
        raise DataError(f"a record of {len(record)} bytes is damaged: {error}") from error


def checksum(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_info(directory: Path) -> dict[str, Any]:
    """The content of `info.json`.

    Raises:
      DataError: not there, or of another version.
    """
    try:
        info = json.loads((directory / INFO).read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise DataError(
            f"no prepared data set in {directory} (data.path): {error}. Make one with: python -m "
            f"aliasfree_jax.data.prepare IMAGES {directory}; started again, it goes on where it was."
        ) from error
    if info.get("format") != FORMAT:
        raise DataError(f"{directory}/{INFO} has format {info.get('format')}, this version reads {FORMAT}.")
    return info


class RecordSource:
    """One split of a prepared directory; for "val", `validation` or `test` is accepted.

    Raises:
      DataError: not prepared, no such split, or shards that are missing or have other lengths.
    """

    def __init__(self, path: str | Path, split: str):
        directory = Path(path).expanduser().absolute()
        info = read_info(directory)
        self.split = next((name for name in split_names(split) if name in info["splits"]), "")
        if not self.split:
            raise DataError(unknown(f"split of {directory}", split, info["splits"]))
        self.class_names = tuple(info["class_names"])
        self.labels = np.load(directory / f"{self.split}-labels.npy")
        shards = [directory / shard["file"] for shard in info["splits"][self.split]["shards"]]
        if missing := [shard.name for shard in shards if not shard.exists()]:
            raise DataError(f"{directory} lacks {len(missing)} of {len(shards)} shards, e.g. {missing[0]}.")
        self._records = ArrayRecordDataSource([str(shard) for shard in shards])
        if len(self._records) != len(self.labels):
            raise DataError(
                f"{directory} has {len(self._records)} images in {self.split}, but {len(self.labels)} "
                f"labels: check it with python -m aliasfree_jax.data.prepare --verify {directory}"
            )

    def __len__(self) -> int:
        """Number of images."""
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        """The encoded image at `index`."""
        return unpack(self._records[index])

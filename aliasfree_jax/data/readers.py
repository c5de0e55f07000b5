"""Random access to chosen files of a directory or archive: small objects that travel to worker processes."""

import os
import threading
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from aliasfree_jax.errors import DataError


class Reader(Protocol):
    """The encoded bytes of a list of files."""

    def read(self, index: int) -> bytes:
        """The bytes of file `index`; raises `DataError` or `OSError` if they cannot be had."""


class FileReader:
    """Reads files of a directory."""

    def __init__(self, path: Path, names: Sequence[str]):
        self._path, self._names = path, names

    def read(self, index: int) -> bytes:
        """The file at `index`."""
        return (self._path / self._names[index]).read_bytes()


class TarReader:
    """Reads slices of an uncompressed tar; a fresh handle each time is thread-, fork- and pickle-safe."""

    def __init__(self, path: Path, places: list[tuple[int, int]]):
        self._path, self._places = path, np.asarray(places, np.int64).reshape(-1, 2)

    def read(self, index: int) -> bytes:
        """The slice at `index`; `DataError` if the file is shorter."""
        offset, size = self._places[index]
        with open(self._path, "rb") as file:
            file.seek(offset)
            data = file.read(size)
        if len(data) != size:
            raise DataError(f"{self._path} ends in the middle of a file; is the download complete?")
        return data


class ZipReader:
    """Reads members of a zip; every process opens its own handle, its threads share it under a lock."""

    def __init__(self, path: Path, names: list[str]):
        self._path, self._names = path, names
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.Lock()
        self._open: tuple[int, zipfile.ZipFile] | None = None

    def __getstate__(self) -> tuple[Path, list[str]]:
        return self._path, self._names

    def __setstate__(self, state: tuple[Path, list[str]]) -> None:
        self._path, self._names = state
        self._reset()

    def read(self, index: int) -> bytes:
        """The member at `index`; `DataError` if it is damaged."""
        with self._lock:
            if self._open is None or self._open[0] != os.getpid():
                self._open = (os.getpid(), zipfile.ZipFile(self._path))
            try:
                return self._open[1].read(self._names[index])
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
                # RuntimeError: encrypted, or a compression method that Python lacks
                raise DataError(f"cannot unpack: {error}") from error


class MemoryReader:
    """What is in memory already."""

    def __init__(self, contents: list[bytes]):
        self._contents = contents

    def read(self, index: int) -> bytes:
        """The file at `index`."""
        return self._contents[index]

"""Image files in a directory, tar or zip: what is there, and random access to the chosen ones.

Two halves, because only the second travels to the worker processes: a *tree* lists folders and files,
and `tree.reader(names)` returns a small picklable reader of just those files. Nothing is ever
extracted to disk, so hostile member names are only odd labels.
"""

import bz2
import gzip
import lzma
import os
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from aliasfree_jax.errors import DataError

# A compressed tar has no random access and is held in memory, still encoded as JPEG.
MAX_BYTES_IN_MEMORY = 8 << 30
COMPRESSIONS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}

Predicate = Callable[[str], bool]


class Reader(Protocol):
    """The encoded bytes of a list of files."""

    def read(self, index: int) -> bytes:
        """The bytes of file `index`; raises `DataError` or `OSError` if they cannot be had."""


class Tree(Protocol):
    """The folders and files of a directory or archive, by path relative to it, with slashes."""

    def children(self, folder: str) -> set[str]:
        """Names of the folders directly in `folder` ("" is the top)."""

    def files(self, folder: str) -> list[str]:
        """Paths of all files at any depth below `folder`."""

    def reader(self, names: Sequence[str]) -> Reader:
        """A picklable reader of the files `names`."""


def is_hidden(name: str) -> bool:
    """Whether a file or folder is a by-product of an operating system or archiver."""
    return name.startswith(".") or name == "__MACOSX"


class DirectoryTree:
    """A directory on disk; symbolic links are followed."""

    def __init__(self, path: Path):
        self._path = path

    def children(self, folder: str) -> set[str]:
        """Names of the folders directly in `folder`."""
        with os.scandir(self._path / folder) as entries:
            return {entry.name for entry in entries if not is_hidden(entry.name) and entry.is_dir()}

    def files(self, folder: str) -> list[str]:
        """Paths of all files below `folder`."""
        found = []
        for parent, _, names in os.walk(self._path / folder, followlinks=True):
            prefix = Path(parent).relative_to(self._path).as_posix()
            found += [f"{prefix}/{name}" for name in names]
        return found

    def reader(self, names: Sequence[str]) -> Reader:
        """A reader of the files `names`."""
        return _FileReader(self._path, names)


class _FileReader:
    def __init__(self, path: Path, names: Sequence[str]):
        self._path, self._names = path, names

    def read(self, index: int) -> bytes:
        return (self._path / self._names[index]).read_bytes()


class ArchiveTree:
    """The members of an archive, given as a path -> place dictionary, and how to read places."""

    def __init__(self, members: dict[str, Any], make_reader: Callable[[list[Any]], Reader]):
        self._members = members
        self._make_reader = make_reader
        self._children: dict[str, set[str]] = {"": set()}
        for folder in {name.rpartition("/")[0] for name in members}:
            while folder:
                parent, _, child = folder.rpartition("/")
                self._children.setdefault(parent, set()).add(child)
                folder = parent

    def children(self, folder: str) -> set[str]:
        """Names of the folders directly in `folder`."""
        return self._children.get(folder, set())

    def files(self, folder: str) -> list[str]:
        """Paths of all files below `folder`."""
        return [name for name in self._members if name.startswith(f"{folder}/")]

    def reader(self, names: Sequence[str]) -> Reader:
        """A reader of the files `names`."""
        return self._make_reader([self._members[name] for name in names])


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


class _ZipReader:
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
        with self._lock:
            if self._open is None or self._open[0] != os.getpid():
                self._open = (os.getpid(), zipfile.ZipFile(self._path))
            try:
                return self._open[1].read(self._names[index])
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
                # RuntimeError: encrypted, or a compression method that Python lacks
                raise DataError(f"cannot unpack: {error}") from error


class _MemoryReader:
    def __init__(self, contents: list[bytes]):
        self._contents = contents

    def read(self, index: int) -> bytes:
        return self._contents[index]


def _normal(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _tar_members(tar: tarfile.TarFile, wanted: Predicate) -> Iterator[tuple[str, tarfile.TarInfo]]:
    for member in tar:
        if member.isdir() or not wanted(name := _normal(member.name)):
            continue
        if not member.isreg():
            raise DataError(
                f"{name} in the tar is a link or device, not a file; pack the files themselves: "
                "tar --dereference --hard-dereference."
            )
        yield name, member


def _index_tar(path: Path, wanted: Predicate) -> ArchiveTree:
    with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        members = {name: (member.offset_data, member.size) for name, member in _tar_members(tar, wanted)}
        if not tar.getmembers():
            raise tarfile.ReadError("it is empty")
        last = tar.getmembers()[-1]
        file.seek(last.offset_data + -(-last.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
        # `tarfile` takes the end of a truncated file for the end of the archive
        if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise tarfile.ReadError(f"it breaks off after {last.name}")
    return ArchiveTree(members, lambda places: TarReader(path, places))


def _read_compressed_tar(path: Path, stream: IO[bytes], wanted: Predicate, keep: Predicate) -> ArchiveTree:
    """One pass over a compressed tar; only the contents of files with `keep(name)` stay in memory."""
    members: dict[str, bytes] = {}
    total = 0
    with stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for name, member in _tar_members(tar, wanted):
            content = tar.extractfile(member) if keep(name) else None
            members[name] = content.read() if content else b""
            total += len(members[name])
            if total > MAX_BYTES_IN_MEMORY:
                raise DataError(
                    f"{path} is a compressed tar, which is read into memory, and holds more than "
                    f"{MAX_BYTES_IN_MEMORY >> 30} GiB of images: decompress it to .tar, or use a .zip."
                )
    return ArchiveTree(members, _MemoryReader)


def _index_zip(path: Path, wanted: Predicate) -> ArchiveTree:
    with zipfile.ZipFile(path) as archive:
        members = {_normal(name): name for name in archive.namelist() if not name.endswith("/")}
    members = {name: stored for name, stored in members.items() if wanted(name)}
    return ArchiveTree(members, lambda places: _ZipReader(path, places))


def open_tree(path: Path, wanted: Predicate, keep: Predicate) -> Tree:
    """Opens a directory, an uncompressed tar, a compressed tar (gzip, bzip2, xz) or a zip.

    Args:
      path: an existing directory or file; the kind of a file is told by its first bytes.
      wanted: which files of an archive (by relative path) exist as far as the caller is concerned.
      keep: which of those may be read later; matters for compressed tars only.

    Raises:
      DataError: the file is none of these, or it is damaged.
    """
    if path.is_dir():
        return DirectoryTree(path)
    with open(path, "rb") as file:
        head = file.read(8)
    try:
        if head.startswith(b"PK"):
            return _index_zip(path, wanted)
        for magic, decompress in COMPRESSIONS.items():
            if head.startswith(magic):
                return _read_compressed_tar(path, decompress(path, "rb"), wanted, keep)
        return _index_tar(path, wanted)
    except (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise DataError(
            f"{path} is neither a directory nor a whole .tar, .tar.gz, .tar.xz, .tar.bz2 or .zip "
            f"({error}); is the download complete?"
        ) from error

"""Image files in a directory, tar or zip: what is there, and random access to the chosen ones.

Two halves, because only the second travels to the worker processes: a *tree* lists folders and files,
and `tree.reader(names)` returns a small picklable function that reads just those files. Nothing is ever
extracted to disk, so hostile member names are only odd labels.
"""

import bisect
import bz2
import functools
import gzip
import lzma
import os
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np

from aliasfree_jax.data.image_files import is_byproduct, is_image
from aliasfree_jax.errors import DataError

# A compressed tar has no random access and is held in memory, still encoded as JPEG.
MAX_BYTES_IN_MEMORY = 8 << 30
COMPRESSIONS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
FOLDER = object()  # the place of a folder in an archive

Predicate = Callable[[str], bool]
Reader = Callable[[int], bytes]
"""The encoded bytes of the file at an index; raises `DataError` or `OSError` if they cannot be had."""


def _read_file(path: Path, names: Sequence[str], index: int) -> bytes:
    return (path / names[index]).read_bytes()


def slices(path: Path, places: Sequence[tuple[int, int]]) -> Reader:
    """Reads (offset, size) of an uncompressed tar."""
    return functools.partial(_read_slice, path, np.asarray(places, np.int64).reshape(-1, 2))


def _read_slice(path: Path, places: np.ndarray, index: int) -> bytes:
    offset, size = places[index]
    with open(path, "rb") as file:  # a fresh handle each time is thread-, fork- and pickle-safe
        file.seek(offset)
        data = file.read(size)
    if len(data) != size:
        raise DataError(f"{path} ends in the middle of a file; is the download complete?")
    return data


class ZipReader:
    """Reads members of a zip; every process opens its own handle, its threads share it under a lock."""

    def __init__(self, path: Path, names: list[str]):
        self._path, self._names = path, names
        self._lock = threading.Lock()
        self._open: tuple[int, zipfile.ZipFile] | None = None

    def __reduce__(self) -> tuple[type, tuple[Path, list[str]]]:
        return type(self), (self._path, self._names)

    def __call__(self, index: int) -> bytes:
        """The member at `index`; `DataError` if it is damaged."""
        with self._lock:
            if self._open is None or self._open[0] != os.getpid():
                self._open = (os.getpid(), zipfile.ZipFile(self._path))
            try:
                return self._open[1].read(self._names[index])
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
                # RuntimeError: encrypted, or a compression method that Python lacks
                raise DataError(f"cannot unpack: {error}") from error


class Tree(Protocol):
    """The folders and files of a directory or archive, by path relative to it, with slashes.

    By-products (`image_files.is_byproduct`) are no folders, and nothing is in them.
    """

    def children(self, folder: str) -> set[str]:
        """Names of the folders directly in `folder` ("" is the top)."""

    def has(self, file: str) -> bool:
        """Whether there is a file of that path."""

    def walk(self, folder: str) -> Iterator[str]:
        """Paths of all files at any depth below `folder`, and of by-product folders, with a slash behind.

        The folder "" is the whole tree.
        """

    def reader(self, names: Sequence[str]) -> Reader:
        """A picklable reader of the files `names`."""


class DirectoryTree:
    """A directory on disk; symbolic links are followed."""

    def __init__(self, path: Path):
        self._path = path

    def children(self, folder: str) -> set[str]:
        """Names of the folders directly in `folder`."""
        with self._scan(folder) as entries:
            return {entry.name for entry in entries if not is_byproduct(entry.name) and entry.is_dir()}

    def has(self, file: str) -> bool:
        """Whether there is a file of that path."""
        return (self._path / file).is_file()

    def walk(self, folder: str) -> Iterator[str]:
        """Paths of all files below `folder`, and of by-product folders, with a slash behind."""
        folders = [folder]
        while folders:
            parent = folders.pop()
            with self._scan(parent) as entries:
                for entry in entries:  # its kind comes with the listing: no file is looked at
                    path = f"{parent}/{entry.name}" if parent else entry.name
                    if not entry.is_dir():
                        yield path
                    elif is_byproduct(entry.name):
                        yield f"{path}/"
                    else:
                        folders.append(path)
                        if entry.is_symlink():
                            self._refuse_loop(path)

    def _scan(self, folder: str) -> Any:
        try:
            return os.scandir(self._path / folder)
        except OSError as error:
            raise DataError(f"cannot list {self._path / folder}: {error.strerror}.") from error

    def _refuse_loop(self, link: str) -> None:
        path = self._path / link
        if path.parent.resolve().is_relative_to(path.resolve()):
            raise DataError(f"{path} is a link to a folder that holds it: remove the link.")

    def reader(self, names: Sequence[str]) -> Reader:
        """A reader of the files `names`."""
        return functools.partial(_read_file, self._path, names)


class ArchiveTree:
    """The members of an archive, given as (path, place or FOLDER), and how to read places."""

    def __init__(self, members: Iterable[tuple[str, Any]], make_reader: Callable[[list[Any]], Reader]):
        self._places: dict[str, Any] = {}
        self._make_reader = make_reader
        self._children: dict[str, set[str]] = {"": set()}
        self._byproduct_of: dict[str, str] = {"": ""}  # the by-product folder that a folder is or lies in
        for name, place in members:
            folder = name if place is FOLDER else name.rpartition("/")[0]
            if byproduct := self._enter(folder):
                self._places[f"{byproduct}/"] = FOLDER
            elif place is not FOLDER:
                self._places[name] = place
        self._names = sorted(self._places)

    def _enter(self, folder: str) -> str:
        """Notes a folder and those that hold it; the by-product folder that it is or lies in, or ""."""
        if (known := self._byproduct_of.get(folder)) is not None:
            return known
        path = byproduct = ""
        for child in folder.split("/"):
            parent, path = path, f"{path}/{child}" if path else child
            if is_byproduct(child):
                byproduct = path
                break
            self._children.setdefault(parent, set()).add(child)
        self._byproduct_of[folder] = byproduct
        return byproduct

    def children(self, folder: str) -> set[str]:
        """Names of the folders directly in `folder`."""
        return self._children.get(folder, set())

    def has(self, file: str) -> bool:
        """Whether there is a file of that path."""
        return file in self._places

    def walk(self, folder: str) -> Iterator[str]:
        """Paths of all files below `folder`, and of by-product folders, with a slash behind."""
        start = f"{folder}/" if folder else ""
        for k in range(bisect.bisect_left(self._names, start), len(self._names)):
            if not self._names[k].startswith(start):
                return
            yield self._names[k]

    def reader(self, names: Sequence[str]) -> Reader:
        """A reader of the files `names`."""
        return self._make_reader([self._places[name] for name in names])


def _normal(name: str) -> str:
    return "/".join(part for part in name.split("/") if part not in ("", "."))


def _tar_members(tar: tarfile.TarFile) -> Iterator[tuple[str, tarfile.TarInfo]]:
    for member in tar:
        name = _normal(member.name)
        if not (member.isreg() or member.isdir()) and is_image(name):
            if not any(map(is_byproduct, name.split("/"))):
                raise DataError(
                    f"{name} in the tar is a link or device, not a file; pack the files themselves: "
                    "tar --dereference --hard-dereference."
                )
        yield name, member


def check_end(tar: tarfile.TarFile, file: IO[bytes]) -> None:
    """Raises `tarfile.ReadError` unless the tar of `file`, all of whose members were read, ends as it should.

    `tarfile` takes the end of a truncated file for the end of the archive.
    """
    if not tar.getmembers():
        raise tarfile.ReadError("it is empty")
    last = tar.getmembers()[-1]
    file.seek(last.offset_data + -(-last.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"it breaks off after {last.name}")


def _index_tar(path: Path) -> ArchiveTree:
    with open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
        members = [
            (name, FOLDER if member.isdir() else (member.offset_data, member.size))
            for name, member in _tar_members(tar)
        ]
        check_end(tar, file)
    return ArchiveTree(members, lambda places: slices(path, places))


def _read_compressed_tar(path: Path, stream: IO[bytes], keep: Predicate) -> ArchiveTree:
    """One pass over a compressed tar; only the contents of files with `keep(name)` stay in memory."""
    members: list[tuple[str, Any]] = []
    total = 0
    with stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for name, member in _tar_members(tar):
            content = tar.extractfile(member) if member.isreg() and keep(name) else None
            members.append((name, FOLDER if member.isdir() else content.read() if content else b""))
            total += member.size if content else 0
            if total > MAX_BYTES_IN_MEMORY:
                raise DataError(
                    f"{path} is a compressed tar, which is read into memory, and holds more than "
                    f"{MAX_BYTES_IN_MEMORY >> 30} GiB of images: decompress it to .tar, or use a .zip."
                )
    return ArchiveTree(members, lambda contents: contents.__getitem__)


def _index_zip(path: Path) -> ArchiveTree:
    with zipfile.ZipFile(path) as archive:
        stored = archive.namelist()
    names = [name.replace("\\", "/") for name in stored]  # as some packers of Windows write them
    members = [
        (_normal(name), FOLDER if name.endswith("/") else place)
        for name, place in zip(names, stored, strict=True)
    ]
    return ArchiveTree(members, lambda places: ZipReader(path, places))


def open_tree(path: Path, keep: Predicate) -> Tree:
    """Opens a directory, an uncompressed tar, a compressed tar (gzip, bzip2, xz) or a zip.

    Args:
      path: an existing directory or file; the kind of a file is told by its first bytes.
      keep: which files (by relative path) may be read later; matters for compressed tars only.

    Raises:
      DataError: the file is none of these, or it is damaged.
    """
    if path.is_dir():
        return DirectoryTree(path)
    try:
        with open(path, "rb") as file:
            head = file.read(8)
        if head.startswith(b"PK"):
            return _index_zip(path)
        for magic, decompress in COMPRESSIONS.items():
            if head.startswith(magic):
                return _read_compressed_tar(path, decompress(path, "rb"), keep)
        return _index_tar(path)
    except (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError) as error:
        raise DataError(
            f"{path} is neither a directory nor a whole .tar, .tar.gz, .tar.xz, .tar.bz2 or .zip "
            f"({error}); is the download complete?"
        ) from error

"""Lists the files of a directory, tar or zip, and reads chosen files with random access.

There are two parts, because only the second is sent to worker processes. A *tree* lists folders and files.
`tree.reader(names)` returns a small picklable function that reads only those files. Nothing is extracted to
disk, so malicious member names can do no harm.
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

# A compressed tar has no random access, so its encoded images are kept in memory.
MAX_BYTES_IN_MEMORY = 8 << 30
COMPRESSIONS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
FOLDER = object()  # marks a folder among the members of an archive

Predicate = Callable[[str], bool]
Reader = Callable[[int], bytes]
"""Returns the content of the file at an index; raises `DataError` or `OSError` if it cannot be read."""


def _read_file(path: Path, names: Sequence[str], index: int) -> bytes:
    return (path / names[index]).read_bytes()


def slices(path: Path, places: Sequence[tuple[int, int]]) -> Reader:
    """A reader of the files at (offset, size) in an uncompressed tar."""
    return functools.partial(_read_slice, path, np.asarray(places, np.int64).reshape(-1, 2))


def _read_slice(path: Path, places: np.ndarray, index: int) -> bytes:
    offset, size = places[index]
    with open(path, "rb") as file:  # a new handle for each read is safe for threads, forks and pickles
        file.seek(offset)
        data = file.read(size)
    if len(data) != size:
        raise DataError(f"{path} ends in the middle of a file; is the download complete?")
    return data


class ZipReader:
    """Reads members of a zip. Every process opens its own handle; a lock guards it between threads."""

    def __init__(self, path: Path, names: list[str]):
        self._path, self._names = path, names
        self._lock = threading.Lock()
        self._open: tuple[int, zipfile.ZipFile] | None = None

    def __reduce__(self) -> tuple[type, tuple[Path, list[str]]]:
        return type(self), (self._path, self._names)

    def __call__(self, index: int) -> bytes:
        """Reads the member at `index`; `DataError` if it is damaged."""
        with self._lock:
            if self._open is None or self._open[0] != os.getpid():
                self._open = (os.getpid(), zipfile.ZipFile(self._path))
            try:
                return self._open[1].read(self._names[index])
            except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
                # RuntimeError: the member is encrypted, or Python lacks its compression method
                raise DataError(f"cannot unpack: {error}") from error


class Tree(Protocol):
    """The folders and files of a directory or archive, by relative path with slashes.

    By-products (`image_files.is_byproduct`) do not count as folders, and their content is hidden.
    """

    def children(self, folder: str) -> set[str]:
        """Names of the folders directly in `folder` ("" is the top)."""

    def has(self, file: str) -> bool:
        """Whether a file of this path exists."""

    def walk(self, folder: str) -> Iterator[str]:
        """Paths of all files at any depth below `folder`, and of by-product folders with a final slash.

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
        """Whether a file of this path exists."""
        return (self._path / file).is_file()

    def walk(self, folder: str) -> Iterator[str]:
        """Paths of all files below `folder`, and of by-product folders with a final slash."""
        folders = [folder]
        while folders:
            parent = folders.pop()
            with self._scan(parent) as entries:
                for entry in entries:  # the listing includes the kind, so no file needs a stat call
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
            raise DataError(f"{path} is a link to a folder that contains it: remove the link.")

    def reader(self, names: Sequence[str]) -> Reader:
        """A reader of the files `names`."""
        return functools.partial(_read_file, self._path, names)


class ArchiveTree:
    """The members of an archive as (path, place or FOLDER), and a function that reads from places."""

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
        """Records a folder and its parents. Returns the by-product folder that it is or lies in, or ""."""
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
        """Whether a file of this path exists."""
        return file in self._places

    def walk(self, folder: str) -> Iterator[str]:
        """Paths of all files below `folder`, and of by-product folders with a final slash."""
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
                    f"{name} in the tar is a link or device, not a file. Pack the files instead of links: "
                    "tar --dereference --hard-dereference."
                )
        yield name, member


def check_end(tar: tarfile.TarFile, file: IO[bytes]) -> None:
    """Checks that a tar is complete. All its members must have been read.

    `tarfile` mistakes the end of a truncated file for the end of the archive.

    Raises:
      tarfile.ReadError: the tar is empty or truncated.
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
    """Reads a compressed tar once. Only the contents of files with `keep(name)` stay in memory."""
    members: list[tuple[str, Any]] = []
    total = 0
    with stream, tarfile.open(fileobj=stream, mode="r|") as tar:
        for name, member in _tar_members(tar):
            content = tar.extractfile(member) if member.isreg() and keep(name) else None
            members.append((name, FOLDER if member.isdir() else content.read() if content else b""))
            total += member.size if content else 0
            if total > MAX_BYTES_IN_MEMORY:
                raise DataError(
                    f"{path} is a compressed tar, which is read into memory, and contains more than "
                    f"{MAX_BYTES_IN_MEMORY >> 30} GiB of images: decompress it to .tar, or use a .zip."
                )
    return ArchiveTree(members, lambda contents: contents.__getitem__)


def _index_zip(path: Path) -> ArchiveTree:
    with zipfile.ZipFile(path) as archive:
        stored = archive.namelist()
    names = [name.replace("\\", "/") for name in stored]  # some Windows programs write backslashes
    members = [
        (_normal(name), FOLDER if name.endswith("/") else place)
        for name, place in zip(names, stored, strict=True)
    ]
    return ArchiveTree(members, lambda places: ZipReader(path, places))


def open_tree(path: Path, keep: Predicate) -> Tree:
    """Opens a directory, an uncompressed tar, a compressed tar (gzip, bzip2, xz) or a zip.

    Args:
      path: an existing directory or file. The first bytes of a file decide its format.
      keep: accepts the relative paths of the files that may be read later. Only compressed tars use it.

    Raises:
      DataError: the file has none of these formats, or is damaged.
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
            f"{path} is neither a directory nor a complete .tar, .tar.gz, .tar.xz, .tar.bz2 or .zip "
            f"({error}); is the download complete?"
        ) from error

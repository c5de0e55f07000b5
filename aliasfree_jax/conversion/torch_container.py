"""Opens the two file formats of `torch.save`: a zip archive since PyTorch 1.6, a sequence of pickles before.

Both hold one pickle that describes the saved object, and separately the bytes of its tensors. Opening a file
reads only the description. The bytes of a storage are read on request.
"""

import io
import os
import reprlib
import struct
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from aliasfree_jax.conversion.torch_objects import Storage, look_up, storage
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.pickles.unpickling import load_pickle

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_PROTOCOL = 1001
CHUNK = 1 << 22  # bytes per read, so that memory never holds an entry twice
AGAIN = "Download it again and compare its size with the size that its source states"


@dataclass(frozen=True)
class Checkpoint:
    """An open file.

    Attributes:
      content: The saved object, with `Tensor` descriptions in place of tensors.
      read_storage: Reads all bytes of a storage: `[n]`, uint8, in this machine's byte order.
      file_size: Size of the file, bytes.
    """

    content: object
    read_storage: Callable[[Storage], np.ndarray]
    file_size: int


@contextmanager
def open_checkpoint(path: str | os.PathLike[str]) -> Iterator[Checkpoint]:
    """Opens the checkpoint at `path` for the duration of the `with` block.

    Raises:
      ConversionError: Anything failed, also within the block. The message begins with the path.
    """
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            head = file.read(512)
            file.seek(0)
            if head.startswith(b"PK"):
                with zipfile.ZipFile(file) as archive:
                    yield _open_zip(archive, size)
            elif head[:1] == b"\x80":
                yield _open_legacy(file, size)
            else:
                raise ConversionError(_what_else(head, size))
    except ConversionError as error:
        raise ConversionError(f"{path}: {error}.") from error
    except FileNotFoundError as error:
        raise ConversionError(f"{path}: the file does not exist.") from error
    except OSError as error:
        raise ConversionError(f"{path}: the file cannot be read: {error.strerror}.") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, struct.error, ValueError) as error:
        # `zipfile` raises all of these for inconsistent archives.
        raise ConversionError(
            f"{path}: the zip archive is cut short or damaged ({size} bytes; {error}). {AGAIN}."
        ) from error


class _Entries:
    """The entries of an archive. Each is checked before it is read."""

    def __init__(self, archive: zipfile.ZipFile, size: int) -> None:
        self.archive = archive
        self.size = size
        self.infos = {info.filename: info for info in archive.infolist()}
        # PyTorch can save without checksums. Then all of them are 0.
        self.checked = any(info.CRC for info in self.infos.values())

    def find(self, name: str, length: int | None = None) -> zipfile.ZipInfo:
        """Returns the entry `name`. Raises `ConversionError` if it is missing or has another length."""
        info = self.infos.get(name)
        if info is None:
            raise ConversionError(f"the zip archive has no entry {name!r}. {AGAIN}")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise ConversionError(
                f"its entry {name!r} is compressed or encrypted. torch.save never does that, so the file was "
                "refused"
            )
        if info.file_size > self.size or length not in (None, info.file_size):
            raise ConversionError(
                f"its entry {name!r} should have {length or 'fewer'} bytes but has {info.file_size}. {AGAIN}"
            )
        return info

    def read(self, name: str, length: int | None = None) -> np.ndarray:
        """Reads an entry into a new array `[n]`, uint8. Verifies its checksum if there is one."""
        info = self.find(name, length)
        if not self.checked and hasattr(info, "CRC"):
            del info.CRC  # zipfile verifies it if it is there
        data = np.empty(info.file_size, np.uint8)
        end = 0
        with self.archive.open(info) as source:
            while piece := source.read(CHUNK):
                data[end : end + len(piece)] = np.frombuffer(piece, np.uint8)
                end += len(piece)
        if end != info.file_size:
            raise ConversionError(f"its entry {name!r} has only {end} of {info.file_size} bytes. {AGAIN}")
        return data


def _open_zip(archive: zipfile.ZipFile, size: int) -> Checkpoint:
    entries = _Entries(archive, size)
    found = [name for name in entries.infos if name.count("/") <= 1 and name.split("/")[-1] == "data.pkl"]
    if len(found) != 1:
        raise ConversionError(
            f"it is a zip archive, but torch.save did not write it: it holds {len(found)} files data.pkl, "
            f"expected 1. Its entries: {', '.join(map(repr, list(entries.infos)[:5])) or 'none'}"
        )
    root = found[0].removesuffix("data.pkl")
    if f"{root}constants.pkl" in entries.infos:
        raise ConversionError(
            "it is a TorchScript program, not weights. Load it with torch.jit.load and save its state_dict()"
        )
    order = entries.read(f"{root}byteorder").tobytes() if f"{root}byteorder" in entries.infos else b"little"
    if order not in (b"little", b"big"):
        raise ConversionError(f"it states the unknown byte order {order[:20]!r}. {AGAIN}")
    declared: dict[str, Storage] = {}
    description = entries.read(found[0]).tobytes()
    content = load_pickle(io.BytesIO(description), len(description), look_up, _collector(declared))
    for each in declared.values():
        entries.find(f"{root}data/{each.key}", each.total * each.dtype.itemsize)

    def read_storage(wanted: Storage) -> np.ndarray:
        data = entries.read(f"{root}data/{wanted.key}", wanted.total * wanted.dtype.itemsize)
        return _native(data, wanted, order.decode())

    return Checkpoint(content, read_storage, size)


def _open_legacy(file: BinaryIO, size: int) -> Checkpoint:
    """Reads five pickles (magic number, version, machine, object, list of storages), then the storages."""

    def value() -> object:
        return load_pickle(file, size, look_up, storage)

    if value() != LEGACY_MAGIC:
        raise ConversionError("it is a pickle, but torch.save did not write it: the magic number is missing")
    if (version := value()) != LEGACY_PROTOCOL:
        raise ConversionError(
            f"it has version {reprlib.repr(version)} of PyTorch's old format, expected 1001"
        )
    value()  # sizes of C types on the machine that wrote it, not needed
    declared: dict[str, Storage] = {}
    content = load_pickle(file, size, look_up, _collector(declared))
    keys = value()
    if type(keys) is not list or any(type(key) is not str for key in keys) or set(keys) != set(declared):
        raise ConversionError(f"its list of storages does not match its tensors. {AGAIN}")
    positions: dict[str, int] = {}
    for key in keys:
        count = file.read(8)
        length = declared[key].total * declared[key].dtype.itemsize
        positions[key] = file.tell()
        if len(count) < 8 or positions[key] + length > size:
            raise ConversionError(
                f"it is cut short: its {size} bytes end within the storage {key!r}. {AGAIN}"
            )
        if count != struct.pack("<q", declared[key].total):
            raise ConversionError(
                f"its storage {key!r} does not have the stated {declared[key].total} elements"
            )
        file.seek(length, os.SEEK_CUR)

    def read_storage(wanted: Storage) -> np.ndarray:
        file.seek(positions[wanted.key])
        data = np.fromfile(file, np.uint8, wanted.total * wanted.dtype.itemsize)
        return _native(data, wanted, "little")

    return Checkpoint(content, read_storage, size)


def _collector(declared: dict[str, Storage]) -> Callable[[object], Storage]:
    """A `load_persistent` that stores each storage in `declared`, by its key."""

    def load(identifier: object) -> Storage:
        wanted = storage(identifier)
        first = declared.setdefault(wanted.key, wanted)
        if (first.dtype, first.total) != (wanted.dtype, wanted.total):
            raise ConversionError(f"it describes its storage {wanted.key!r} in two different ways. {AGAIN}")
        return wanted

    return load


def _native(data: np.ndarray, stored: Storage, order: str) -> np.ndarray:
    """Converts the bytes `data` of a storage from the byte order `order` to this machine's order."""
    if order == sys.byteorder:
        return data
    return data.view(f"u{stored.dtype.itemsize}").byteswap().view(np.uint8)


def _what_else(head: bytes, size: int) -> str:
    """Says what kind of file begins with `head`, and what to do."""
    if not size:
        return f"the file is empty. {AGAIN}"
    if head.lstrip().startswith(b"<"):
        return (
            "it is a web page, not weights: the server answered with HTML. Download the file itself "
            "(Hugging Face: /resolve/ in the address, not /blob/)"
        )
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file. Fetch the file with `git lfs pull`"
    if head[257:262] == b"ustar":
        return (
            "it is a tar archive, the format of PyTorch before version 0.2, which cannot be read. Load the "
            "file with PyTorch and save it again"
        )
    if head[8:9] == b"{":
        return "it seems to be a safetensors file. Read it with safetensors.numpy.load_file"
    return f"torch.save did not write it ({size} bytes that begin with {head[:12]!r}). {AGAIN}"

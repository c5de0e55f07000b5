"""Files of the safetensors format: names, types, shapes and places of tensors as JSON, then their bytes.

There is nothing to execute in one; every number that its header states is checked against the bytes
that are there (github.com/huggingface/safetensors, "Format").
"""

import itertools
import json
import math
import os
import struct
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import ml_dtypes
import numpy as np

from aliasfree_jax.errors import ConversionError, unknown

DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "C64": np.dtype(np.complex64),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U64": np.dtype(np.uint64),
    "U32": np.dtype(np.uint32),
    "U16": np.dtype(np.uint16),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
LENGTH = 8  # bytes that state the header's length
LONGEST_HEADER = 100_000_000  # the format's own limit
DIMENSIONS = 32
METADATA = "__metadata__"
AGAIN = "Download it again and compare its size with the one that its source states"


@dataclass(frozen=True)
class _Place:
    """One tensor of the header, checked: `begin` and `end` count from the first byte behind the header."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Whether a file is of this format: by its first bytes, not by its name; False if it cannot be opened."""
    try:
        with Path(path).open("rb") as file:
            return file.read(LENGTH + 1)[LENGTH:] == b"{"
    except OSError:
        return False


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The tensors of a file: name -> array in the stored dtype.

    Raises:
      ConversionError: the file cannot be read, or its header contradicts itself or the file's size.
    """
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = struct.unpack("<Q", file.read(LENGTH).ljust(LENGTH, b"\0"))[0]
            if length > min(size - LENGTH, LONGEST_HEADER):
                raise ConversionError(f"its header should have {length} bytes; the file has {size}. {AGAIN}")
            places = _places(file.read(length), size - LENGTH - length)
            tensors = {}
            for place in places:
                file.seek(LENGTH + length + place.begin)
                data = np.fromfile(file, np.uint8, place.end - place.begin)
                tensors[place.name] = _array(data, place)
            if not tensors:
                raise ConversionError("it holds no tensors")
            return tensors
    except ConversionError as error:
        raise ConversionError(f"{path}: {error}.") from error
    except OSError as error:
        raise ConversionError(f"{path}: the file cannot be read: {error.strerror}.") from error


def _array(data: np.ndarray, place: _Place) -> np.ndarray:
    if len(data) != place.end - place.begin:
        raise ConversionError(f"it was cut short while it was read, at its tensor {place.name!r}")
    if sys.byteorder == "big":
        data = data.view(f"u{place.dtype.itemsize}").byteswap().view(np.uint8)
    if place.dtype == np.bool_:
        return (data != 0).reshape(place.shape)  # other bytes than 0 and 1 would confuse numpy
    return data.view(place.dtype).reshape(place.shape)


def _places(header: bytes, size: int) -> list[_Place]:
    """The tensors of a header, which fill the `size` bytes behind it without holes or overlaps."""
    places = [_place(name, fields) for name, fields in _content(header).items() if name != METADATA]
    end = 0
    for place in sorted(places, key=lambda place: (place.begin, place.end)):
        if place.begin != end:
            fault = "overlaps the one before" if place.begin < end else "leaves a hole before it"
            raise ConversionError(f"its tensor {place.name!r} {fault}: bytes {place.begin} to {place.end}")
        end = place.end
    if end != size:
        raise ConversionError(f"its tensors take {end} bytes, {size} are there. {AGAIN}")
    return places


def _content(header: bytes) -> dict[str, Any]:
    try:
        content = json.loads(header.decode(), object_pairs_hook=_once, parse_constant=_refused)
    except (ValueError, RecursionError) as error:
        raise ConversionError(f"its header is not sound JSON: {error}. {AGAIN}") from error
    if not isinstance(content, dict):
        raise ConversionError(f"its header is a {type(content).__name__}, not an object")
    notes = content.get(METADATA, {})
    if not isinstance(notes, dict) or not all(isinstance(note, str) for note in notes.values()):
        raise ConversionError(f"its {METADATA} is not an object of strings")
    return content


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a name occurs twice")
    return dict(pairs)


def _refused(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number of JSON")


def _place(name: str, fields: Any) -> _Place:
    """The tensor `name`, from its entry of the header."""
    if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
        raise ConversionError(f"its entry {name!r} is not an object of dtype, shape and data_offsets")
    if fields["dtype"] not in list(DTYPES):
        raise ConversionError(unknown(f"dtype of its tensor {name!r}", fields["dtype"], DTYPES).rstrip("."))
    dtype, shape, offsets = DTYPES[fields["dtype"]], fields["shape"], fields["data_offsets"]
    if not _counts(shape) or len(shape) > DIMENSIONS:
        raise ConversionError(f"the shape of its tensor {name!r} is not up to {DIMENSIONS} whole numbers")
    if not _counts(offsets) or len(offsets) != 2:
        raise ConversionError(f"the data_offsets of its tensor {name!r} are not two whole numbers")
    expected, found = math.prod(shape) * dtype.itemsize, offsets[1] - offsets[0]
    if expected != found:
        raise ConversionError(f"its tensor {name!r} of shape {shape} takes {expected} bytes, not {found}")
    return _Place(name, dtype, tuple(shape), *offsets)


def _counts(value: Any) -> bool:
    """Whether `value` is a list of whole numbers from 0 to what an array can have."""
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 62 for n in value)


def safetensors_file(tensors: Mapping[str, np.ndarray]) -> bytes:
    """`tensors` as the content of a file, which PyTorch's users read too (metadata {"format": "pt"})."""
    # The widest first: so each begins at a multiple of its own width, as in the format's own writer.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))
    ends = list(itertools.accumulate(array.nbytes for _, array in ordered))
    header: dict[str, Any] = {METADATA: {"format": "pt"}}
    for (name, array), end in zip(ordered, ends, strict=True):
        offsets = [end - array.nbytes, end]
        header[name] = {"dtype": _NAMES[array.dtype], "shape": list(array.shape), "data_offsets": offsets}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return b"".join([struct.pack("<Q", len(text)), text, *(little_endian(array) for _, array in ordered)])


def little_endian(array: np.ndarray) -> bytes:
    """The bytes of `array` in C order, the lowest of each element first."""
    if sys.byteorder == "big":
        array = array.view(f"u{array.dtype.itemsize}").byteswap()
    return array.tobytes()

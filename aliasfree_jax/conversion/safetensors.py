"""Reads and writes safetensors files as numpy arrays, with the library `safetensors`."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors
from safetensors.numpy import save

from aliasfree_jax.errors import ConversionError

# The format also has F4 and F6, which pack several numbers into one byte.
DTYPES: dict[str, np.dtype] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E4M3FNUZ": np.dtype(ml_dtypes.float8_e4m3fnuz),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E5M2FNUZ": np.dtype(ml_dtypes.float8_e5m2fnuz),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
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
LENGTH = 8  # bytes with the header's length
LONGEST_REASON = 200  # characters: a hostile file can cause very long messages


def is_safetensors(path: str | os.PathLike[str]) -> bool:
    """Whether a file has this format, by its first bytes. False if it cannot be opened."""
    try:
        with Path(path).open("rb") as file:
            return file.read(LENGTH + 1)[LENGTH:] == b"{"
    except OSError:
        return False


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """Reads the tensors of a file.

    Returns:
      Arrays by name, in the stored dtype.

    Raises:
      ConversionError: The file cannot be read, is damaged, or has tensors that numpy cannot hold.
    """
    try:
        content = Path(path).read_bytes()
        stored = safetensors.deserialize(content)
        # The library silently returns the last of two tensors with the same name.
        header = content[LENGTH : LENGTH + int.from_bytes(content[:LENGTH], "little")]
        json.loads(header, object_pairs_hook=_once)
        tensors = {name: _array(fields) for name, fields in stored}
    except OSError as error:
        raise ConversionError(f"{path}: the file cannot be read: {error.strerror}.") from error
    except (safetensors.SafetensorError, ValueError) as error:
        reason = " ".join(str(error).split())[:LONGEST_REASON]
        raise ConversionError(
            f"{path} is not a sound safetensors file: {reason}. Download it again and compare its size "
            "with the size that its source states."
        ) from error
    except KeyError as error:
        raise ConversionError(
            f"{path}: a tensor has the dtype {error}, which numpy cannot hold. Expected: {', '.join(DTYPES)}."
        ) from error
    if not tensors:
        raise ConversionError(f"{path}: the file holds no tensors.")
    return tensors


def _array(fields: dict[str, Any]) -> np.ndarray:
    dtype = DTYPES[fields["dtype"]]
    if dtype == np.bool_:  # numpy misbehaves with bytes other than 0 and 1
        return np.ndarray(fields["shape"], np.uint8, fields["data"]) != 0
    return np.ndarray(fields["shape"], dtype, fields["data"])


def _once(pairs: list[tuple[str, Any]]) -> None:
    names = {name for name, _ in pairs}
    if len(names) < len(pairs):
        raise ValueError("a name occurs twice in its header")


def safetensors_file(tensors: Mapping[str, np.ndarray]) -> bytes:
    """Returns the content of a file with `tensors`. With `{"format": "pt"}`, PyTorch's tools read it too."""
    return save({name: np.asarray(array, order="C") for name, array in tensors.items()}, {"format": "pt"})

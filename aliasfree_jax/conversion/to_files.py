"""Writes a network of this package as a file of weights that an original program loads.

The file is a safetensors file, or a file that `torch.load(..., weights_only=True)` reads. PyTorch is not
needed. Its format is the zip archive of PyTorch 1.6 and later: `data.pkl`, a pickle of protocol 2, describes
the tensors, and `data/` holds their bytes.
"""

import io
import pickle
import struct
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aliasfree_jax.checkpoint import load_model
from aliasfree_jax.conversion.code_bases import original_of
from aliasfree_jax.conversion.originals import to_original
from aliasfree_jax.conversion.safetensors import safetensors_file
from aliasfree_jax.conversion.torch_objects import STORAGES
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.files import local_path, write_whole

# Several storages have the same dtype. The first one is the standard one.
_STORAGE_OF = {dtype: name for name, dtype in reversed(STORAGES.items())}
ROOT = "archive"


def torch_file(tensors: Mapping[str, np.ndarray], entry: str = "") -> bytes:
    """Returns the content of a file of `torch.save`.

    Args:
      tensors: Tensors by name, with dtypes of `STORAGES`.
      entry: Entry of the dictionary that holds the state dict. "": the file holds the state dict directly.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:

        def add(name: str, data: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(f"{ROOT}/{name}"), data)  # the date is constant

        add("data.pkl", _pickled(tensors, entry))
        add("byteorder", b"little")
        for number, array in enumerate(tensors.values()):
            add(f"data/{number}", little_endian(array))
        add("version", b"3\n")
    return content.getvalue()


def little_endian(array: np.ndarray) -> bytes:
    """Returns the bytes of `array` in C order and little-endian."""
    if sys.byteorder == "big":
        array = array.view(f"u{array.dtype.itemsize}").byteswap()
    return array.tobytes()


def _pickled(tensors: Mapping[str, np.ndarray], entry: str) -> bytes:
    """The pickle, written operation by operation: `pickle` would have to import PyTorch."""
    items = [_text(name) + _tensor(str(n), array) for n, (name, array) in enumerate(tensors.items())]
    state = _ordered_dict() + pickle.MARK + b"".join(items) + pickle.SETITEMS
    if entry:
        state = pickle.EMPTY_DICT + _text(entry) + state + pickle.SETITEM
    return pickle.PROTO + b"\x02" + state + pickle.STOP


def _tensor(key: str, array: np.ndarray) -> bytes:
    """A call of `_rebuild_tensor_v2` with storage, offset, shape, strides, requires_grad and hooks."""
    kind = _name("torch", _STORAGE_OF[array.dtype])
    storage = _tuple(_text("storage"), kind, _text(key), _text("cpu"), _number(array.size))
    strides = [int(np.prod(array.shape[axis + 1 :])) for axis in range(array.ndim)]
    arguments = _tuple(
        storage + pickle.BINPERSID,
        _number(0),
        _tuple(*map(_number, array.shape)),
        _tuple(*map(_number, strides)),
        pickle.NEWFALSE,
        _ordered_dict(),
    )
    return _name("torch._utils", "_rebuild_tensor_v2") + arguments + pickle.REDUCE


def _name(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _ordered_dict() -> bytes:
    return _name("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE


def _tuple(*parts: bytes) -> bytes:
    return pickle.MARK + b"".join(parts) + pickle.TUPLE


def _text(text: str) -> bytes:
    data = text.encode()
    return pickle.BINUNICODE + struct.pack("<I", len(data)) + data


def _number(value: int) -> bytes:
    if value < 1 << 31:
        return pickle.BININT + struct.pack("<i", value)
    return pickle.LONG1 + b"\x08" + struct.pack("<q", value)


FORMATS: dict[str, Callable[[Mapping[str, np.ndarray]], bytes]] = {
    ".safetensors": safetensors_file,
    ".pth": torch_file,
    # The format of --save_weights and --weights of antialiased-cnns and truly_shift_invariant_cnns.
    ".pth.tar": lambda tensors: torch_file(tensors, "state_dict"),
}


def write_original(source: str, run: str | Path, output: str | Path) -> tuple[str, dict[str, Any], int]:
    """Writes the weights of a run under the keys of an original, which loads them strictly.

    Args:
      source: The original code base, as in `from_original`.
      run: A run, its `best`, one step, or a converted directory.
      output: The new file. Its name ends in one of `FORMATS`.

    Returns:
      Name and constructor options of the network there, and the number of values written.

    Raises:
      ConversionError: The code base has no such network, or the file exists, has no directory or has an
        unknown ending.
      CheckpointError: There is no sound network at `run`.
      UnwritableError: The file cannot be written.
    """
    path = local_path(output, "the file to write")
    encode = next((encode for end, encode in FORMATS.items() if path.name.endswith(end)), None)
    if encode is None:
        raise ConversionError(
            f"{path} must end in one of {', '.join(FORMATS)}: the ending chooses the format."
        )
    if path.exists():
        raise ConversionError(f"{path} exists already. Choose another name, or remove it first.")
    if not path.parent.is_dir():
        raise ConversionError(f"{path} cannot be written: the directory {path.parent} does not exist.")
    card, _, variables = load_model(local_path(run, "the run"))
    model, options = original_of(source, card)
    tensors = to_original(source, model, options, variables)
    write_whole(path, encode(tensors))
    return model, options, sum(array.size for array in tensors.values())

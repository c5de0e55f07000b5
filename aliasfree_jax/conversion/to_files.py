"""A network of this package as a file of weights that an original program loads.

The file is of safetensors, or one that `torch.load(..., weights_only=True)` reads, made without PyTorch: the
zip archive of PyTorch 1.6 and later, with `data.pkl`, a pickle of protocol 2 that describes the tensors, and
the bytes of each under `data/`.
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

# Several storages have one dtype: the first is the plain one.
_STORAGE_OF = {dtype: name for name, dtype in reversed(STORAGES.items())}
ROOT = "archive"


def torch_file(tensors: Mapping[str, np.ndarray], entry: str = "") -> bytes:
    """The content of a file of `torch.save`.

    Args:
      tensors: by name; of dtypes that `STORAGES` has.
      entry: of the dictionary that holds them; "" for the state dict itself.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:

        def add(name: str, data: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(f"{ROOT}/{name}"), data)  # with a constant date

        add("data.pkl", _pickled(tensors, entry))
        add("byteorder", b"little")
        for number, array in enumerate(tensors.values()):
            add(f"data/{number}", little_endian(array))
        add("version", b"3\n")
    return content.getvalue()


def little_endian(array: np.ndarray) -> bytes:
    """The bytes of `array` in C order, the lowest of each element first."""
    if sys.byteorder == "big":
        array = array.view(f"u{array.dtype.itemsize}").byteswap()
    return array.tobytes()


def _pickled(tensors: Mapping[str, np.ndarray], entry: str) -> bytes:
    """The description, operation by operation: `pickle` itself would have to import what it names."""
    items = [_text(name) + _tensor(str(n), array) for n, (name, array) in enumerate(tensors.items())]
    state = _ordered_dict() + pickle.MARK + b"".join(items) + pickle.SETITEMS
    if entry:
        state = pickle.EMPTY_DICT + _text(entry) + state + pickle.SETITEM
    return pickle.PROTO + b"\x02" + state + pickle.STOP


def _tensor(key: str, array: np.ndarray) -> bytes:
    """A call of `_rebuild_tensor_v2`: storage, offset, shape, strides, requires_grad, hooks."""
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
    # What --save_weights of antialiased-cnns and truly_shift_invariant_cnns writes, and --weights reads.
    ".pth.tar": lambda tensors: torch_file(tensors, "state_dict"),
}


def write_original(source: str, run: str | Path, output: str | Path) -> tuple[str, dict[str, Any], int]:
    """Writes the weights of a run under the keys of an original, which loads them strictly.

    Args:
      source: the original code base, as in `from_original`.
      run: a run's directory, its `best`, one step, or a converted directory.
      output: the file to write, which must not exist; its name ends in one of `FORMATS`.

    Returns:
      Name and constructor options of the network there, and the number of values written.

    Raises:
      ConversionError: that code base has no such network; the file exists, cannot be written, or has
        another ending.
      CheckpointError: there is no sound network at `run`.
    """
    path = local_path(output, "the file to write")
    encode = next((encode for end, encode in FORMATS.items() if path.name.endswith(end)), None)
    if encode is None:
        raise ConversionError(f"{path} should end in {', '.join(FORMATS)}: that chooses the format.")
    if path.exists():
        raise ConversionError(f"{path} exists already: choose another name, or remove it first.")
    if not path.parent.is_dir():
        raise ConversionError(f"{path} cannot be written: there is no directory {path.parent}.")
    card, _, variables = load_model(local_path(run, "the run"))
    model, options = original_of(source, card)
    tensors = to_original(source, model, options, variables)
    try:
        write_whole(path, encode(tensors))
    except OSError as error:
        raise ConversionError(f"{path} cannot be written: {error.strerror}.") from error
    return model, options, sum(array.size for array in tensors.values())

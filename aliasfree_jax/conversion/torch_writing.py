"""A state dict as a file that `torch.load(..., weights_only=True)` reads, without PyTorch.

The file is the zip archive of PyTorch 1.6 and later: `data.pkl`, a pickle of protocol 2 that describes
the tensors, and the bytes of each under `data/`.
"""

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from aliasfree_jax.conversion.safetensors import little_endian

STORAGES = {
    np.dtype(np.float64): "DoubleStorage",
    np.dtype(np.float32): "FloatStorage",
    np.dtype(np.float16): "HalfStorage",
    np.dtype(ml_dtypes.bfloat16): "BFloat16Storage",
    np.dtype(np.int64): "LongStorage",
    np.dtype(np.int32): "IntStorage",
    np.dtype(np.int16): "ShortStorage",
    np.dtype(np.int8): "CharStorage",
    np.dtype(np.uint8): "ByteStorage",
    np.dtype(np.bool_): "BoolStorage",
}
ROOT = "archive"


def torch_file(tensors: Mapping[str, np.ndarray], entry: str = "") -> bytes:
    """The content of a file of `torch.save`.

    Args:
      tensors: by name; of the dtypes of `STORAGES`.
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


def _pickled(tensors: Mapping[str, np.ndarray], entry: str) -> bytes:
    """The description, operation by operation: `pickle` itself would have to import what it names."""
    items = [_text(name) + _tensor(str(n), array) for n, (name, array) in enumerate(tensors.items())]
    state = _ordered_dict() + pickle.MARK + b"".join(items) + pickle.SETITEMS
    if entry:
        state = pickle.EMPTY_DICT + _text(entry) + state + pickle.SETITEM
    return pickle.PROTO + b"\x02" + state + pickle.STOP


def _tensor(key: str, array: np.ndarray) -> bytes:
    """A call of `_rebuild_tensor_v2`: storage, offset, shape, strides, requires_grad, hooks."""
    kind = _name("torch", STORAGES[array.dtype])
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

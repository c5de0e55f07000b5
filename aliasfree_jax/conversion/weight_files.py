"""Reads weights from files of `torch.save` or safetensors as numpy arrays and plain values, without PyTorch.

Published weights are pickles. A pickle can run any program when PyTorch or `pickle` opens it. Here nothing in
a file is executed (see `unpickling`). Every stated length is checked against the file's bytes. So untrusted
files can be read.
"""

import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from aliasfree_jax.conversion.safetensors import is_safetensors, read_safetensors
from aliasfree_jax.conversion.torch_container import Checkpoint, open_checkpoint
from aliasfree_jax.conversion.torch_objects import Storage, Tensor
from aliasfree_jax.conversion.weights import find_weights
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.pickles.inert import Constructor, Description, NumpyArray, NumpyDtype, Record
from aliasfree_jax.pickles.unpickling import refused

# Tensors may repeat elements (stride 0) and share storages. Arrays with more bytes in total are an attack on
# the memory. The limit is FREE_BYTES plus BYTES_PER_BYTE for each byte of the file.
FREE_BYTES, BYTES_PER_BYTE = 1 << 26, 8
_TOO_DEEP = "its values are nested too deeply, so it was refused"


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[object, Callable[[Any], Any]]]:
    """The content of a file, and a function that makes arrays of parts of it."""
    if is_safetensors(path):
        yield read_safetensors(path), lambda part: part
    else:
        with open_checkpoint(path) as checkpoint:
            try:
                yield checkpoint.content, _Arrays(checkpoint).put_into
            except RecursionError as error:
                raise ConversionError(_TOO_DEEP) from error


def read_state_dict(
    path: str | os.PathLike[str], *, key: str | None = None, tell: Callable[[str], None] | None = None
) -> dict[str, np.ndarray]:
    """Reads the weights in a file.

    The file holds a state dict, or one inside entries and prefixes of any nesting (see `weights`). Only the
    chosen arrays of a file of `torch.save` are read.

    Args:
      path: The file.
      key: The entry to read. Default: averaged weights if there are any, else the network's.
      tell: Called with the chosen entry and the entries that were left out, if there are any.

    Returns:
      Arrays by name, in PyTorch's layout and the stored dtype.

    Raises:
      ConversionError: As `read_torch_file`. Or `key` is unknown, or it was given for a safetensors file, or
        the file has no named tensors.
    """
    if key is not None and is_safetensors(path):
        raise ConversionError(
            f"{path} is a safetensors file, which has tensors but no entries. Leave out `key` ({key!r})."
        )
    with _opened(path) as (content, arrays):
        found = find_weights(content, key)
        if tell is not None and found.aside:
            tell(f"{path}: {found.note()}.")
        return {name: arrays(tensor) for name, tensor in found.tensors.items()}


def read_entry(path: str | os.PathLike[str], key: str) -> object:
    """Reads one entry of the dictionary in a file, like `read_torch_file`. None if it is missing."""
    if is_safetensors(path):
        return None
    with _opened(path) as (content, arrays):
        return arrays(content.get(key)) if isinstance(content, dict) else None


def read_torch_file(path: str | os.PathLike[str]) -> object:
    """Reads the whole content of a file of `torch.save` as numpy arrays and plain values.

    It reads the zip format and the older sequence of pickles. These types change:

    - Tensors and parameters become arrays that share no memory. A tensor that occurs twice is one array.
      bfloat16 is the dtype of ml_dtypes.
    - `argparse.Namespace` becomes a `Record` with the same attributes, `torch.Size` a tuple, `torch.dtype`
      and `torch.device` strings such as "torch.float32" and "cuda:0".
    - Sets become lists. Counters and default dictionaries become dictionaries, paths become strings.
    - Objects of the training program's classes become a `Description`. The classes become their names.

    numpy's numbers and numeric arrays do not change.

    Raises:
      ConversionError: The file is missing or damaged, has another format, or asks for a name that is not on
        the list of harmless names. Nothing in it is ever executed.
    """
    with open_checkpoint(path) as checkpoint:
        try:
            if type(checkpoint.content) is Constructor:
                raise ConversionError(refused(checkpoint.content.name))
            return _Arrays(checkpoint).put_into(checkpoint.content)
        except RecursionError as error:
            raise ConversionError(_TOO_DEEP) from error


class _Arrays:
    """Makes arrays of the tensors of one checkpoint. Each storage is read once."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.bytes_left = FREE_BYTES + BYTES_PER_BYTE * checkpoint.file_size
        self.storages: dict[str, np.ndarray] = {}
        self.given_away: set[str] = set()
        # Keys are identities. The replaced value is kept too, so that no new object gets its identity.
        self.done: dict[int, tuple[object, object]] = {}

    def put_into(self, value: Any) -> Any:
        """Replaces the tensors in `value` by arrays, in place where possible."""
        if id(value) in self.done:
            return self.done[id(value)][1]
        result: object = value
        if type(value) is Tensor:
            result = self.array(value)
        elif type(value) is NumpyArray:
            result = self.put_into(value.value)
        elif type(value) is NumpyDtype:
            result = value.dtype
        elif type(value) is Constructor:
            result = value.name
        elif type(value) is Storage:
            result = repr(value)
        elif type(value) is tuple:
            result = tuple(self.put_into(part) for part in value)
        elif type(value) is list:
            self.done[id(value)] = value, value  # before its parts: it may contain itself
            value[:] = [self.put_into(part) for part in value]
        elif type(value) is Description:
            self.done[id(value)] = value, value
            value.arguments, value.state = self.put_into(value.arguments), self.put_into(value.state)
            self.put_into(value.items)
        elif isinstance(value, dict | Record):
            self.done[id(value)] = value, value
            items = vars(value) if isinstance(value, Record) else value
            items.update({name: self.put_into(part) for name, part in items.items()})
        else:
            return value
        self.done[id(value)] = value, result
        return result

    def array(self, tensor: Tensor) -> np.ndarray:
        """The elements of `tensor` in C order, in separate memory."""
        stored = tensor.storage
        size = stored.dtype.itemsize
        self.bytes_left -= math.prod(tensor.shape) * size
        if self.bytes_left < 0:
            raise ConversionError(
                f"its tensors repeat elements and would need over {BYTES_PER_BYTE} times the "
                f"{self.checkpoint.file_size} bytes of the file, so it was refused"
            )
        if 0 in tensor.shape:
            return np.empty(tensor.shape, stored.dtype)
        if stored.key not in self.storages:
            self.storages[stored.key] = self.checkpoint.read_storage(stored)
        data = self.storages[stored.key]
        strides = [step * size for step in tensor.strides]
        view = np.ndarray(tensor.shape, stored.dtype, data, tensor.offset * size, strides)
        if view.dtype == np.bool_:
            return view.view(np.uint8) != 0  # numpy misbehaves with bytes other than 0 and 1
        if view.nbytes == data.nbytes and view.flags.c_contiguous and stored.key not in self.given_away:
            self.given_away.add(stored.key)
            return view
        return view.copy()

"""Weights in files of `torch.save` or safetensors, as numpy arrays and plain values, without PyTorch.

Published weights are pickles, and a pickle can run any program when PyTorch or `pickle` opens it.
Here nothing of a file is ever executed (see `unpickling`), and every length it states is checked
against the bytes that are there, so files from strangers can be read.
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

# A tensor may repeat its elements (stride 0) and many may share one storage. Arrays of more bytes
# than these in all, the second for each byte of the file, are an attack on the memory.
FREE_BYTES, BYTES_PER_BYTE = 1 << 26, 8


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[tuple[object, Callable[[Any], Any]]]:
    """What a file of either kind holds, and what makes arrays of a part of it."""
    if is_safetensors(path):
        yield read_safetensors(path), lambda part: part
    else:
        with open_checkpoint(path) as checkpoint:
            yield checkpoint.content, _Arrays(checkpoint).put_into


def read_state_dict(
    path: str | os.PathLike[str], *, key: str | None = None, tell: Callable[[str], None] | None = None
) -> dict[str, np.ndarray]:
    """The weights in a file: name -> array in PyTorch's layout and the stored dtype.

    The file holds a state dict, or one in entries and behind prefixes of any nesting (`weights`): averaged
    weights are preferred; `key` names another entry. Of a file of `torch.save`, only the chosen arrays are
    read. `tell` is called with what was taken and what left aside, if anything was.

    Raises:
      ConversionError: as `read_torch_file`; also for an unknown `key`, or one for a safetensors file, or if
        there are no named tensors.
    """
    if key is not None and is_safetensors(path):
        raise ConversionError(
            f"{path} is a safetensors file, which holds tensors and no entries: leave out `key` ({key!r})."
        )
    with _opened(path) as (content, arrays):
        found = find_weights(content, key)
        if tell is not None and found.aside:
            tell(f"{path}: {found.note()}.")
        return {name: arrays(tensor) for name, tensor in found.tensors.items()}


def read_entry(path: str | os.PathLike[str], key: str) -> object:
    """One entry of the dictionary in a file, as `read_torch_file` gives it; None if there is none."""
    if is_safetensors(path):
        return None
    with _opened(path) as (content, arrays):
        return arrays(content.get(key)) if isinstance(content, dict) else None


def read_torch_file(path: str | os.PathLike[str]) -> object:
    """All that a file of `torch.save` holds, as numpy arrays and plain values.

    Reads the zip format and the older one of a run of pickles. Tensors and parameters of any strides
    become arrays that share no memory with one another (a tensor that the file holds in two places
    is one array in both); bfloat16 is that of ml_dtypes. `argparse.Namespace` becomes a `Record`
    with the same attributes, torch.Size a tuple, torch.dtype and torch.device strings such as
    "torch.float32" and "cuda:0"; numpy's numbers and arrays of them stay as they are; sets become lists,
    counters and default dictionaries plain ones, paths strings. Objects of the training program's own
    classes become a `Description`, the classes themselves their names.

    Raises:
      ConversionError: the file is missing, damaged, of another format, or asks for anything that is
        not on the list of harmless names; nothing of it is executed in any case.
    """
    with open_checkpoint(path) as checkpoint:
        try:
            if type(checkpoint.content) is Constructor:
                raise ConversionError(refused(checkpoint.content.name))
            return _Arrays(checkpoint).put_into(checkpoint.content)
        except RecursionError as error:
            raise ConversionError("its values are nested too deeply; refused") from error


class _Arrays:
    """Reads the storages of one checkpoint, each once, and makes arrays of its tensors."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.bytes_left = FREE_BYTES + BYTES_PER_BYTE * checkpoint.file_size
        self.storages: dict[str, np.ndarray] = {}
        self.given_away: set[str] = set()
        # By identity; the value replaced is kept too, lest another object gets its identity.
        self.done: dict[int, tuple[object, object]] = {}

    def put_into(self, value: Any) -> Any:
        """`value` with arrays for its tensors; what can be changed in place is."""
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
            self.done[id(value)] = value, value  # first, for it may contain itself
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
        """The elements of `tensor` in C order, in memory of their own."""
        stored = tensor.storage
        size = stored.dtype.itemsize
        self.bytes_left -= math.prod(tensor.shape) * size
        if self.bytes_left < 0:
            raise ConversionError(
                f"its tensors repeat so many elements that they would take over {BYTES_PER_BYTE} times the "
                f"{self.checkpoint.file_size} bytes of the file; refused"
            )
        if 0 in tensor.shape:
            return np.empty(tensor.shape, stored.dtype)
        if stored.key not in self.storages:
            self.storages[stored.key] = self.checkpoint.read_storage(stored)
        data = self.storages[stored.key]
        strides = [step * size for step in tensor.strides]
        view = np.ndarray(tensor.shape, stored.dtype, data, tensor.offset * size, strides)
        if view.dtype == np.bool_:
            return view.view(np.uint8) != 0  # other bytes than 0 and 1 would confuse numpy
        if view.nbytes == data.nbytes and view.flags.c_contiguous and stored.key not in self.given_away:
            self.given_away.add(stored.key)
            return view
        return view.copy()

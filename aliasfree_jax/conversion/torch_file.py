"""Checkpoint files of PyTorch as numpy arrays and plain Python values, without PyTorch.

Published weights are pickles, and a pickle can run any program when PyTorch or `pickle` opens it.
Here nothing of a file is ever executed (see `unpickling`), and every length it states is checked
against the bytes that are there, so files from strangers can be read.
"""

import itertools
import math
import os
import reprlib
from collections.abc import Collection
from typing import Any

import numpy as np

from aliasfree_jax.conversion.torch_container import Checkpoint, open_checkpoint
from aliasfree_jax.conversion.torch_objects import Storage, Tensor
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.pickles.inert import Constructor, Description, NumpyArray, NumpyDtype, Record

WRAPPERS = ("model_ema", "model", "module", "state_dict")
PREFIX = "module."  # of every name if the network was wrapped for data parallelism
SHOWN = 10  # names in an error
# A tensor may repeat its elements (stride 0) and many may share one storage. Arrays of more bytes
# than these in all, the second for each byte of the file, are an attack on the memory.
FREE_BYTES, BYTES_PER_BYTE = 1 << 26, 8


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
            return _Arrays(checkpoint).put_into(checkpoint.content)
        except RecursionError as error:
            raise ConversionError("its values are nested too deeply; refused") from error


def read_state_dict(path: str | os.PathLike[str], *, key: str | None = None) -> dict[str, np.ndarray]:
    """The weights in a file of `torch.save`: name -> array in PyTorch's layout and the stored dtype.

    The file holds a state dict itself, or a dictionary with one under, in this order of preference,
    `model_ema` (the averaged weights, which the alias-free code base evaluates), `model`, `module`
    or `state_dict`; `key` names another entry. Only the chosen arrays are read. A `module.` before
    every name is removed.

    Raises:
      ConversionError: as `read_torch_file`; also for an unknown `key`, or if what was chosen is not
        a dictionary of named tensors only.
    """
    with open_checkpoint(path) as checkpoint:
        place, chosen = _choose(checkpoint.content, key)
        odd = [
            n for n, value in chosen.items() if type(n) is not str or type(value) not in (Tensor, NumpyArray)
        ]
        if odd:
            raise ConversionError(
                f"{place} is not a state dict: not named tensors are {_listing(odd)} of its {len(chosen)} "
                "entries. If another entry of the file holds the weights, name it with `key`"
            )
        if not chosen:
            raise ConversionError(f"{place} is an empty dictionary, not weights")
        arrays = _Arrays(checkpoint)
        prefix = PREFIX if all(name.startswith(PREFIX) for name in chosen) else ""
        return {name.removeprefix(prefix): arrays.put_into(value) for name, value in chosen.items()}


def read_entry(path: str | os.PathLike[str], key: str) -> object:
    """One entry of the dictionary in a file, as `read_torch_file` gives it; None if there is none."""
    with open_checkpoint(path) as checkpoint:
        content = checkpoint.content
        return _Arrays(checkpoint).put_into(content.get(key)) if isinstance(content, dict) else None


def _choose(content: object, key: str | None) -> tuple[str, dict[Any, object]]:
    """How to call the dictionary that should be the state dict, and the dictionary."""
    if not isinstance(content, dict):
        raise ConversionError(f"it holds a {type(content).__name__}, not a dictionary of weights")
    if key is None:
        key = next((name for name in WRAPPERS if isinstance(content.get(name), dict)), None)
        if key is None:
            return "what it holds", content
    if key not in content:
        raise ConversionError(
            f"it has no entry {key!r}; the entries are {_listing(content)}. Without `key`, the first of "
            f"{', '.join(WRAPPERS)} is read, or the whole file"
        )
    chosen = content[key]
    if not isinstance(chosen, dict):
        raise ConversionError(f"its entry {key!r} is a {type(chosen).__name__}, not a dictionary of weights")
    return f"its entry {key!r}", chosen


def _listing(names: Collection[object]) -> str:
    """The first names, and how many there are in all if that is more."""
    shown = ", ".join(reprlib.repr(name) for name in itertools.islice(names, SHOWN))
    return shown if len(names) <= SHOWN else f"{shown}, ... ({len(names)} in all)"


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
            result = value.value
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

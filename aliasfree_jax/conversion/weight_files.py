"""The weights in a file, of whichever kind it is: of `torch.save`, or safetensors."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from aliasfree_jax.conversion import torch_file
from aliasfree_jax.conversion.safetensors import is_safetensors, read_safetensors
from aliasfree_jax.conversion.weights import find_weights
from aliasfree_jax.errors import ConversionError


def _is_safetensors(path: str | os.PathLike[str]) -> bool:
    """By its first bytes, not by its name; False for what cannot be opened, which the readers explain."""
    try:
        with Path(path).open("rb") as file:
            return is_safetensors(file.read(16))
    except OSError:
        return False


def read_state_dict(
    path: str | os.PathLike[str], *, key: str | None = None, tell: Callable[[str], None] | None = None
) -> dict[str, np.ndarray]:
    """The weights in a file: name -> array in PyTorch's layout and the stored dtype.

    Averaged weights are preferred, and prefixes taken off (`weights`); `tell` is called with what was taken
    and what left aside, if anything was.

    Raises:
      ConversionError: not readable as either kind, or a `key` for a safetensors file.
    """
    if not _is_safetensors(path):
        return torch_file.read_state_dict(path, key=key, tell=tell)
    if key is not None:
        raise ConversionError(
            f"{path} is a safetensors file, which holds tensors and no entries: leave out `key` ({key!r})."
        )
    tensors = read_safetensors(path)
    if not tensors:
        raise ConversionError(f"{path} holds no tensors.")
    found = find_weights(tensors)
    if tell is not None and found.aside:
        tell(f"{path}: {found.note()}.")
    return {name: array for name, array in found.tensors.items() if isinstance(array, np.ndarray)}


def read_entry(path: str | os.PathLike[str], key: str) -> object:
    """One entry of the dictionary in a file, as `read_torch_file` gives it; None if there is none."""
    return None if _is_safetensors(path) else torch_file.read_entry(path, key)

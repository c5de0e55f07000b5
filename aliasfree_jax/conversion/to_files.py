"""A network of this package as a file of weights that an original program loads."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aliasfree_jax.checkpoint import load_model
from aliasfree_jax.conversion.inverse import original_of
from aliasfree_jax.conversion.originals import to_original
from aliasfree_jax.conversion.safetensors import safetensors_file
from aliasfree_jax.conversion.torch_writing import torch_file
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.files import local_path, write_whole

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

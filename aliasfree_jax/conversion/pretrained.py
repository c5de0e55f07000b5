"""Loads networks with weights from runs, files, directories and hubs: `load_pretrained`."""

import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np

from aliasfree_jax.checkpoint import ModelCard, load_model
from aliasfree_jax.conversion.code_bases import AFC, BLURPOOL, LPS, PLAIN, TIMM, TRANSFORMERS, code_base
from aliasfree_jax.conversion.entries import Options
from aliasfree_jax.conversion.hub import STANDARD, chosen, fetch, is_weights
from aliasfree_jax.conversion.library_config import CONFIG, LibraryConfig, read_library_config
from aliasfree_jax.conversion.originals import converted
from aliasfree_jax.conversion.published import fetch_published
from aliasfree_jax.conversion.publishing import is_published, read_published
from aliasfree_jax.conversion.recognition import UNTRACED, normalised, recognise
from aliasfree_jax.conversion.undecided import (
    UndecidedError,
    assumption,
    require_decision,
    require_filters,
    stated,
    states_no_filter,
    with_hyper_parameters,
)
from aliasfree_jax.conversion.weight_files import read_entry, read_state_dict
from aliasfree_jax.errors import CheckpointError, ConversionError
from aliasfree_jax.files import HUB, PACKAGED, elsewhere, local_path, packaged

Loaded = tuple[ModelCard, nn.Module, Any]
Original = tuple[str, str, Options]
_OWN = ("card", "checkpoints")  # directories of a run or a saved network
# Sources with networks of equal names and tensors.
_ALIKE = ({PLAIN.source, BLURPOOL.source}, {PLAIN.source, TIMM.source})


def list_pretrained() -> list[str]:
    """Lists the names of the weights in this package, which `load_pretrained` accepts.

    Source: this package. Each network's README.md in `aliasfree_jax/weights` has its training and results.
    """
    return packaged()


def load_pretrained(
    reference: str | Path,
    *,
    source: str | None = None,
    model: str | None = None,
    options: Mapping[str, Any] | None = None,
    key: str | None = None,
    image_size: int | None = None,
    tell: Callable[[str], None] | None = None,
) -> Loaded:
    """Loads a network with its weights.

    `module.apply(variables, images)` computes the outputs of images `[N, H, W, C]`, prepared as the card
    states.

    Args:
      reference: One of these:

        - a run of this package, its `best`, one of its steps, or a converted or published directory;
        - a directory that timm or transformers saved, with `config.json` beside the weights; or any directory
          with `model.safetensors`, `pytorch_model.bin` or a single file of weights;
        - a file of weights: `.safetensors`, or a file of `torch.save`. It holds a state dict or a training
          checkpoint of timm, torchvision, transformers or an original of this package's networks. Nothing in
          it is executed. A `config.json` beside it that names a network is read too;
        - `hf://owner/name[@revision][/file]`: a file on the Hugging Face hub
          (`pip install 'aliasfree_jax[hub]'`);
        - `resnet20_cifar_aps`: weights of this package, by a name of `list_pretrained`;
        - `antialiased-cnns/resnet50_lpf4_finetune`: a file that BlurPool's authors published, by its name.
      source: The code base of a file, as in `from_original`. Default: recognised.
      model: The network in a file, as in `from_original`. Default: recognised.
      options: Options of that network, as in `from_original`. Default: recognised.
      key: The entry of a training checkpoint to load. Default: the averaged weights if there are any, else
        the network's.
      image_size: Side of the images to evaluate, pixels. Default: what `config.json` or
        `preprocessor_config.json` states, else 224, and 32 for CIFAR-10.
      tell: Called with each assumption, and with what was not loaded. Default: a warning.

    Returns:
      `(card, module, variables)`: a `ModelCard`, a Flax module, and its variables.

    Raises:
      UndecidedError: The file fits several networks. Pass `source`, `model` or `options` to decide.
      ConversionError: The file cannot be read or recognised, the weights do not fit, or a download failed.
      CheckpointError: As `load_model`, for a directory of this package; or nothing has this name.
    """
    notes: list[str] = []
    path = _on_disk(reference, notes.append)
    given: dict[str, Any] = {"source": source, "model": model, "options": options, "key": key}
    given["image_size"] = image_size
    directory = path.parent if path.is_file() else path
    if path.is_file() and not (path.name == STANDARD[0] and is_published(directory)):
        name = str(reference) if elsewhere(reference) else path.name
        loaded = _from_file(path, name, notes=notes, **given)
    elif named := [name for name, value in given.items() if value is not None]:
        raise ConversionError(
            f"{reference} states its network, so {', '.join(named)} cannot be given. Leave it out."
        )
    else:
        loaded = read_published(directory) if is_published(directory) else load_model(directory)
    for note in notes:
        warnings.warn(note, stacklevel=2) if tell is None else tell(note)
    return loaded


def load_for_command(reference: str, flag: str) -> Loaded:
    """Calls `load_pretrained` for a command, and prints assumptions as notes.

    Args:
      reference: As in `load_pretrained`.
      flag: The command's flag with the reference, for messages.

    Returns:
      `(card, module, variables)`, as `load_pretrained`.

    Raises:
      ConversionError: As `load_pretrained`. If the file fits several networks, the message has the command
        that converts it.
      CheckpointError: As `load_pretrained`.
    """
    try:
        return load_pretrained(reference, tell=lambda note: print(f"note           {note}"))
    except UndecidedError as error:
        raise error.for_command(reference, flag) from error


def is_checkpoint(reference: str) -> bool:
    """Whether a reference is a directory of `save_model` or of a run.

    Args:
      reference: As in `load_pretrained`.

    Returns:
      False for files, hub references, published directories and directories with files of weights.
    """
    path = Path(reference)
    return not elsewhere(reference) and path.is_dir() and not is_published(path) and _weights_in(path) is None


def _on_disk(reference: str | Path, tell: Callable[[str], None]) -> Path:
    """The path of the file or directory that `reference` names, after a download if needed."""
    text = str(reference)
    if elsewhere(text):
        if text in packaged():
            return PACKAGED / text
        return (fetch if text.startswith(HUB) else fetch_published)(text, tell)
    path = local_path(reference)
    if path.is_dir() and not is_published(path):
        return _weights_in(path) or path
    if re.fullmatch(r"\w+", text) and not path.exists():
        raise CheckpointError(
            f"no checkpoint at {text}: there is no such file or directory. Weights in this package: "
            f"{', '.join(packaged())}."
        )
    return path


def _weights_in(directory: Path) -> Path | None:
    """The file of weights in a directory. None if this package may have written the directory.

    Raises:
      ConversionError: It has several files of weights, or only their description.
    """
    if directory.name == "checkpoints" or any((directory / own).is_dir() for own in _OWN):
        return None
    names = [path.name for path in directory.iterdir() if path.is_file()]
    if not any(map(is_weights, names)) and read_library_config(directory / STANDARD[0]) is None:
        return None
    return directory / chosen(
        directory, "", names, "Expected one of the first two, or name the file of weights."
    )


def _from_file(
    path: Path,
    name: str,
    *,
    source: str | None,
    model: str | None,
    options: Options | None,
    key: str | None,
    image_size: int | None,
    notes: list[str],
) -> Loaded:
    stored = read_state_dict(path, key=key, tell=notes.append)
    state_dict, masks = normalised(stored), any(entry.endswith(".filt.rect") for entry in stored)
    config = read_library_config(path)
    original = _named(path, state_dict, config, source, model, options or {})
    prepared: Options = {}
    if config is not None and original[0] == config.source:
        prepared = {**config.prepared, "class_names": config.class_names}
        notes += [f"{path.parent}: {note}." for note in config.notes]
    elif source is None or original[0] != PLAIN.source:
        original = _decided(path, original, state_dict, options or {}, masks)
        if source is None and (assumed := assumption(original, masks)):
            notes.append(f"{path}: {assumed}.")
    if not prepared and original[0] in (TIMM.source, TRANSFORMERS.source):
        notes.append(
            f"{path}: no {CONFIG} beside it states how images are prepared, so torchvision's preparation is "
            "used: 224 pixels of 256, bilinear, ImageNet's mean and standard deviation."
        )
    return converted(*original, state_dict, name, prepared, image_size)


def _named(
    path: Path,
    state_dict: Mapping[str, np.ndarray],
    config: LibraryConfig | None,
    source: str | None,
    model: str | None,
    options: Options,
) -> Original:
    """Source, model and options: as given, else from config.json, else recognised."""
    if model is not None:
        return source or (config.source if config else AFC.source), model, options
    if config is not None and source in (None, config.source):
        return config.source, config.model, {**config.options, **options}
    found, model, recognised = recognise(state_dict)
    if source not in (None, found) and {source, found} not in _ALIKE:
        raise ConversionError(f"{path} holds a {model} of {found}, not a network of {source!r}.")
    if found == LPS.source:
        recognised = with_hyper_parameters(recognised, read_entry(path, "hyper_parameters"))
    open_fields = {name: value for name, value in UNTRACED.get(model, {}).items() if name not in options}
    if open_fields:
        raise UndecidedError(
            f"{path} is a {model} of {found}, but the {CONFIG} that {found} saves is missing. "
            f"{' and '.join(open_fields)} cannot be recognised from the weights.",
            {"source": found, "options": open_fields},
        )
    return source or found, model, {**recognised, **options}


def _decided(
    path: Path,
    original: Original,
    state_dict: Mapping[str, np.ndarray],
    given: Options,
    masks: bool,
) -> Original:
    """`original` with the filters that `given`, the weights or the file's other entries state."""
    source, model, options = original
    base = code_base(source)
    if base.filters in given or base.no_filters in given:
        return original
    try:
        require_filters(original, state_dict)
        require_decision(original, state_dict, masks)
    except UndecidedError as error:
        said = stated(source, read_entry(path, "arch"), read_entry(path, "args"))
        if not said and not (source == LPS.source and states_no_filter(read_entry(path, "hyper_parameters"))):
            raise UndecidedError(f"{path}: {error.reason}", error.arguments) from None
        return source, model, {**options, **said}
    return original

"""From an original network's weights, or the file that holds them, to a module and its variables."""

import os
import warnings
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np

from aliasfree_jax.checkpoint import ModelCard, abstract_variables, load_model
from aliasfree_jax.conversion.code_bases import AFC, BLURPOOL, LPS, PLAIN, code_base, table
from aliasfree_jax.conversion.entries import Options, convert, export
from aliasfree_jax.conversion.learnable_polyphase_sampling import temperature
from aliasfree_jax.conversion.recognition import normalised, recognise
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
from aliasfree_jax.data.class_names import placeholders
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.models import create_model

# Where the number of classes is read off.
_HEADS = ("head", "fc", "core.fc", "classifier.6", "classifier.1", "classifier.0", "classifier")


# How the originals prepare images for evaluation, as a `ModelCard` has it.
_CONVNEXT: Options = {
    "image_size": 224,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "eval_crop_ratio": 224 / 256,
    "interpolation": "bicubic",
}
_IMAGENET = {**_CONVNEXT, "interpolation": "bilinear"}  # torchvision's Resize
_CIFAR: Options = {
    "image_size": 32,
    "mean": (0.49141738, 0.48219556, 0.44662726),
    "std": (0.24703224, 0.24348514, 0.26158786),
    "eval_crop_ratio": 1.0,
    "interpolation": "bicubic",
}

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def from_original(
    source: str, model: str, options: Mapping[str, Any], state_dict: Mapping[str, np.ndarray]
) -> tuple[nn.Module, Any]:
    """Network and variables that compute what an original network computes.

    Args:
      source: the original code base: "alias_free_convnets", "antialiased-cnns", "torchvision",
        "truly_shift_invariant_cnns", the same with "/cifar10", or "learnable_polyphase_sampling".
      model: its network, e.g. "convnext_afc", "resnet50", "resnet18_aps", "ResNet18Custom".
      options: arguments of the original's constructor or command line; the number of classes is read
        off the weights.
      state_dict: its parameters and buffers as arrays in PyTorch's layout. Filter buffers may be missing
        if the options state their size.

    Returns:
      (module, variables): `module.apply(variables, images)` with NHWC images.

    Raises:
      ConversionError: unknown source, network or option; weights that do not fit; or blur filters that are
        missing, of which the options do not state the size.
    """
    _, module, variables = _converted(source, model, options, normalised(state_dict), "arrays", None)
    return module, variables


def load_pth(
    path: str | os.PathLike,
    *,
    source: str | None = None,
    model: str | None = None,
    options: Mapping[str, Any] | None = None,
    key: str | None = None,
    image_size: int | None = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[ModelCard, nn.Module, Any]:
    """Card, network and variables of a `.pth` file that one of the original programs wrote.

    Args:
      path: raw state dict or training checkpoint; read without executing anything in it.
      source, model, options: as in `from_original`; by default recognised from the weights
        (`recognition.recognise`) and, in checkpoints of LPS, the hyper-parameters beside them.
      key: which entry of a training checkpoint to take; by default the averaged weights if there are any.
      image_size: that the weights are to be evaluated at, pixels; by default 224, and 32 for CIFAR-10.
      tell: is called with what was assumed and what was left aside, if anything was; by default it warns.

    Raises:
      UndecidedError: the file could hold several networks; `source`, `model` or `options` decide.
      ConversionError: not a readable PyTorch file, not recognised, or weights that do not fit.
    """
    notes: list[str] = []
    stored = read_state_dict(path, key=key, tell=notes.append)
    state_dict, masks = normalised(stored), any(name.endswith(".filt.rect") for name in stored)
    original = _named(path, state_dict, source, model, options or {})
    if source is None or original[0] != PLAIN.source:
        original = _decided(path, original, state_dict, options or {}, masks)
        if source is None and (assumed := assumption(original, masks)):
            notes.append(f"{path}: {assumed}.")
    converted = _converted(*original, state_dict, Path(path).name, image_size)
    for note in notes:
        (tell or _warn)(note)
    return converted


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=3)


def _named(
    path: str | os.PathLike,
    state_dict: Mapping[str, np.ndarray],
    source: str | None,
    model: str | None,
    options: Options,
) -> tuple[str, str, Options]:
    """Source, model and options: those given, completed by what is recognised."""
    if model is not None:
        return source or AFC.source, model, options
    found, model, recognised = recognise(state_dict)
    if source not in (None, found) and {source, found} != {PLAIN.source, BLURPOOL.source}:
        raise ConversionError(f"{path} holds a {model} of {found}, not a network of {source!r}.")
    if found == LPS.source:
        recognised = with_hyper_parameters(recognised, read_entry(path, "hyper_parameters"))
    return source or found, model, {**recognised, **options}


def _decided(
    path: str | os.PathLike,
    original: tuple[str, str, Options],
    state_dict: Mapping[str, np.ndarray],
    given: Options,
    masks: bool,
) -> tuple[str, str, Options]:
    """`original` with the filters that `given`, the weights or what lies beside them state."""
    source, model, options = original
    if code_base(source).filters in given:
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


def load_weights(path: Path, flag: str) -> tuple[ModelCard, nn.Module, Any]:
    """Card, network and variables for a command that takes a file or a checkpoint's directory with `flag`.

    Raises:
      ConversionError: as `load_pth`; where the file leaves its network open, it says how to convert it.
      CheckpointError: as `load_model`.
    """
    if not path.is_file():
        return load_model(path)
    try:
        return load_pth(path, tell=lambda note: print(f"note           {note}"))
    except UndecidedError as error:
        raise error.for_command(path, flag) from error


def to_original(source: str, model: str, options: Options, variables: Any) -> dict[str, np.ndarray]:
    """The original's state dict, buffers included, of a network that `from_original` gives.

    The way back: `torch.save({name: torch.from_numpy(array) for name, array in result.items()}, path)`
    writes a file that the original program loads strictly.

    Args:
      source, model, options: as in `from_original`.
      variables: of the network they name.

    Raises:
      ConversionError: unknown source, network or option; other variables.
    """
    return export(variables, table(source, model, options))


def _classes(state_dict: Mapping[str, np.ndarray]) -> dict[str, int]:
    head = next((f"{head}.bias" for head in _HEADS if f"{head}.bias" in state_dict), None)
    return {} if head is None else {"num_classes": len(state_dict[head])}


def class_names(cifar: bool, count: int) -> tuple[str, ...]:
    """The classes of CIFAR-10 or else of ImageNet; placeholders for another number of them."""
    wnids = resources.files("aliasfree_jax.conversion") / "imagenet_wnids.txt"
    names = CIFAR10 if cifar else tuple(wnids.read_text().split())
    return names if len(names) == count else placeholders(count)


def _converted(
    source: str,
    model: str,
    options: Mapping[str, Any],
    state_dict: Mapping[str, np.ndarray],
    file: str,
    side: int | None,
) -> tuple[ModelCard, nn.Module, Any]:
    base, channels = code_base(source), options.get("in_chans", 3)
    options = {**_classes(state_dict), **options}
    if base is LPS and (options.get("LPS_convex") or options.get("LPS_gumbel")):
        options = {**temperature(state_dict), **options}
    name, ours = base.translate(model, options)
    module: Any = create_model(name, **ours)
    cifar = base is not AFC and ("_cifar" in name or name == "basic")
    prepared = _CONVNEXT if base is AFC else _CIFAR if cifar else _IMAGENET
    side = side or prepared["image_size"]
    shapes = abstract_variables(module, side, channels)
    if base.filters not in options:
        require_filters((source, model, options), state_dict)
    variables = convert(state_dict, base.entries(module, model, options), shapes)
    card = ModelCard(
        model=name,
        options=ours,
        class_names=class_names(cifar, module.num_classes),
        channels=channels,
        step=0,
        origin=f"{file}: {source} {model}",
        **{**prepared, "image_size": side},
    )
    return card, module, variables

"""From an original network's weights, or the file that holds them, to a module and its variables."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flax.linen as nn
import numpy as np

from aliasfree_jax.checkpoint import ModelCard
from aliasfree_jax.conversion import alias_free_convnets
from aliasfree_jax.conversion.recognition import recognise
from aliasfree_jax.conversion.rules import convert, target_shapes
from aliasfree_jax.conversion.torch_file import read_state_dict
from aliasfree_jax.errors import ConversionError, unknown
from aliasfree_jax.models import create_model

_SOURCES = {alias_free_convnets.SOURCE: alias_free_convnets}

# How the originals prepare ImageNet for evaluation.
_MEAN, _STD, _CROP_RATIO = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 224 / 256


def from_original(
    source: str, model: str, options: Mapping[str, Any], state_dict: Mapping[str, np.ndarray]
) -> tuple[nn.Module, Any]:
    """Network and variables that compute what an original network computes.

    Args:
      source: name of the original code base: "alias_free_convnets".
      model: its network, e.g. "convnext_afc".
      options: arguments of the original's constructor.
      state_dict: its parameters and buffers as arrays in PyTorch's layout; missing filter buffers
        are fine.

    Returns:
      (module, variables): `module.apply(variables, images)` with NHWC images.

    Raises:
      ConversionError: unknown source, network or option; or weights that do not fit.
    """
    _, module, variables = _converted(source, model, options, state_dict, "arrays", 224)
    return module, variables


def load_pth(
    path: str | os.PathLike,
    *,
    source: str | None = None,
    model: str | None = None,
    options: Mapping[str, Any] | None = None,
    key: str | None = None,
    image_size: int = 224,
) -> tuple[ModelCard, nn.Module, Any]:
    """Card, network and variables of a `.pth` file that one of the original programs wrote.

    Args:
      path: raw state dict or training checkpoint; read without executing anything in it.
      source, model, options: as in `from_original`; by default recognised from the file
        (`recognition.recognise`).
      key: which entry of a training checkpoint to take; by default the averaged weights
        ("model_ema") if there are any.
      image_size: that the weights are to be evaluated at, pixels.

    Raises:
      ConversionError: not a readable PyTorch file, not recognised, or weights that do not fit.
    """
    state_dict = read_state_dict(path, key=key)
    if model is None:
        found, model, recognised = recognise(state_dict)
        if source not in (None, found):
            raise ConversionError(f"{path} holds a {model} of {found}, not a network of {source!r}.")
        source, options = found, {**recognised, **(options or {})}
    source = source or alias_free_convnets.SOURCE
    return _converted(source, model, options or {}, state_dict, Path(path).name, image_size)


def _converted(
    source: str,
    model: str,
    options: Mapping[str, Any],
    state_dict: Mapping[str, np.ndarray],
    file: str,
    side: int,
) -> tuple[ModelCard, nn.Module, Any]:
    if source not in _SOURCES:
        raise ConversionError(unknown("source", source, _SOURCES))
    family, channels = _SOURCES[source], options.get("in_chans", 3)
    name, ours = family.translate(model, options)
    module = create_model(name, **ours)
    variables = convert(state_dict, family.rules(options), target_shapes(module, side, channels))
    classes = variables["params"]["head"]["bias"].shape[0]
    card = ModelCard(
        model=name,
        options=ours,
        class_names=tuple(map(str, range(classes))),
        image_size=side,
        channels=channels,
        mean=_MEAN,
        std=_STD,
        eval_crop_ratio=_CROP_RATIO,
        step=0,
        origin=f"{file}: {source} {model}",
    )
    return card, module, variables

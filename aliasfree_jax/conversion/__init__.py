"""Published PyTorch weights to this package's networks, without PyTorch."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from aliasfree_jax.conversion import alias_free_convnets
from aliasfree_jax.conversion.rules import convert, target_shapes
from aliasfree_jax.errors import ConversionError, unknown
from aliasfree_jax.models import create_model

_SOURCES = {alias_free_convnets.SOURCE: alias_free_convnets}


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
    if source not in _SOURCES:
        raise ConversionError(unknown("source", source, _SOURCES))
    family = _SOURCES[source]
    name, ours = family.translate(model, options)
    module = create_model(name, **ours)
    shapes = target_shapes(module, family.IMAGE_SIZE, options.get("in_chans", 3))
    return module, convert(state_dict, family.rules(options), shapes)

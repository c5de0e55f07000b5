"""All networks by name."""

import fnmatch
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.models.variants import FAMILIES, SIZES, build_convnext

_MODELS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    f"{family}_{size}": functools.partial(build_convnext, family, size)
    for family in FAMILIES
    for size in SIZES
}


def list_models(pattern: str = "*") -> list[str]:
    """Names of the networks that match a shell pattern, such as "convnext_afc_*", sorted."""
    return sorted(fnmatch.filter(_MODELS, pattern))


def create_model(name: str, **options: Any) -> nn.Module:
    """Builds a network.

    Args:
      name: one of `list_models()`.
      **options: overrides, all JSON-able; for ConvNeXts see `models.variants.OPTIONS`. The usual ones:
        num_classes, drop_path_rate, any_size, precision ("bfloat16"), remat, depths, widths, and the
        parts sampler, activation, norm, padding.

    Returns:
      A Linen module: `variables = module.init(key, images)`, then
      `logits = module.apply(variables, images, train=False)`, with float images [N, H, W, C].

    Raises:
      ConfigError: unknown name, option or part; the message shows the near ones.
    """
    if name not in _MODELS:
        raise ConfigError(unknown("model", name, _MODELS))
    return _MODELS[name](options)

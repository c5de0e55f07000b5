"""All networks by name."""

import fnmatch
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn

from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.models import classic_variants, resnet_variants, variants

_MODELS: dict[str, Callable[[dict[str, Any]], nn.Module]] = {
    f"{family}_{size}": functools.partial(variants.build_convnext, family, size)
    for family in variants.FAMILIES
    for size in variants.SIZES
}
for _build, _families, _sizes in (
    (resnet_variants.build_resnet, resnet_variants.FAMILIES, resnet_variants.SIZES),
    (resnet_variants.build_resnet, resnet_variants.FAMILIES, resnet_variants.CIFAR_SIZES),
    (classic_variants.build_classic, classic_variants.FAMILIES, classic_variants.NETWORKS),
):
    for _family in _families:
        for _size in _sizes:
            _MODELS[f"{_size}_{_family}".rstrip("_")] = functools.partial(_build, _family, _size)


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

"""All networks by name."""

import fnmatch
from typing import Any

import flax.linen as nn

from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.models import alexnet_vgg, convnext, deeplab, densenet, mobilenet, resnet, unet, xcit

FAMILIES = (
    *(convnext.CONVNEXTS, resnet.RESNETS, resnet.CIFAR_RESNETS, densenet.DENSENETS, mobilenet.MOBILENETS),
    *(alexnet_vgg.ALEXNETS, alexnet_vgg.VGGS, alexnet_vgg.BASICS, unet.UNETS),
    *(*deeplab.DEEPLABS, *xcit.XCITS),
)
_MODELS = {name: (family, *which) for family in FAMILIES for name, which in family.names()}


def list_models(pattern: str = "*") -> list[str]:
    """Returns the sorted names of the networks that match a shell pattern.

    Args:
      pattern: shell pattern, such as `"convnext_afc_*"`.

    Source: this package.
    """
    return sorted(fnmatch.filter(_MODELS, pattern))


def create_model(name: str, **options: Any) -> nn.Module:
    """Builds a network by name.

    `aliasfree_jax.create_model` also warns if a network with an exact sampler is not shift-invariant as a
    whole.

    Args:
      name: one of `list_models()`.
      options: JSON-compatible options: fields of the network's class, with parts by name (`register_part`
        lists the kinds), and the aliases of its family. The usual ones are `num_classes`, `global_pool`,
        `drop_path_rate`, `any_size`, dtype ("bfloat16"), remat, depths, widths, and the parts sampler,
        activation, norm and padding. Padding words may have any case.

    Returns:
      A Linen module. Use `variables = module.init(key, images)` and `logits = module.apply(variables,
        images, train=False)` with float images `[N, H, W, C]`.

    Raises:
      ConfigError: unknown name, option or part; the message lists similar ones.

    Source: this package.
    """
    if name not in _MODELS:
        raise ConfigError(unknown("model", name, _MODELS))
    family, size, variant = _MODELS[name]
    return family.build(size, variant, options)

"""AlexNet, VGG, DenseNet and MobileNet-v2 by name: torchvision's (plain) and BlurPool's (`_blur`).

And the small `basic`, which learnable_polyphase_sampling has for its tests.
"""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from aliasfree_jax.models.basic import BasicClassifier
from aliasfree_jax.models.building import build, check_options
from aliasfree_jax.models.densenet import DenseNet
from aliasfree_jax.models.feedforward import VGG, AlexNet
from aliasfree_jax.models.mobilenet import MobileNetV2

Options = Mapping[str, Any]

_VGG = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}

NETWORKS: dict[str, tuple[type[nn.Module], Options]] = {
    "alexnet": (AlexNet, {}),
    **{name: (VGG, {"depths": depths}) for name, depths in _VGG.items()},
    **{f"{name}_bn": (VGG, {"depths": depths, "norm": "batch"}) for name, depths in _VGG.items()},
    "densenet121": (DenseNet, {"depths": (6, 12, 24, 16)}),
    "densenet169": (DenseNet, {"depths": (6, 12, 32, 32)}),
    "densenet201": (DenseNet, {"depths": (6, 12, 48, 32)}),
    "densenet161": (DenseNet, {"depths": (6, 12, 36, 24), "growth": 48, "width": 96}),
    "mobilenet_v2": (MobileNetV2, {}),
    "basic": (BasicClassifier, {}),
}

# What the plain and the anti-aliased network change, besides the sampler.
_PLAIN: dict[type[nn.Module], Options] = {DenseNet: {"average": True}}
_BLUR: dict[type[nn.Module], Options] = {MobileNetV2: {"dropout_rate": 0.0}}
FAMILIES = ("", "blur")


def build_classic(family: str, size: str, options: Options) -> nn.Module:
    """The network `size`, plain or with BlurPool, with overrides.

    Options: `building.options_of`, and pool_only for AlexNet and DenseNets, another word for `strided`.

    Raises:
      ConfigError: an unknown option, part or value.
    """
    module, base = NETWORKS[size]
    strides = "strided" in module.__dataclass_fields__
    check_options(f"{size}_{family}".rstrip("_"), module, options, ("pool_only",) if strides else ())
    if family == "blur":
        base = {
            **base,
            "sampler": {"name": "blur", "kernel_size": 4, "padding": "REFLECT"},
            **_BLUR.get(module, {}),
        }
    else:
        base = {**base, **_PLAIN.get(module, {})}
    merged = {**base, **options}
    if "pool_only" in merged:
        merged["strided"] = merged.pop("pool_only")
    return build(module, merged)

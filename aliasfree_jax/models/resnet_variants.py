"""The ResNet family by name: sizes, and the parts that make each variant.

`resnet50` is torchvision's, `resnet50_blur` BlurPool's, `resnet18_aps`, `resnet18_lps`, `resnet18_afc`,
... the others; a `_cifar` after the size stands for the small stem (`resnet18_cifar_aps`).
"""

from collections.abc import Mapping
from typing import Any

from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.models.building import build, check_options, options_of
from aliasfree_jax.models.resnet import EXPANSION, ResNet

Options = Mapping[str, Any]

SIZES: dict[str, Options] = {
    "resnet18": {"block": "basic", "depths": (2, 2, 2, 2)},
    "resnet34": {"block": "basic", "depths": (3, 4, 6, 3)},
    "resnet50": {"block": "bottleneck", "depths": (3, 4, 6, 3)},
    "resnet101": {"block": "bottleneck", "depths": (3, 4, 23, 3)},
    "resnet152": {"block": "bottleneck", "depths": (3, 8, 36, 3)},
    "resnext50_32x4d": {"block": "bottleneck", "depths": (3, 4, 6, 3), "groups": 32, "group_width": 4},
    "resnext101_32x8d": {"block": "bottleneck", "depths": (3, 4, 23, 3), "groups": 32, "group_width": 8},
    "wide_resnet50_2": {"block": "bottleneck", "depths": (3, 4, 6, 3), "group_width": 128},
    "wide_resnet101_2": {"block": "bottleneck", "depths": (3, 4, 23, 3), "group_width": 128},
}
CIFAR_SIZES: dict[str, Options] = {
    "resnet20_cifar": {"block": "basic", "depths": (3, 3, 3), "widths": (16, 32, 64)},
    "resnet56_cifar": {"block": "basic", "depths": (9, 9, 9), "widths": (16, 32, 64)},
    **{f"{name}_cifar": SIZES[name] for name in ("resnet18", "resnet34", "resnet50", "resnet101")},
}

_CIRCULAR = {"padding": "CIRCULAR"}
_CIRCULAR_STEM = {"name": "image", "pool_padding": "CIRCULAR"}
# Maximum pooling aliases: an alias-free stem leaves it out. Its first sampling by 2 allows a quadratic
# with one low-passed factor (`layers.activation.LowpassPolynomial`) at full resolution.
_AFC_STEM = {"name": "image", "pool_size": 1}
_AFC_STEM_ACTIVATION = {"name": "lowpass_polynomial", "cutoff": 0.5}

# Parts of each family, and its ImageNet stem.
FAMILIES: dict[str, Options] = {
    # torchvision's.
    "": {"stem": {"name": "image", "strided": True, "pool_size": 3, "pool_padding": 1}},
    # antialiased-cnns: reflecting blurs in a zero-padded network; only pools are sampled in the stem.
    "blur": {
        "sampler": {"name": "blur", "kernel_size": 4, "padding": "REFLECT"},
        "stem": {"name": "image", "strided": True},
    },
    # truly_shift_invariant_cnns: the circular baseline, BlurPool on the circle and APS.
    "circular": {**_CIRCULAR, "stem": _CIRCULAR_STEM},
    "circular_blur": {**_CIRCULAR, "sampler": {"name": "blur", "kernel_size": 3}, "stem": _CIRCULAR_STEM},
    "aps": {**_CIRCULAR, "sampler": "polyphase", "stem": _CIRCULAR_STEM},
    # learnable_polyphase_sampling.
    "lps": {**_CIRCULAR, "sampler": "learned_polyphase", "stem": _CIRCULAR_STEM},
    # Ours: ideal sampling, polynomial activations within the blocks, exact for every circular shift.
    "afc": {
        **_CIRCULAR,
        "sampler": "ideal",
        "activation": "up_polynomial",
        "sum_activation": "identity",
        "stem": _AFC_STEM,
        "stem_activation": _AFC_STEM_ACTIVATION,
        "precision": "highest",
    },
}

OPTIONS = options_of(ResNet) | {"pool_only"}
"""Every option of `create_model` for a ResNet: `building.options_of`, and pool_only (ImageNet form:
whether the stem's convolution is strided, so that only pools are sampled)."""


def _check(options: Options) -> None:
    for field, legal in (("block", EXPANSION), ("sampler_position", ("before", "after"))):
        if field in options and options[field] not in legal:
            raise ConfigError(unknown(field, options[field], legal))


def build_resnet(family: str, size: str, options: Options) -> ResNet:
    """The ResNet of a family and size, with overrides.

    Raises:
      ConfigError: an unknown option, part or value.
    """
    check_options(f"{size}_{family}".rstrip("_"), ResNet, options, ("pool_only",))
    small = size in CIFAR_SIZES
    base = {**FAMILIES[family], **(CIFAR_SIZES if small else SIZES)[size]}
    if small:
        stem = {"name": "small", "without_nyquist": True} if family == "afc" else "small"
        base |= {"stem": stem, "stem_activation": None}  # it does not sample: same activation as elsewhere
    merged = {**base, **options}
    if "pool_only" in merged:
        if small:
            raise ConfigError("pool_only is for ImageNet stems: the small stem samples nothing.")
        merged["stem"] = {**merged["stem"], "strided": merged.pop("pool_only")}
    _check(merged)
    network = build(ResNet, merged)
    if network.zero_init_residual and not hasattr(network.norm(parent=None), "scale_init"):
        raise ConfigError(
            "zero_init_residual starts the scale of a norm at 0, but the norm of this network has none "
            f"({merged.get('norm')!r}): choose another norm, or leave zero_init_residual out."
        )
    return network

"""The ConvNeXt family: sizes, and the parts that make each of its five variants."""

from collections.abc import Mapping
from typing import Any, get_args

from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.layers.activation import arity
from aliasfree_jax.layers.batching import Remat
from aliasfree_jax.layers.mlp import MlpGrid
from aliasfree_jax.models.building import build, check_options, options_of
from aliasfree_jax.models.convnext import Blending, ConvNeXt
from aliasfree_jax.models.parts import GATED_ACTIVATIONS, Part
from aliasfree_jax.ops.padding import check_padding

Options = Mapping[str, Any]

# Depths and widths of the papers; micro and cifar are ours, for images of about 32 pixels.
SIZES: dict[str, Options] = {
    "tiny": {"depths": (3, 3, 9, 3), "widths": (96, 192, 384, 768)},
    "small": {"depths": (3, 3, 27, 3), "widths": (96, 192, 384, 768)},
    "base": {"depths": (3, 3, 27, 3), "widths": (128, 256, 512, 1024)},
    "large": {"depths": (3, 3, 27, 3), "widths": (192, 384, 768, 1536)},
    "xlarge": {"depths": (3, 3, 27, 3), "widths": (256, 512, 1024, 2048)},
    "micro": {"depths": (2, 2), "widths": (32, 64), "stem_stride": 4, "layer_scale_init": 0.1},
    "cifar": {"depths": (2, 2, 2), "widths": (48, 96, 192), "stem_stride": 2, "layer_scale_init": 0.1},
}

# Scales of the paper's training commands.
_SCALES = {"in_scale": 7.0, "out_scale": 7.0, "train_scale": True}

_ALIAS_FREE = {
    **{"padding": "CIRCULAR", "sampled_padding": "CIRCULAR", "sampler": "ideal", "norm": "spatial"},
    "precision": "highest",
}

FAMILIES: dict[str, Options] = {
    # The network of Liu et al.
    "convnext": {},
    # Its twin on the circle, the baseline of Michaeli et al.; aliases.
    "convnext_circular": {"padding": "CIRCULAR", "sampled_padding": "CIRCULAR"},
    # Adaptive polyphase sampling: exact for integer shifts.
    "convnext_aps": {"padding": "CIRCULAR", "sampled_padding": "CIRCULAR", "sampler": "polyphase"},
    # Alias-free: exact for every shift.
    "convnext_afc": {
        **_ALIAS_FREE,
        "activation": {"name": "up_polynomial", **_SCALES},
        "stem_activation": {"name": "lowpass_polynomial", **_SCALES},
        "stem_residual": True,
    },
    # Alias-free by products instead of quadratics: exact for every shift. Ours.
    "convnext_afg": {
        **_ALIAS_FREE,
        "activation": {"name": "up_gate", **_SCALES},
        "stem_activation": {"name": "lowpass_gate", **_SCALES},
    },
}

# What a family decides; the other options are the same for a network and the one that it blends from.
_OF_THE_FAMILY = {
    *("padding", "sampled_padding", "sampler", "any_size", "filter_size"),
    *("activation", "norm", "stem_activation", "stem_residual"),
}

OPTIONS = options_of(ConvNeXt)
"""Every option of `create_model` for a ConvNeXt (`building.options_of`)."""


def _stem_activation(part: Part, stride: int) -> Part:
    """A low-passed product without a stated cutoff gets the one that suits the stem's stride."""
    fields = {"name": part} if isinstance(part, str) else part
    if isinstance(fields, Mapping) and fields.get("name") in ("lowpass_polynomial", "lowpass_gate"):
        if stride == 1 and "cutoff" not in fields:
            raise ConfigError(
                f"{fields['name']} relies on the filter of a strided stem; with stem_stride=1 use "
                "stem_activation=None."
            )
        return {"cutoff": 1 - 1 / stride, **fields}
    return part


def _check_names(options: Options) -> None:
    if options.get("sampled_padding", "VALID") != "VALID":
        check_padding(options["sampled_padding"])
    for name, legal in (("mlp_grid", get_args(MlpGrid)), ("remat", get_args(Remat))):
        if options.get(name, "auto") not in legal:
            raise ConfigError(unknown(name, options[name], legal))


def _blending(size: str | None, given: Any, options: Options) -> Blending:
    """Of the option `blend` = {"start": a family, "share": 0 to 1}, and the network's other options."""
    fields = dict(given) if isinstance(given, Mapping) else {}
    start, share = fields.get("start"), fields.get("share")
    if len(fields) != 2 or not isinstance(share, int | float) or not 0 <= share <= 1:
        raise ConfigError(f'expected blend={{"start": FAMILY, "share": 0 to 1}}, got {given!r}.')
    if start not in FAMILIES:
        raise ConfigError(unknown("family of ConvNeXts to blend from", start, FAMILIES))
    common = {name: value for name, value in options.items() if name not in {*_OF_THE_FAMILY, "blend"}}
    return Blending(build_convnext(start, size, common), share)


def _check_blend(network: ConvNeXt) -> None:
    if network.blend and arity(network.activation) != arity(network.blend.start.activation):
        raise ConfigError(
            "a gated network's MLPs have other parameters than those of the network to blend from: blend "
            "into a convnext_afc, or train the gated network from scratch."
        )


def build_convnext(family: str, size: str | None, options: Options) -> ConvNeXt:
    """The ConvNeXt of a family and size (None: the options give depths and widths), with overrides.

    With the option blend={"start": "convnext", "share": 0.3}, the network that is 0.3 of the way from
    that family's network of the same size to this one; the overrides of parts are this one's.

    Raises:
      ConfigError: an unknown option, part or value.
    """
    check_options(family, ConvNeXt, options)
    merged = {**FAMILIES[family], **(SIZES[size] if size else {}), **options}
    if merged.get("stem_activation") is not None:
        merged["stem_activation"] = _stem_activation(merged["stem_activation"], merged.get("stem_stride", 4))
    _check_names(merged)
    if merged.get("mlp_ratio", 4.0) <= 0:
        raise ConfigError(f"mlp_ratio must be positive, got {merged['mlp_ratio']}.")
    given = merged.pop("blend", None)
    if given is not None:
        merged["blend"] = _blending(size, given, options)
    network: ConvNeXt = build(ConvNeXt, merged, GATED_ACTIVATIONS)
    _check_blend(network)
    return network

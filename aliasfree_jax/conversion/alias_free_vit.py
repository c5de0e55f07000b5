"""The networks of the Alias-Free ViT and of facebookresearch/xcit: options and state-dict keys.

"xcit" is the plain network of both code bases, "xcit_af" the alias-free one, and "xcit_aps" samples by
adaptive polyphase sampling. A size can follow: "xcit_af_nano_12_p16".
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from aliasfree_jax.conversion.description import KIND, look
from aliasfree_jax.conversion.entries import Candidates, CodeBase, Entry, Options, check_options, chosen
from aliasfree_jax.conversion.fields import Fields, Only
from aliasfree_jax.conversion.xcit_entries import (
    ARGUMENTS,
    ONLY,
    Names,
    arguments,
    described_sizes,
    published_size,
    sizes_of,
    xcit,
)
from aliasfree_jax.errors import ConversionError, unknown
from aliasfree_jax.models.xcit import XCiT
from aliasfree_jax.ops.activation import GELU_QUADRATIC

SOURCE = "alias_free_vit"

_FIELDS = Fields(
    translated={
        **ARGUMENTS,
        "tokens_norm": True,
        "use_pos": True,
        "features_type": "cls_attn",
    },
    without_effect={
        "img_size",
        "in_chans",
        "qk_scale",
        "drop_rate",
        "attn_drop_rate",
        "drop_path_rate",
        "cfg",
    },
    only={
        **ONLY,
        "features_type": Only(("cls_attn", "avgpool"), "no pooling"),
    },
)
# The published configuration.
_CFG: Options = {
    "conv_padding_mode": "circular",
    "pe_down_af": True,
    "pe_fuse_down": True,
    "pe_first_act": None,
    "pe_first_act_kwargs": {},
    "pe_last_act": True,
    "pe_act": "up_gelu",
    "pe_act_kwargs": {},
    "xca_norm_layer": "layer_af",
    "mlp_act": "up_gelu",
    "mlp_act_kwargs": {},
    "lpi_act": "up_gelu",
    "lpi_act_kwargs": {},
    "features_type": "cls_attn_af",
}
# The original's words, the names of our parts, and our layer classes.
_ACTIVATIONS = {
    "gelu": ("gelu", "Gelu"),
    "up_gelu": ("up_gelu", "UpGelu"),
    "poly": ("polynomial", "Polynomial"),
    "up_poly": ("up_polynomial", "UpPolynomial"),
    "lpf_poly": ("lowpass_polynomial", "LowpassPolynomial"),
}
_WORDS = {kind: theirs for theirs, (_, kind) in _ACTIVATIONS.items()}
# The modules whose weights tell an activation.
MODULES = {"mlp_act": "blocks.0.mlp.act", "lpi_act": "blocks.0.local_mp.act", "pe_act": "patch_embed.proj.1"}
SCALES = ("in_scale", "out_scale")
_PADDINGS = {"circular": "CIRCULAR", "zeros": "ZERO"}
_NORMS = {"layer": "channel", "layer_af": "position"}
_FEATURES = {"cls_attn": "class", "cls_attn_af": "cross_covariance", "avgpool": None}
_FAMILIES = ("xcit_af", "xcit_aps", "xcit")


def _family(model: str) -> tuple[str, dict[str, Any]]:
    """The family of a network, and the arguments of its size."""
    for family in _FAMILIES:
        if model == family:
            return family, {}
        size = sizes_of(re.sub("_avgpool$", "", model).removeprefix(f"{family}_"))
        if model.startswith(f"{family}_") and size is not None:
            return family, size | ({"features_type": "avgpool"} if model.endswith("_avgpool") else {})
    raise ConversionError(unknown(f"network of {SOURCE}", model, [f"{f}_nano_12_p16" for f in _FAMILIES]))


def named(family: str, sizes: Options) -> str:
    """The published network of a family with these sizes, else the family, whose options state them."""
    size = published_size(sizes)
    return f"{family}_{size}" if size else family


def _cfg(options: Options) -> dict[str, Any]:
    given = options.get("cfg", {})
    check_options(f"{SOURCE} cfg", given, _CFG)
    return {**_CFG, **given}


def _activation(name: str, kwargs: Options) -> dict[str, Any]:
    part: dict[str, Any] = {"name": chosen(f"activation of {SOURCE}", name, _ACTIVATIONS)[0]}
    if {kwargs.get("up", 2), kwargs.get("down", 2)} != {2}:
        raise ConversionError(
            f"activation {name} with {dict(kwargs)}: only up=2 and down=2 can be converted."
        )
    if name in ("gelu", "up_gelu"):
        return part
    if not kwargs.get("per_channel", True):
        raise ConversionError(f"activation {name} with per_channel=False has no counterpart in this package.")
    # A constant scale other than 1 is a buffer of the original: its value is read from the weights.
    part |= {"in_scale": kwargs.get("in_scale", 1.0), "out_scale": kwargs.get("out_scale", 1.0)}
    stored = {part["in_scale"], part["out_scale"]} != {1}
    part |= {"train_scale": kwargs.get("train_scale", True) or stored}
    part["initial"] = (*GELU_QUADRATIC, *[0.0] * (kwargs.get("degree", 2) - 2))
    if name == "lpf_poly":
        part["cutoff"] = kwargs.get("cutoff", 0.5)
    return part


def _stem(cfg: Options) -> dict[str, Any]:
    """The stem of the alias-free network."""
    usual, first = cfg["pe_act"], cfg["pe_first_act"]
    resampled = usual.startswith("up_")
    if cfg["pe_fuse_down"] and not (cfg["pe_down_af"] and resampled):
        raise ConversionError(
            f"a fused stem needs pe_down_af and an activation up_*, got {usual!r}: nothing would be sampled."
        )
    if first and (not cfg["pe_down_af"] or first.startswith("up_")):
        raise ConversionError(
            f"pe_first_act={first!r} samples twice. Only lpf_poly, poly or gelu with pe_down_af can be "
            "converted."
        )
    return {
        "patch_stem": "activated" if cfg["pe_down_af"] else "sampled",
        "sampler": "ideal" if cfg["pe_down_af"] else "subsample",
        "stem_activation": _activation(usual, cfg["pe_act_kwargs"]),
        "stem_first_activation": _activation(first, cfg["pe_first_act_kwargs"]) if first else None,
        "stem_last_activation": None if cfg["pe_last_act"] else "identity",
    }


def _alias_free(read: Options, cfg: Options) -> dict[str, Any]:
    if (
        cfg["features_type"] == "cls_attn_af"
        and cfg["xca_norm_layer"] == "layer_af"
        and not read["tokens_norm"]
    ):
        raise ConversionError(
            "with layer_af, cls_attn_af and tokens_norm=False the logits do not depend on the image."
        )
    return {
        **_stem(cfg),
        "padding": chosen(f"padding of {SOURCE}", cfg["conv_padding_mode"], _PADDINGS),
        "norm": chosen(f"norm of {SOURCE}", cfg["xca_norm_layer"], _NORMS),
        "activation": _activation(cfg["mlp_act"], cfg["mlp_act_kwargs"]),
        "local_activation": _activation(cfg["lpi_act"], cfg["lpi_act_kwargs"]),
        "class_attention": chosen(f"features_type of {SOURCE}", cfg["features_type"], _FEATURES),
    }


def _translate(model: str, options: Options) -> tuple[str, dict[str, Any]]:
    family, size = _family(model)
    if family != "xcit_af" and "cfg" in options:
        raise ConversionError(f"{model} of {SOURCE} has no option cfg: use xcit_af.")
    read = _FIELDS.read(f"{SOURCE} {model}", {**size, **options})
    ours_family = {"xcit": "xcit", "xcit_af": "xcit_aft", "xcit_aps": "xcit_aps"}[family]
    name, ours = arguments(ours_family, read)
    ours["positions"] = "fourier" if read["use_pos"] else None
    if family == "xcit_af":
        return name, {**ours, **_alias_free(read, _cfg(options))}
    return name, {**ours, "class_attention": _FEATURES[read["features_type"]]}


def _entries(network: XCiT, model: str, options: Options) -> Iterator[Entry]:
    family, _ = _family(model)
    stages = network.patch_size.bit_length() - 1
    cfg = _cfg(options)
    alias_free = family == "xcit_af"
    separate = (
        alias_free and cfg["pe_down_af"] and not cfg["pe_fuse_down"]
    )  # samplers are modules of their own
    step = 3 if separate or family == "xcit_aps" else 2
    places = [step * stage for stage in range(stages)]
    if alias_free and cfg["pe_first_act"] and step == 2:
        places = [0, *(place + 1 for place in places[1:])]  # Down 2 follows the first activation
    constant = {
        part: [scale for scale in SCALES if kwargs.get(scale, 1) == 1]
        for part in (*MODULES, "pe_first_act")
        if not (kwargs := cfg[f"{part}_kwargs"]).get("train_scale", True)
    }
    positions = "pos_module" if alias_free else "pos_embeder"
    return xcit(network, Names(places, positions, "norm" if alias_free else "bn", False, constant))


def _candidates(network: Mapping[str, Any]) -> Candidates:
    if network[KIND] != "XCiT":
        yield "xcit_af", {}
        return
    options = {**described_sizes(network), "use_pos": network["positions"] is not None}
    attention = look(network, "class_attention", KIND)
    words = {"ClassAttention": "cls_attn", "CrossCovarianceAttention": "cls_attn_af"}
    features = words.get(attention, "avgpool")
    if features != "cls_attn_af":
        for family in ("xcit", "xcit_aps"):
            yield named(family, options), {**options, "features_type": features}
    stem = network["stem_activation"]
    cfg = {
        "conv_padding_mode": "circular" if network["padding"] == "CIRCULAR" else "zeros",
        "pe_down_af": network["sampler"][KIND] == "IdealDownsample",
        "pe_fuse_down": _word(stem).startswith("up_"),
        "pe_last_act": network["stem_last_activation"] == stem,
        "xca_norm_layer": "layer_af" if network["norm"][KIND] == "PositionNorm" else "layer",
        "features_type": features,
    }
    parts = {"pe_act": stem, "mlp_act": network["activation"], "lpi_act": network["local_activation"]}
    first = network["stem_first_activation"]
    if first != stem and first[KIND] in _WORDS:
        parts["pe_first_act"] = first
    for name, part in parts.items():
        cfg |= {name: _word(part), f"{name}_kwargs": _kwargs(part)}
    yield named("xcit_af", options), {**options, "cfg": cfg}


def _word(part: Mapping[str, Any]) -> str:
    """The original's word for one of our activations."""
    return _WORDS.get(part[KIND], "up_gelu")


def _kwargs(part: Mapping[str, Any]) -> dict[str, Any]:
    return {name: part[name] for name in (*SCALES, "train_scale", "cutoff") if name in part}


AFT = CodeBase(SOURCE, _translate, _entries, _candidates, channels="in_chans")

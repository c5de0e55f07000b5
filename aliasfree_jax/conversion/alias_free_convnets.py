"""The ConvNeXts of github.com/hmichaeli/alias_free_convnets: options and state-dict keys.

That code base contains the networks convnext, convnext_poly, convnext_circ, convnext_afc and
convnext_aps. With its default arguments convnext_afc is the paper's circular baseline.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from aliasfree_jax.conversion.rules import Rule, conv, dense, depthwise
from aliasfree_jax.errors import ConversionError, unknown
from aliasfree_jax.models.variants import SIZES
from aliasfree_jax.ops.activation import GELU_QUADRATIC

SOURCE = "alias_free_convnets"
IMAGE_SIZE = 224
Options = Mapping[str, Any]

_TINY = {"depths": (3, 3, 9, 3), "dims": (96, 192, 384, 768)}

# Arguments with a plain counterpart; the rest is translated below.
_RENAMED = {
    "num_classes": "num_classes",
    "depths": "depths",
    "dims": "widths",
    "drop_path_rate": "drop_path_rate",
    "layer_scale_init_value": "layer_scale_init",
    "head_init_scale": "head_init_scale",
    "init_weight_std": "init_std",
}
_COMMON = {"in_chans", "conv_pad_type", "activation", "activation_kwargs", *_RENAMED}
_LEGAL = {
    "convnext": {"in_chans", *_RENAMED},
    "convnext_poly": _COMMON,
    "convnext_circ": _COMMON,
    "convnext_aps": {*_COMMON, "blurpool_kwargs", "normalization_type"},
    "convnext_afc": {
        *_COMMON,
        "blurpool_kwargs",
        "normalization_type",
        "normalization_kwargs",
        "stem_mode",
        "stem_activation",
        "stem_activation_kwargs",
    },
}
_ACTIVATIONS = {
    "relu": "relu",
    "gelu": "gelu",
    "poly_per_channel": "polynomial",
    "up_poly_per_channel": "up_polynomial",
    "lpf_poly_per_channel": "lowpass_polynomial",
}
_NORMS = {"C": "channel", "CHW2": "spatial", "batch": "batch", "instance": "instance", "group": "group"}
_PADDINGS = {
    "circular": "circular",
    "zero": "zero",
    "reflect": "reflect",
    "refl": "reflect",
    "replicate": "replicate",
    "repl": "replicate",
    "replicate_pad": "replicate",
}


def _lookup(kind: str, name: str, table: Mapping[str, str]) -> str:
    if name not in table:
        raise ConversionError(unknown(f"{kind} of {SOURCE}", name, table))
    return table[name]


def _activation(name: str, kwargs: Options) -> dict[str, Any]:
    part: dict[str, Any] = {"name": _lookup("activation", name, _ACTIVATIONS)}
    if part["name"] in ("gelu", "relu"):
        return part
    part |= {key: kwargs[key] for key in ("in_scale", "out_scale", "train_scale") if key in kwargs}
    # The original evaluates a quadratic whatever the number of coefficients (spec section 1.6).
    part["initial"] = tuple(kwargs.get("coef", GELU_QUADRATIC))[:3]
    if part["name"] == "lowpass_polynomial":
        part["cutoff"] = kwargs.get("cutoff", 0.5)
    return part


def _sampler(kwargs: Options) -> dict[str, Any]:
    """The sampler of BlurPool's arguments."""
    if kwargs.get("filter_type", "basic") == "ideal":
        part: dict[str, Any] = {"name": "ideal"}
    elif kwargs.get("filt_size", 1) == 1:
        return {"name": "subsample"}
    else:
        padding = _lookup("padding", kwargs.get("pad_type", "circular"), _PADDINGS)
        part = {"name": "blur", "size": kwargs["filt_size"], "padding": padding}
    return {"name": "norm_preserving", "inner": part} if kwargs.get("scale_l2", False) else part


def _polyphase(kwargs: Options) -> dict[str, Any]:
    """The sampler of ApsPool's arguments."""
    padding = _lookup("padding", kwargs.get("pad_type", "circular"), _PADDINGS)
    return {
        "name": "polyphase",
        "inner": {"name": "blur", "size": kwargs.get("filt_size", 3), "padding": padding},
        "criterion": kwargs.get("apspool_criterion", "l2"),
    }


def _norm(options: Options) -> dict[str, Any]:
    part: dict[str, Any] = {"name": _lookup("norm", options.get("normalization_type", "C"), _NORMS)}
    kwargs = options.get("normalization_kwargs", {})
    if part["name"] == "group":
        if "num_groups" not in kwargs:
            raise ConversionError("normalization_type 'group' needs normalization_kwargs with num_groups.")
        part["num_groups"] = kwargs["num_groups"]
    return part


def _stem(options: Options) -> dict[str, Any]:
    mode = options.get("stem_mode")
    if mode is None:
        return {"stem_activation": None, "stem_residual": False}
    if mode not in ("activation", "activation_residual"):
        raise ConversionError(unknown("stem_mode", mode, ("activation", "activation_residual")))
    name = options.get("stem_activation") or options.get("activation", "gelu")
    activation = _activation(name, options.get("stem_activation_kwargs", {}))
    return {"stem_activation": activation, "stem_residual": mode == "activation_residual"}


def translate(model: str, options: Options) -> tuple[str, dict[str, Any]]:
    """Name and options of `create_model` for a network of the original and its constructor options.

    Raises:
      ConversionError: unknown network, option or value.
    """
    if model not in _LEGAL:
        raise ConversionError(unknown(f"network of {SOURCE}", model, _LEGAL))
    for option in options:
        if option not in _LEGAL[model]:
            raise ConversionError(unknown(f"option of {SOURCE} {model}", option, _LEGAL[model]))
    ours = {_RENAMED[key]: value for key, value in {**_TINY, **options}.items() if key in _RENAMED}
    if model in ("convnext", "convnext_poly"):
        default = "gelu" if model == "convnext" else "poly_per_channel"
        activation = _activation(options.get("activation", default), options.get("activation_kwargs", {}))
        return _name("convnext", ours), ours | {"activation": activation}
    padding = _lookup("padding", options.get("conv_pad_type", "circular"), _PADDINGS)
    activation = _activation(options.get("activation", "gelu"), options.get("activation_kwargs", {}))
    ours |= {"padding": padding, "sampled_padding": padding, "activation": activation}
    if model == "convnext_circ":
        return _name("convnext_circular", ours), ours | {"sampled_padding": "none"}
    ours["norm"] = _norm(options)
    if model == "convnext_aps":
        ours["sampler"] = _polyphase(options.get("blurpool_kwargs", {}))
        return _name("convnext_aps", ours), ours
    ours |= {"sampler": _sampler(options.get("blurpool_kwargs", {})), **_stem(options)}
    return _name("convnext_afc" if activation["name"] == "up_polynomial" else "convnext_circular", ours), ours


def _name(family: str, ours: Options) -> str:
    """The published size with these depths and widths; tiny, whose sizes are overridden, for others."""
    shape = tuple(ours["depths"]), tuple(ours["widths"])
    sizes = {(size["depths"], size["widths"]): name for name, size in SIZES.items()}
    return f"{family}_{sizes.get(shape, 'tiny')}"


def _quadratic(value: np.ndarray) -> np.ndarray:
    """Coefficients (C, 3 or more, 1, 1) to (C, 3): the original never uses more than a quadratic."""
    return value[:, :3, 0, 0]


def _norm_rules(pattern: str, target: str, batch: bool) -> list[Rule]:
    inner = f"{target}/norm" if batch else target
    return [
        Rule(rf"{pattern}\.weight", f"params/{inner}/scale"),
        Rule(rf"{pattern}\.bias", f"params/{inner}/bias"),
        Rule(rf"{pattern}\.running_mean", f"batch_stats/{inner}/mean"),
        Rule(rf"{pattern}\.running_var", f"batch_stats/{inner}/var"),
        Rule(rf"{pattern}\.num_batches_tracked", None, why="a counter that nothing uses"),
    ]


def _activation_rules(pattern: str, target: str, trained_scales: bool) -> list[Rule]:
    scales = f"params/{target}/" + r"\g<scale>" if trained_scales else None
    return [
        Rule(rf"{pattern}(?:pact\.)?coef", f"params/{target}/coefficients", _quadratic),
        Rule(rf"{pattern}(?:pact\.)?(?P<scale>in_scale|out_scale)", scales, why="constants of the module"),
    ]


def rules(options: Options) -> list[Rule]:
    """The table for all five networks; `options` are the original's.

    The optional parts of the patterns are the inner index of convolutions that come with a padding
    module, the `mlp` that only some blocks have, and the position of the stem's norm.
    """
    nested = options.get("normalization_type", "C") in ("batch", "group")
    scales = [options.get(f"{part}activation_kwargs", {}).get("train_scale", False) for part in ("", "stem_")]
    block, ours = r"stages\.(\d+)\.(\d+)", r"stage\1_block\2"
    return [
        Rule(r".*\.(rect|filt)", None, why="filters are constants here"),
        Rule(r"downsample_layers\.0\.0(?:\.1)?\.weight", "params/stem/conv/kernel", conv),
        Rule(r"downsample_layers\.0\.0(?:\.1)?\.bias", "params/stem/conv/bias"),
        Rule(r"downsample_layers\.0\.1\.gamma", "params/stem/gain"),
        *_activation_rules(r"downsample_layers\.0\.1\.(?:residual\.0\.)?", "stem/activation", scales[1]),
        *_norm_rules(r"downsample_layers\.0\.[123]", "stem_norm", nested),
        *_norm_rules(r"downsample_layers\.([1-9])\.0", r"downsample\1_norm", nested),
        Rule(r"downsample_layers\.([1-9])\.1(?:\.1)?\.weight", r"params/downsample\1/conv/kernel", conv),
        Rule(r"downsample_layers\.([1-9])\.1(?:\.1)?\.bias", r"params/downsample\1/conv/bias"),
        Rule(rf"{block}\.dwconv(?:\.1)?\.weight", f"params/{ours}/depthwise/kernel", depthwise),
        Rule(rf"{block}\.dwconv(?:\.1)?\.bias", f"params/{ours}/depthwise/bias"),
        *_norm_rules(rf"{block}\.norm", f"{ours}/norm", nested),
        Rule(rf"{block}\.(?:mlp\.)?pwconv1\.weight", f"params/{ours}/mlp/expand/kernel", dense),
        Rule(rf"{block}\.(?:mlp\.)?pwconv1\.bias", f"params/{ours}/mlp/expand/bias"),
        *_activation_rules(rf"{block}\.(?:mlp\.)?act\.", f"{ours}/mlp/activation", scales[0]),
        Rule(rf"{block}\.(?:mlp\.)?pwconv2\.weight", f"params/{ours}/mlp/project/kernel", dense),
        Rule(rf"{block}\.(?:mlp\.)?pwconv2\.bias", f"params/{ours}/mlp/project/bias"),
        Rule(rf"{block}\.gamma", f"params/{ours}/layer_scale"),
        Rule(r"norm\.weight", "params/norm/scale"),
        Rule(r"norm\.bias", "params/norm/bias"),
        Rule(r"head\.weight", "params/head/kernel", dense),
        Rule(r"head\.bias", "params/head/bias"),
    ]

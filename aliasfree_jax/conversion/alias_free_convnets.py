"""The ConvNeXts of github.com/hmichaeli/alias_free_convnets: options and state-dict keys.

That code base contains the networks convnext, convnext_poly, convnext_circ, convnext_afc and
convnext_aps. With its default arguments convnext_afc is the paper's circular baseline.
"""

from collections.abc import Mapping
from typing import Any

from aliasfree_jax.conversion.convnext_entries import (
    NORMS,
    ModuleEntries,
    Style,
    convnext,
    no_entries,
    polynomial,
)
from aliasfree_jax.conversion.entries import Entry
from aliasfree_jax.errors import ConversionError, unknown
from aliasfree_jax.models import create_model
from aliasfree_jax.models.convnext import SIZES, ConvNeXt
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
    "circular": "CIRCULAR",
    "zero": "ZERO",
    "reflect": "REFLECT",
    "refl": "REFLECT",
    "replicate": "REPLICATE",
    "repl": "REPLICATE",
    "replicate_pad": "REPLICATE",
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
    # The original evaluates a quadratic whatever the number of coefficients.
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
        part = {"name": "blur", "kernel_size": kwargs["filt_size"], "padding": padding}
    return {"name": "norm_preserving", "inner": part} if kwargs.get("scale_l2", False) else part


def _polyphase(kwargs: Options) -> dict[str, Any]:
    """The sampler of ApsPool's arguments."""
    padding = _lookup("padding", kwargs.get("pad_type", "circular"), _PADDINGS)
    return {
        "name": "polyphase",
        "inner": {"name": "blur", "kernel_size": kwargs.get("filt_size", 3), "padding": padding},
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
        return _name("convnext_circular", ours), ours | {"sampled_padding": "VALID"}
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


def table(model: str, options: Options) -> list[Entry]:
    """The state dict of a network, without the masks (`rect`) that its ideal filters make on first use."""
    name, ours = translate(model, options)
    network = create_model(name, **ours)
    assert isinstance(network, ConvNeXt)
    return list(convnext(network, _style(model, options)))


def _style(model: str, options: Options) -> Style:
    stem_mode = options.get("stem_mode")
    size, stem_filters, filters = _filters(model, options)
    stem_norm = {"convnext_afc": 3 if stem_mode else 2, "convnext_aps": 3}.get(model, 1)
    kwargs, stem_kwargs = (options.get(f"{part}activation_kwargs", {}) for part in ("", "stem_"))
    activation = options.get("activation", "poly_per_channel" if model == "convnext_poly" else "gelu")
    stem_activation = (options.get("stem_activation") or activation) if stem_mode else "gelu"
    # The MLP that upsamples as a whole holds the polynomial itself, others hold the activation module.
    whole = model == "convnext_afc" and activation == "up_poly_per_channel"
    return Style(
        wrapped=model not in ("convnext", "convnext_poly"),
        stem_norm=stem_norm,
        norm=NORMS[options.get("normalization_type", "C")],
        stem_filters=stem_filters,
        filters=filters,
        filter_size=size,
        mlp="mlp." if model == "convnext_afc" else "",
        activation=_entries("poly_per_channel" if whole else activation, kwargs),
        stem_activation=_entries(stem_activation, stem_kwargs),
    )


def _filters(model: str, options: Options) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
    """Size and names of the blur filters: in the stem, and in each downsampling layer."""
    kwargs = options.get("blurpool_kwargs", {})
    if model == "convnext_aps" and kwargs.get("filt_size", 3) > 1:
        return kwargs.get("filt_size", 3), ("1.filt", "2.filt"), ("2.filt",)
    if model == "convnext_afc" and kwargs.get("filter_type", "basic") == "basic":
        position = 2 if options.get("stem_mode") else 1
        return kwargs.get("filt_size", 1), (f"{position}.filt.filt",), ("2.filt.filt",)
    return 1, (), ()


def _entries(activation: str, kwargs: Options) -> ModuleEntries:
    if activation in ("gelu", "relu"):
        return no_entries
    return polynomial(kwargs, "pact." if activation == "up_poly_per_channel" else "")

"""The ConvNeXts of github.com/hmichaeli/alias_free_convnets: options and state-dict keys.

That code base contains the networks convnext, convnext_poly, convnext_circ, convnext_afc and
convnext_aps. With its default arguments, convnext_afc is the paper's circular baseline.
"""

from collections.abc import Mapping
from typing import Any

from aliasfree_jax.conversion.convnext_entries import convnext_entries, sized
from aliasfree_jax.conversion.description import KIND, look
from aliasfree_jax.conversion.entries import Candidates, CodeBase, Options, check_options, chosen
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.ops.activation import GELU_QUADRATIC

SOURCE = "alias_free_convnets"

_TINY = {"depths": (3, 3, 9, 3), "dims": (96, 192, 384, 768)}

# Arguments that are only renamed. All others are translated below.
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
_SAMPLED = {*_COMMON, "blurpool_kwargs", "normalization_type"}
_STEM = {"stem_mode", "stem_activation", "stem_activation_kwargs"}
_LEGAL = {
    "convnext": {"in_chans", *_RENAMED},
    "convnext_poly": _COMMON,
    "convnext_circ": _COMMON,
    "convnext_aps": _SAMPLED,
    "convnext_afc": {*_SAMPLED, *_STEM, "normalization_kwargs"},
}
# Original word -> the name of our part, and our layer class.
_ACTIVATIONS = {
    "relu": ("relu", "Relu"),
    "gelu": ("gelu", "Gelu"),
    "poly_per_channel": ("polynomial", "Polynomial"),
    "up_poly_per_channel": ("up_polynomial", "UpPolynomial"),
    "lpf_poly_per_channel": ("lowpass_polynomial", "LowpassPolynomial"),
}
_NORMS = {
    "C": ("channel", "ChannelNorm"),
    "CHW2": ("spatial", "SpatialNorm"),
    "batch": ("batch", "BatchNorm"),
    "instance": ("instance", "InstanceNorm"),
    "group": ("group", "GroupNorm"),
}
_PADDINGS = {
    "circular": "CIRCULAR",
    "zero": "ZERO",
    "reflect": "REFLECT",
    "refl": "REFLECT",
    "replicate": "REPLICATE",
    "repl": "REPLICATE",
    "replicate_pad": "REPLICATE",
}


def _activation(name: str, kwargs: Options) -> dict[str, Any]:
    part: dict[str, Any] = {"name": chosen(f"activation of {SOURCE}", name, _ACTIVATIONS)[0]}
    if part["name"] in ("gelu", "relu"):
        return part
    part |= {key: kwargs[key] for key in ("in_scale", "out_scale", "train_scale") if key in kwargs}
    # The original evaluates a quadratic. It ignores further coefficients.
    part["initial"] = tuple(kwargs.get("coef", GELU_QUADRATIC))[:3]
    if part["name"] == "lowpass_polynomial":
        part["cutoff"] = kwargs.get("cutoff", 0.5)
    return part


def _sampler(kwargs: Options) -> dict[str, Any]:
    """Our sampler for the arguments of BlurPool."""
    if kwargs.get("filter_type", "basic") == "ideal":
        part: dict[str, Any] = {"name": "ideal"}
    elif kwargs.get("filt_size", 1) == 1:
        return {"name": "subsample"}
    else:
        padding = chosen(f"padding of {SOURCE}", kwargs.get("pad_type", "circular"), _PADDINGS)
        part = {"name": "blur", "kernel_size": kwargs["filt_size"], "padding": padding}
    return {"name": "norm_preserving", "inner": part} if kwargs.get("scale_l2", False) else part


def _polyphase(kwargs: Options) -> dict[str, Any]:
    """Our sampler for the arguments of ApsPool."""
    padding = chosen(f"padding of {SOURCE}", kwargs.get("pad_type", "circular"), _PADDINGS)
    return {
        "name": "polyphase",
        "inner": {"name": "blur", "kernel_size": kwargs.get("filt_size", 3), "padding": padding},
        "criterion": kwargs.get("apspool_criterion", "l2"),
    }


def _norm(options: Options) -> dict[str, Any]:
    name = options.get("normalization_type", "C")
    part: dict[str, Any] = {"name": chosen(f"norm of {SOURCE}", name, _NORMS)[0]}
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
    residual = chosen("stem_mode", mode, {"activation": False, "activation_residual": True})
    name = options.get("stem_activation") or options.get("activation", "gelu")
    activation = _activation(name, options.get("stem_activation_kwargs", {}))
    return {"stem_activation": activation, "stem_residual": residual}


def translate(model: str, options: Options) -> tuple[str, dict[str, Any]]:
    """Translates an original network and its constructor options to arguments of `create_model`.

    Raises:
      ConversionError: The network, an option or a value is unknown.
    """
    check_options(f"{SOURCE} {model}", options, chosen(f"network of {SOURCE}", model, _LEGAL))
    ours = {_RENAMED[key]: value for key, value in {**_TINY, **options}.items() if key in _RENAMED}
    if model in ("convnext", "convnext_poly"):
        default = "gelu" if model == "convnext" else "poly_per_channel"
        activation = _activation(options.get("activation", default), options.get("activation_kwargs", {}))
        return _name("convnext", ours), ours | {"activation": activation}
    padding = chosen(f"padding of {SOURCE}", options.get("conv_pad_type", "circular"), _PADDINGS)
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
    """The published network with these depths and widths. For other sizes: tiny, with its sizes replaced."""
    return sized(family, ours["depths"], ours["widths"])[0]


def _activation_there(part: Mapping[str, Any] | None) -> tuple[str, dict[str, Any]]:
    """Name and arguments of an activation in the original."""
    part = part or {KIND: "Gelu"}
    names = ("in_scale", "out_scale", "train_scale", "cutoff")
    kwargs: dict[str, Any] = {name: part[name] for name in names if name in part}
    if kwargs.get("train_scale"):
        kwargs |= {"in_scale": 1, "out_scale": 1}  # initial values: the weights hold the learned scales
    return _word(_ACTIVATIONS, part, "gelu"), kwargs


def _word(table: Mapping[str, tuple[str, str]], part: Mapping[str, Any], default: str) -> str:
    """The original's word for one of our parts."""
    return next((theirs for theirs, (_, kind) in table.items() if kind == part[KIND]), default)


def _candidates(network: Mapping[str, Any]) -> Candidates:
    if network[KIND] != "ConvNeXt":
        yield "convnext_afc", {}
        return
    activation, kwargs = _activation_there(network["activation"])
    sizes: dict[str, Any] = {} if network["layer_scale_init"] else {"layer_scale_init_value": 0}
    if len(network["depths"]) == 4:  # the original always has four stages
        sizes |= {"depths": list(network["depths"]), "dims": list(network["widths"])}
    common = sizes | {"activation": activation, "activation_kwargs": kwargs}
    yield "convnext", sizes
    yield "convnext_poly", common
    common["conv_pad_type"] = network["padding"].lower()
    yield "convnext_circ", common
    norm = network["norm"]
    common["normalization_type"] = _word(_NORMS, norm, "C")
    sampler, scaled = network["sampler"], network["sampler"][KIND] == "NormPreserving"
    inner = sampler["inner"] if "inner" in sampler else sampler
    blur = {
        "filt_size": look(inner, "kernel_size", default=1),
        "pad_type": look(inner, "padding", default="CIRCULAR").lower(),
    }
    if norm[KIND] != "GroupNorm":
        criterion = {"apspool_criterion": sampler.get("criterion", "l2")}
        yield "convnext_aps", common | {"blurpool_kwargs": {**blur, **criterion}}
    else:
        common["normalization_kwargs"] = {"num_groups": norm["num_groups"]}
    ideal = inner[KIND] == "IdealDownsample"
    common["blurpool_kwargs"] = {**({"filter_type": "ideal"} if ideal else blur), "scale_l2": scaled}
    if network["stem_activation"]:
        common["stem_mode"] = "activation_residual" if network["stem_residual"] else "activation"
        name, stem_kwargs = _activation_there(network["stem_activation"])
        common |= {"stem_activation": name, "stem_activation_kwargs": stem_kwargs}
    yield "convnext_afc", common


AFC = CodeBase(SOURCE, translate, convnext_entries, _candidates, "blurpool_kwargs", channels="in_chans")

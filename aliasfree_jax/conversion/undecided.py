"""Handles files whose weights fit several networks: finds other statements in the file, or asks the user.

The originals save the filters of BlurPool as buffers. A file without them has the same keys as a network
without filters, or with filters of size 1. So the network is asked for, not guessed. The file may hold more
than weights: the network's name, or, in Lightning checkpoints of learnable_polyphase_sampling, Python objects
of the training program. These are read as descriptions. They state choices that cannot be recognised from the
weights.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from aliasfree_jax.conversion.antialiased_cnns import MODELS
from aliasfree_jax.conversion.code_bases import (
    AFC,
    BLURPOOL,
    CIFAR_APS,
    IMAGENET_APS,
    LPS,
    PLAIN,
    TIMM,
    UNETS,
    code_base,
    table,
)
from aliasfree_jax.conversion.entries import Entry, Options
from aliasfree_jax.conversion.lps_deeplab import UNTRACED as DEEPLAB_UNTRACED
from aliasfree_jax.errors import ConversionError, listed
from aliasfree_jax.models.resnet import SIZES
from aliasfree_jax.pickles.inert import Description

COMMAND = "python -m aliasfree_jax convert"
Original = tuple[str, str, Options]

# The value of the filter option for a network without saved filters, by source or network.
_NONE: Options = {
    "convnext_aps": {"filt_size": 1},
    "convnext_afc": {"filter_type": "ideal"},
    IMAGENET_APS.source: 1,
    LPS.source: None,
}
# Lightning's hyper-parameters: entries beside the polyphase layer, and that layer's keywords -> our options.
_EXTRAS = ("maxpool_zpad", "conv1_stride", "swap_conv_pool", "inc_conv1_support", "apply_maxpool")
_KEYWORDS = {
    "logits_pad": "logits_pad",
    "selection_noantialias": "selection_noantialias",
    "comp_convex": "LPS_convex",
    "comp_train_convex": "LPS_train_convex",
    "comp_fix_train": "LPS_gumbel",
}


class UndecidedError(ConversionError):
    """The file fits several networks. Arguments of `load_pretrained` decide.

    Attributes:
      reason: What the file does not state.
      arguments: An example of arguments of `load_pretrained` that decide.
    """

    def __init__(self, reason: str, arguments: Mapping[str, Any]) -> None:
        """Writes the arguments as in a Python call."""
        self.reason, self.arguments = reason, arguments
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        super().__init__(f"{reason} Name the network, for instance: {given}.")

    def flags(self) -> str:
        """The arguments as flags of the `convert` command."""
        return " ".join(
            f"--{name}={value}" if isinstance(value, str) else f"--{name}='{json.dumps(value)}'"
            for name, value in self.arguments.items()
        )

    def for_conversion(self) -> ConversionError:
        """The same error for users of the `convert` command."""
        return ConversionError(f"{self.reason} Name the network, for instance: {self.flags()}.")

    def for_command(self, path: object, flag: str) -> ConversionError:
        """The same error for users of another command, which accepts a checkpoint with `flag`."""
        return ConversionError(
            f"{self.reason} Convert the file first and name the network, for instance:\n"
            f"  {COMMAND} {path} converted {self.flags()}\nThen pass {flag}=converted."
        )


def require_filters(original: Original, state: Collection[str]) -> None:
    """Raises `UndecidedError` if the network's filters are missing and no option states their size."""
    source, model, options = original
    lost = [entry.key for entry in table(*original) if _is_filter(entry) and entry.key not in state]
    if lost:
        raise UndecidedError(
            f"the blur filters {listed(lost, 3)} are missing. {source} always saves them with a {model}. "
            "Without them, the network is not known.",
            {"source": source, "model": model, "options": _example(source, options)},
        )


def require_decision(original: Original, state: Collection[str], masks: bool) -> None:
    """Raises `UndecidedError` if `state` also fits a network whose blur filters were not saved.

    Args:
      original: Source, model and options. Only the weights state the filters.
      state: The keys of the weights.
      masks: Whether the file has masks of ideal filters. Then it has no blur filters.
    """
    source, model, options = original
    if masks or any(_is_filter(entry) for entry in table(*original)):
        return
    if source == AFC.source and options.get("activation") == "up_poly_per_channel":
        return  # no published network has this activation and a blur: `assumption` notes it
    for other in _with_filters(*original):
        if not _fits(other, set(state)):
            continue
        theirs, name, chosen = other
        option, off = code_base(theirs).filters, code_base(theirs).no_filters
        if not _fits(original, set(state)):
            otherwise = ""
        elif other[:2] == original[:2]:
            none = "true" if off else json.dumps(_NONE[model if theirs == AFC.source else theirs])
            otherwise = f", or one without filters ({off or option} {none})"
        else:
            otherwise = f", or {source}'s {model}, which has no filters (source {source!r})"
        raise UndecidedError(
            f"it has no blur filters. It is a {name} of {theirs} whose filters were not saved{otherwise}.",
            {"source": theirs, "model": name, "options": {option: chosen[option]}},
        )


def assumption(original: Original, masks: bool) -> str:
    """Describes assumptions about filters and paddings, and how to change them. "" without assumptions."""
    source, model, options = original
    if (source == PLAIN.source and model in SIZES) or (source == TIMM.source and model.startswith("resnet")):
        return (
            f"assumed to be {source}'s {model}, without blur filters. timm's resnetblur and resnetaa "
            "networks have the same names of weights and do not save their filters. For these, pass source "
            "'timm' and the model. For BlurPool's networks, pass source 'antialiased-cnns'"
        )
    if source == LPS.source and model.startswith("deeplab"):
        left = {name: value for name, value in DEEPLAB_UNTRACED.items() if name not in options}
        told = f"assumed to have the original's defaults {json.dumps(left)}, which the weights do not show"
        return f"{told}. Pass options to change them" if left else ""
    ideal = source == AFC.source and options.get("blurpool_kwargs", {}).get("filter_type") == "ideal"
    if ideal and not masks:
        return (
            "assumed to have ideal filters, like the published networks: the file has no blur filters. Pass "
            f"the option blurpool_kwargs of {source} to change this"
        )
    return ""


def _is_filter(entry: Entry) -> bool:
    return entry.key.endswith("filt")


def _example(source: str, options: Options) -> dict[str, Any]:
    """An example of the option that states filters."""
    option = code_base(source).filters
    size = options.get(option) or {"filt_size": 3} if source == AFC.source else options.get(option, 3)
    return {option: size}


def _with_filters(source: str, model: str, options: Options) -> Iterator[Original]:
    """Networks with filters whose other tensors may have the same keys as this network."""
    if source == PLAIN.source and model in MODELS:
        layouts = [{"pool_only": p, "relu_first": r} for p in (False, True) for r in (False, True)]
        for extra in layouts if model == "alexnet" else [{}]:
            yield BLURPOOL.source, model, {"filter_size": 4, **extra}
    elif source in (IMAGENET_APS.source, CIFAR_APS.source):
        size = model.removesuffix("_aps").removesuffix("_lpf")
        kept = {name: value for name, value in options.items() if name != "filter_size"}
        for kind in ("aps", "lpf"):
            yield source, f"{size}_{kind}", {**kept, "filter_size": 3}
    elif source == UNETS.source and options.get("sinc_mode"):
        kept = {name: value for name, value in options.items() if name != "sinc_mode"}
        yield source, model, {**kept, "filter_size": 3}
    elif source == LPS.source:
        yield source, model, {**options, "antialias": ["LowPassFilter", 3, "circular"]}
    elif source == AFC.source and model in ("convnext_afc", "convnext_aps"):
        yield source, model, {**options, "blurpool_kwargs": {"filt_size": 3}}


def _fits(original: Original, state: set[str]) -> bool:
    """Whether `state` has exactly the tensors of a network, ignoring constants."""
    entries = table(*original)
    constants = {entry.key for entry in entries if entry.constant is not None}
    return {entry.key for entry in entries} - constants == state - constants


def with_hyper_parameters(recognised: Options, hyper_parameters: object) -> dict[str, Any]:
    """Adds the file's hyper-parameters to the options that were recognised from the weights.

    The weights win if both state an option. Hyper-parameters of unexpected form are ignored.
    """
    options = dict(recognised)
    if not isinstance(hyper_parameters, Mapping):
        return options
    if "padding_mode" in hyper_parameters:
        options["padding_mode"] = hyper_parameters["padding_mode"]
    if "unpool" in recognised:  # a network for segmentation
        own = ("output_stride", "classifier_padding_mode")
        options |= {name: hyper_parameters[name] for name in own if name in hyper_parameters}
    extras = hyper_parameters.get("extras_model")
    if isinstance(extras, Mapping):
        options |= {name: extras[name] for name in _EXTRAS if name in extras and name not in recognised}
    _, keywords = _call(hyper_parameters.get("pooling_layer"))
    options |= {ours: keywords[name] for name, ours in _KEYWORDS.items() if name in keywords}
    logits, _ = _call(keywords.get("get_logits"))
    if logits and "logits" in recognised:
        options["logits"] = logits  # LPSLogitLayers and LPSLogitLayersSkip have the same weights
    _, filter_keywords = _call(keywords.get("antialias_layer"))
    padding = filter_keywords.get("padding_mode", filter_keywords.get("pad_type"))
    if padding and "antialias" in recognised:
        kind, size, _, *groups = recognised["antialias"]
        options["antialias"] = [kind, size, padding, *groups]
    return options


def states_no_filter(hyper_parameters: object) -> bool:
    """Whether the hyper-parameters describe a pooling layer without a filter."""
    layer = hyper_parameters.get("pooling_layer") if isinstance(hyper_parameters, Mapping) else None
    name, keywords = _call(layer)
    return bool(name) and keywords.get("antialias_layer") is None


def _call(value: object) -> tuple[str, Options]:
    """Name (without module) and keywords of a class or of a `functools.partial` of a class."""
    keywords: Options = {}
    while isinstance(value, Description) and value.name == "functools.partial":
        state = value.state
        if not (isinstance(state, tuple) and len(state) == 4 and isinstance(state[2], Mapping)):
            return "", {}
        value, keywords = state[0], {**state[2], **keywords}
    return (value.rpartition(".")[2], keywords) if isinstance(value, str) else ("", {})


def stated(source: str, arch: object, args: object) -> dict[str, Any]:
    """Returns the filter option that other entries of the file state. Empty if they state none.

    Args:
      source: The code base.
      arch: The file's entry "arch", such as "resnet18_aps3".
      args: The file's entry "args": a mapping or record of the training command's arguments.
    """
    if (
        source in (IMAGENET_APS.source, BLURPOOL.source)
        and isinstance(arch, str)
        and arch[-4:-1] in ("aps", "lpf")
        and arch[-1].isdigit()
    ):
        return {"filter_size": int(arch[-1])}
    values = args if isinstance(args, Mapping) else getattr(args, "__dict__", {})
    kwargs = values.get("blurpool_kwargs") if source == AFC.source else None
    return {"blurpool_kwargs": kwargs} if isinstance(kwargs, dict) and kwargs else {}

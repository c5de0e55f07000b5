"""Files that leave open which network they hold: what is asked, and what they say besides the weights.

The originals save the filters of BlurPool as buffers. A file from which they were left out has the very keys
of a network without filters, or of one whose filters have size 1; so what it holds is asked, not guessed.
Beside the weights may be the name of the network, or, in Lightning checkpoints of
learnable_polyphase_sampling, Python objects of the training program. These are read as descriptions, of which
the choices are taken that leave no trace in the weights.
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

# What the option of filters is where there are none to save, by source or network.
_NONE: Options = {
    "convnext_aps": {"filt_size": 1},
    "convnext_afc": {"filter_type": "ideal"},
    IMAGENET_APS.source: 1,
    LPS.source: None,
}
# Of Lightning's hyper-parameters: the entries beside the polyphase layer, and that layer's keywords with the
# options of the command line that set them.
_EXTRAS = ("maxpool_zpad", "conv1_stride", "swap_conv_pool", "inc_conv1_support", "apply_maxpool")
_KEYWORDS = {
    "logits_pad": "logits_pad",
    "selection_noantialias": "selection_noantialias",
    "comp_convex": "LPS_convex",
    "comp_train_convex": "LPS_train_convex",
    "comp_fix_train": "LPS_gumbel",
}


class UndecidedError(ConversionError):
    """A file that leaves open which network it holds; arguments of `load_pretrained` decide.

    Attributes:
      reason: what is open.
      arguments: of `load_pretrained`, an example of what decides.
    """

    def __init__(self, reason: str, arguments: Mapping[str, Any]) -> None:
        """With the arguments as a call in Python has them."""
        self.reason, self.arguments = reason, arguments
        given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
        super().__init__(f"{reason} Say which it is, for instance {given}.")

    def flags(self) -> str:
        """The arguments as flags of the conversion's command line."""
        return " ".join(
            f"--{name}={value}" if isinstance(value, str) else f"--{name}='{json.dumps(value)}'"
            for name, value in self.arguments.items()
        )

    def for_conversion(self) -> ConversionError:
        """The same error for users of the conversion's command."""
        return ConversionError(f"{self.reason} Say which it is, for instance {self.flags()}.")

    def for_command(self, path: object, flag: str) -> ConversionError:
        """The same error for users of a command that takes a file or a directory with `flag`."""
        return ConversionError(
            f"{self.reason} Convert the file first and say which it is, for instance\n"
            f"  {COMMAND} {path} converted {self.flags()}\nThen pass {flag}=converted."
        )


def require_filters(original: Original, state: Collection[str]) -> None:
    """Raises `UndecidedError` if `state` lacks filters of the network, of which no option states the size."""
    source, model, options = original
    lost = [entry.key for entry in table(*original) if _is_filter(entry) and entry.key not in state]
    if lost:
        raise UndecidedError(
            f"the blur filters {listed(lost, 3)} are not there, which {source} always saves with a {model}; "
            "without them its network is not known.",
            {"source": source, "model": model, "options": _example(source, options)},
        )


def require_decision(original: Original, state: Collection[str], masks: bool) -> None:
    """Raises `UndecidedError` if `state` is as well a network with blur filters that were left out.

    Args:
      original: source, model and options, where nothing but the weights states the filters.
      masks: whether the file has masks of ideal filters, which rule blur filters out.
    """
    source, model, options = original
    if masks or any(_is_filter(entry) for entry in table(*original)):
        return
    if source == AFC.source and options.get("activation") == "up_poly_per_channel":
        return  # no published network has this activation and a blur: `assumption` tells
    for other in _with_filters(*original):
        if not _fits(other, set(state)):
            continue
        theirs, name, chosen = other
        option, off = code_base(theirs).filters, code_base(theirs).no_filters
        if not _fits(original, set(state)):
            otherwise = ""
        elif other[:2] == original[:2]:
            none = "true" if off else json.dumps(_NONE[model if theirs == AFC.source else theirs])
            otherwise = f", or one with none ({off or option} {none})"
        else:
            otherwise = f", or {source}'s {model}, which has none (source {source!r})"
        raise UndecidedError(
            f"it has no blur filters: it is a {name} of {theirs} from which they were left out{otherwise}.",
            {"source": theirs, "model": name, "options": {option: chosen[option]}},
        )


def assumption(original: Original, masks: bool) -> str:
    """What is assumed of filters and paddings that no file has, and how to say otherwise; "" for nothing."""
    source, model, options = original
    if (source == PLAIN.source and model in SIZES) or (source == TIMM.source and model.startswith("resnet")):
        return (
            f"assumed to be {source}'s {model}, without blur filters: timm's resnetblur and resnetaa "
            "networks have the same names of weights, keep their filters out of the file, and are other "
            "networks: for these say source 'timm' and the model, for BlurPool's source 'antialiased-cnns'"
        )
    if source == LPS.source and model.startswith("deeplab"):
        left = {name: value for name, value in DEEPLAB_UNTRACED.items() if name not in options}
        told = f"assumed to have {json.dumps(left)}, the defaults there: these leave no trace in the weights"
        return f"{told}, options say otherwise" if left else ""
    ideal = source == AFC.source and options.get("blurpool_kwargs", {}).get("filter_type") == "ideal"
    if ideal and not masks:
        return (
            "assumed to have ideal filters, as published: they are not in the file, and neither are blur "
            f"filters. The option blurpool_kwargs of {source} says otherwise"
        )
    return ""


def _is_filter(entry: Entry) -> bool:
    return entry.key.endswith("filt")


def _example(source: str, options: Options) -> dict[str, Any]:
    """The option that states filters."""
    option = code_base(source).filters
    size = options.get(option) or {"filt_size": 3} if source == AFC.source else options.get(option, 3)
    return {option: size}


def _with_filters(source: str, model: str, options: Options) -> Iterator[Original]:
    """The networks with filters whose other tensors may be named like those of this one without."""
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
    """Whether `state` has the tensors of a network, apart from constants, and no others."""
    entries = table(*original)
    constants = {entry.key for entry in entries if entry.constant is not None}
    return {entry.key for entry in entries} - constants == state - constants


def with_hyper_parameters(recognised: Options, hyper_parameters: object) -> dict[str, Any]:
    """The options read off the weights, completed by the file's hyper-parameters.

    What both say is taken from the weights; what is not of the expected form is passed over.
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
        options["logits"] = logits  # weights do not tell LPSLogitLayers from LPSLogitLayersSkip
    _, filter_keywords = _call(keywords.get("antialias_layer"))
    padding = filter_keywords.get("padding_mode", filter_keywords.get("pad_type"))
    if padding and "antialias" in recognised:
        kind, size, _, *groups = recognised["antialias"]
        options["antialias"] = [kind, size, padding, *groups]
    return options


def states_no_filter(hyper_parameters: object) -> bool:
    """Whether the hyper-parameters describe the pooling layer, and no filter in it."""
    layer = hyper_parameters.get("pooling_layer") if isinstance(hyper_parameters, Mapping) else None
    name, keywords = _call(layer)
    return bool(name) and keywords.get("antialias_layer") is None


def _call(value: object) -> tuple[str, Options]:
    """Name, without its module, and keywords of a class or of a `functools.partial` of one."""
    keywords: Options = {}
    while isinstance(value, Description) and value.name == "functools.partial":
        state = value.state
        if not (isinstance(state, tuple) and len(state) == 4 and isinstance(state[2], Mapping)):
            return "", {}
        value, keywords = state[0], {**state[2], **keywords}
    return (value.rpartition(".")[2], keywords) if isinstance(value, str) else ("", {})


def stated(source: str, arch: object, args: object) -> dict[str, Any]:
    """What the file itself says of its filters beside the weights: the option, or nothing.

    Args:
      arch: its entry of that name, such as "resnet18_aps3".
      args: the arguments of the training command, as a mapping or record.
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

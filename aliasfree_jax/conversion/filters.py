"""Blur filters that a file lacks: it may hold another network, so what it holds is asked, not guessed.

The originals save the filters of BlurPool as buffers. A file from which they were left out has the very
keys of a network without filters, or of one whose filters have size 1.
"""

import json
from collections.abc import Collection, Iterator
from typing import Any

from aliasfree_jax.conversion.code_bases import (
    AFC,
    BLURPOOL,
    CIFAR_APS,
    IMAGENET_APS,
    LPS,
    PLAIN,
    code_base,
    table,
)
from aliasfree_jax.conversion.entries import Entry, Options
from aliasfree_jax.conversion.undecided import UndecidedError
from aliasfree_jax.models.resnet_variants import SIZES

Original = tuple[str, str, Options]

# What the option of filters is where there are none to save, by source or network.
_NONE: Options = {
    "convnext_aps": {"filt_size": 1},
    "convnext_afc": {"filter_type": "ideal"},
    IMAGENET_APS.source: 1,
    LPS.source: None,
}


def require_filters(original: Original, state: Collection[str]) -> None:
    """Raises `UndecidedError` if `state` lacks filters of the network, of which no option states the size."""
    source, model, options = original
    lost = [entry.key for entry in table(*original) if _is_filter(entry) and entry.key not in state]
    if lost:
        shown = ", ".join(lost[:3]) + (f", ... ({len(lost)} in all)" if len(lost) > 3 else "")
        raise UndecidedError(
            f"the blur filters {shown} are not there, which {source} always saves with a {model}; without "
            "them its network is not known.",
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
        option = code_base(theirs).filters
        if not _fits(original, set(state)):
            otherwise = ""
        elif other[:2] == original[:2]:
            none = json.dumps(_NONE[model if theirs == AFC.source else theirs])
            otherwise = f", or one with none ({option} {none})"
        else:
            otherwise = f", or {source}'s {model}, which has none (source {source!r})"
        raise UndecidedError(
            f"it has no blur filters: it is a {name} of {theirs} from which they were left out{otherwise}.",
            {"source": theirs, "model": name, "options": {option: chosen[option]}},
        )


def assumption(original: Original, masks: bool) -> str:
    """What is assumed of filters that the library never saves, and how to say otherwise; "" for nothing."""
    source, model, options = original
    if source == PLAIN.source and model in SIZES:
        return (
            f"assumed to be torchvision's {model}, without blur filters: timm's resnetblur and resnetaa "
            "networks have the same names of weights, keep their filters out of the file, and are other "
            "networks, which are not supported; for BlurPool's say source 'antialiased-cnns'"
        )
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
    if source == PLAIN.source:
        layouts = [{"pool_only": p, "relu_first": r} for p in (False, True) for r in (False, True)]
        for extra in layouts if model == "alexnet" else [{}]:
            yield BLURPOOL.source, model, {"filter_size": 4, **extra}
    elif source in (IMAGENET_APS.source, CIFAR_APS.source):
        size = model.removesuffix("_aps").removesuffix("_lpf")
        kept = {name: value for name, value in options.items() if name != "filter_size"}
        for kind in ("aps", "lpf"):
            yield source, f"{size}_{kind}", {**kept, "filter_size": 3}
    elif source == LPS.source:
        yield source, model, {**options, "antialias": ["LowPassFilter", 3, "circular"]}
    elif source == AFC.source and model in ("convnext_afc", "convnext_aps"):
        yield source, model, {**options, "blurpool_kwargs": {"filt_size": 3}}


def _fits(original: Original, state: set[str]) -> bool:
    """Whether `state` has the tensors of a network, apart from constants, and no others."""
    entries = table(*original)
    constants = {entry.key for entry in entries if entry.constant is not None}
    return {entry.key for entry in entries} - constants == state - constants

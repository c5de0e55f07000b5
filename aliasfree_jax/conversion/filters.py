"""Blur filters that a file lacks: it may hold another network, so what it holds is asked, not guessed.

The originals save the filters of BlurPool as buffers. A file from which they were left out has the very
keys of a network without filters, or of one whose filters have size 1.
"""

import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from aliasfree_jax.conversion import (
    alias_free_convnets,
    antialiased_cnns,
    learnable_polyphase_sampling,
    truly_shift_invariant_cnns,
)
from aliasfree_jax.conversion.entries import Entry
from aliasfree_jax.conversion.undecided import UndecidedError
from aliasfree_jax.models.resnet import SIZES

Options = Mapping[str, Any]
Original = tuple[str, str, Options]
Tables = Callable[[str, str, Options], Iterable[Entry]]

_AFC, _BLUR, _TORCHVISION = alias_free_convnets.SOURCE, antialiased_cnns.SOURCE, antialiased_cnns.TORCHVISION
_APS, _CIFAR = truly_shift_invariant_cnns.SOURCE, truly_shift_invariant_cnns.CIFAR_SOURCE
_LPS = learnable_polyphase_sampling.SOURCE
# The option that states the filters, or that there are none.
OPTION = {
    _AFC: "blurpool_kwargs",
    _BLUR: "filter_size",
    _APS: "filter_size",
    _CIFAR: "filter_size",
    _LPS: "antialias",
}
# What it is where there are no filters to save.
_NONE: Options = {
    "convnext_aps": {"filt_size": 1},
    "convnext_afc": {"filter_type": "ideal"},
    _APS: 1,
    _LPS: None,
}


def require_filters(original: Original, table: Iterable[Entry], state: Collection[str]) -> None:
    """Raises `UndecidedError` if `state` lacks filters of the network, of which no option states the size."""
    source, model, options = original
    lost = [entry.key for entry in table if _is_filter(entry) and entry.key not in state]
    if lost:
        shown = ", ".join(lost[:3]) + (f", ... ({len(lost)} in all)" if len(lost) > 3 else "")
        raise UndecidedError(
            f"the blur filters {shown} are not there, which {source} always saves with a {model}; without "
            "them its network is not known.",
            {"source": source, "model": model, "options": {OPTION[source]: _example(source, options)}},
        )


def require_decision(original: Original, state: Collection[str], tables: Tables, masks: bool) -> None:
    """Raises `UndecidedError` if `state` is as well a network with blur filters that were left out.

    Args:
      original: source, model and options, where nothing but the weights states the filters.
      tables: gives the table of an original.
      masks: whether the file has masks of ideal filters, which rule blur filters out.
    """
    source, model, options = original
    if masks or any(_is_filter(entry) for entry in tables(*original)):
        return
    if source == _AFC and options.get("activation") == "up_poly_per_channel":
        return  # no published network has this activation and a blur: `assumption` tells
    for other in _with_filters(*original):
        if not _fits(tables(*other), set(state)):
            continue
        theirs, name, chosen = other
        if not _fits(tables(*original), set(state)):
            otherwise = ""
        elif other[:2] == original[:2]:
            none = json.dumps(_NONE[model if theirs == _AFC else theirs])
            otherwise = f", or one with none ({OPTION[theirs]} {none})"
        else:
            otherwise = f", or {source}'s {model}, which has none (source {source!r})"
        raise UndecidedError(
            f"it has no blur filters: it is a {name} of {theirs} from which they were left out{otherwise}.",
            {"source": theirs, "model": name, "options": {OPTION[theirs]: chosen[OPTION[theirs]]}},
        )


def assumption(original: Original, masks: bool) -> str:
    """What is assumed of filters that the library never saves, and how to say otherwise; "" for nothing."""
    source, model, options = original
    if source == _TORCHVISION and model in SIZES:
        return (
            f"assumed to be torchvision's {model}, without blur filters: timm's resnetblur and resnetaa "
            "networks have the same names of weights, keep their filters out of the file, and are other "
            "networks, which are not supported; for BlurPool's say source 'antialiased-cnns'"
        )
    ideal = source == _AFC and options.get("blurpool_kwargs", {}).get("filter_type") == "ideal"
    if ideal and not masks:
        return (
            "assumed to have ideal filters, as published: they are not in the file, and neither are blur "
            f"filters. The option blurpool_kwargs of {source} says otherwise"
        )
    return ""


def _is_filter(entry: Entry) -> bool:
    return entry.key.endswith("filt")


def _example(source: str, options: Options) -> Any:
    return (
        options.get(OPTION[source]) or {"filt_size": 3} if source == _AFC else options.get(OPTION[source], 3)
    )


def _with_filters(source: str, model: str, options: Options) -> Iterator[Original]:
    """The networks with filters whose other tensors may be named like those of this one without."""
    if source == _TORCHVISION:
        layouts = [{"pool_only": p, "relu_first": r} for p in (False, True) for r in (False, True)]
        for extra in layouts if model == "alexnet" else [{}]:
            yield _BLUR, model, {"filter_size": 4, **extra}
    elif source in (_APS, _CIFAR):
        size = model.removesuffix("_aps").removesuffix("_lpf")
        kept = {name: value for name, value in options.items() if name != "filter_size"}
        for kind in ("aps", "lpf"):
            yield source, f"{size}_{kind}", {**kept, "filter_size": 3}
    elif source == _LPS:
        yield source, model, {**options, "antialias": ["LowPassFilter", 3, "circular"]}
    elif source == _AFC and model in ("convnext_afc", "convnext_aps"):
        yield source, model, {**options, "blurpool_kwargs": {"filt_size": 3}}


def _fits(table: Iterable[Entry], state: set[str]) -> bool:
    """Whether `state` has the tensors of `table`, apart from constants, and no others."""
    entries = list(table)
    constants = {entry.key for entry in entries if entry.constant is not None}
    return {entry.key for entry in entries} - constants == state - constants


def stated(source: str, arch: object, args: object) -> dict[str, Any]:
    """What the file itself says of its filters beside the weights: the option, or nothing.

    Args:
      arch: its entry of that name, such as "resnet18_aps3".
      args: the arguments of the training command, as a mapping or record.
    """
    if (
        source in (_APS, _BLUR)
        and isinstance(arch, str)
        and arch[-4:-1] in ("aps", "lpf")
        and arch[-1].isdigit()
    ):
        return {"filter_size": int(arch[-1])}
    values = args if isinstance(args, Mapping) else getattr(args, "__dict__", {})
    kwargs = values.get("blurpool_kwargs") if source == _AFC else None
    return {"blurpool_kwargs": kwargs} if isinstance(kwargs, dict) and kwargs else {}


def same_network(source: str, found: str) -> bool:
    """Whether weights recognised as those of `found` may be of `source`: torchvision's start BlurPool's."""
    return source == found or {source, found} == {_TORCHVISION, _BLUR}

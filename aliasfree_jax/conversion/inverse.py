"""From a network of this package to an original's name and options: the inverse of `translate`.

For each code base `_CANDIDATES` reads off a network's description which of its networks could be the
same. The way there, `translate`, decides whether one is, so no guess here can be wrong unnoticed.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from aliasfree_jax.checkpoint import ModelCard
from aliasfree_jax.conversion import (
    alias_free_convnets,
    antialiased_cnns,
    learnable_polyphase_sampling,
    truly_shift_invariant_cnns,
)
from aliasfree_jax.conversion.description import KIND, Description, described, differences, look
from aliasfree_jax.conversion.entries import listing
from aliasfree_jax.errors import ConversionError, unknown
from aliasfree_jax.models import create_model

Candidates = Iterator[tuple[str, dict[str, Any]]]

_LPS = learnable_polyphase_sampling
_KINDS = {  # of samplers and activations: the originals' words
    "Gelu": "gelu",
    "Relu": "relu",
    "Polynomial": "poly_per_channel",
    "UpPolynomial": "up_poly_per_channel",
    "LowpassPolynomial": "lpf_poly_per_channel",
}
_NORMS = {
    "ChannelNorm": "C",
    "SpatialNorm": "CHW2",
    "BatchNorm": "batch",
    "InstanceNorm": "instance",
    "GroupNorm": "group",
}
_CIFAR_PADDINGS = {"CIRCULAR": "circular", "ZERO": "zeros", "REFLECT": "reflect"}
_LOGITS = {
    ("ConvLogits", False): "LPSLogitLayers",
    ("ConvLogits", True): "LPSLogitLayersSkip",
    ("AttentionLogits", False): "SAInner",
    ("AttentionLogits", True): "SAInner_bn",
    ("GraphLogits", False): "GraphLogitLayers",
    ("LinearLogits", False): "ComponentPerceptron",
}


def _taps(sampler: Description) -> int:
    """Taps of a sampler's blur, 1 if it has none."""
    return int(look(sampler, "inner", "kernel_size", default=look(sampler, "kernel_size", default=1)))


def _torchvision(network: Description) -> Candidates:
    yield from ((model, {}) for model in antialiased_cnns.MODELS)


def _antialiased(network: Description) -> Candidates:
    for model in antialiased_cnns.MODELS:
        options = {"filter_size": _taps(network["sampler"])}
        if antialiased_cnns.default_pool_only(model) is None:
            yield model, options
            continue
        for pool_only in (True, False):
            yield model, options | {"pool_only": pool_only}
            if model == "alexnet" and not pool_only:
                yield model, options | {"pool_only": pool_only, "relu_first": False}


def _shift_invariant(network: Description) -> Candidates:
    options = {"filter_size": _taps(network["sampler"])}
    if "criterion" in network["sampler"]:
        options["apspool_criterion"] = network["sampler"]["criterion"]
    for model in truly_shift_invariant_cnns.IMAGENET:
        yield from ((model, options | {"pool_only": pool_only}) for pool_only in (False, True))


def _shift_invariant_cifar(network: Description) -> Candidates:
    options: dict[str, Any] = {"conv_pad_type": _CIFAR_PADDINGS.get(network["padding"], "circular")}
    options["filter_size"] = _taps(network["sampler"])
    if "criterion" in network["sampler"]:
        options["apspool_criterion"] = network["sampler"]["criterion"]
    yield from ((model, options) for model in truly_shift_invariant_cnns.CIFAR)


def _zeros(padding: str, theirs: str = "zeros") -> str:
    """The original's word for a padding: it has three for zeros."""
    return theirs if padding == "ZERO" else padding.lower()


def _learnable(network: Description) -> Candidates:
    sampler, stem = network["sampler"], look(network, "stem", default={})
    options: dict[str, Any] = {"padding_mode": _zeros(network["padding"])}
    options["pool"] = "LPS" if sampler[KIND] == "LearnedPolyphase" else "max_2_norm"
    options["selection_noantialias"] = look(sampler, "select_on") == "raw"
    inner = look(sampler, "inner", default={})
    if look(inner, KIND) == "BlurPool":
        options["antialias"] = ["LowPassFilter", inner["kernel_size"], _zeros(inner["padding"], "constant")]
    elif look(inner, KIND) == "AdaptiveBlurPool":
        options["antialias"] = ["DDAC", inner["kernel_size"], inner["padding"].lower(), inner["groups"]]
    if "logits" in sampler:
        logits = sampler["logits"]
        kind = logits[KIND], bool(logits.get("skip") or logits.get("batch_norm"))
        options |= {"logits": _LOGITS.get(kind, "LPSLogitLayers"), "logits_pad": _zeros(logits["padding"])}
        widths = {name: round(width * logits["width_ratio"]) for name, width in _LPS.WIDTHS.items()}
        options["logits_channels"] = widths
        options["LPS_convex"] = sampler["evaluation"] == "convex"
        options["LPS_gumbel"] = sampler["evaluation"] == "noisy"
    if network[KIND] == "ResNet":
        options["swap_conv_pool"] = network["sampler_position"] == "after"
        options["inc_conv1_support"] = stem[KIND] != "SmallStem"
        options["conv1_stride"] = bool(stem.get("strided"))
        options["maxpool_zpad"] = stem.get("pool_padding") == "ZERO"
    yield from ((model, options) for model in _LPS.MODELS)


def _activation(part: Description | None) -> tuple[str, dict[str, Any]]:
    """The original's name and arguments of an activation."""
    part = part or {KIND: "Gelu"}
    names = ("in_scale", "out_scale", "train_scale", "cutoff")
    kwargs: dict[str, Any] = {name: part[name] for name in names if name in part}
    if kwargs.get("train_scale"):
        kwargs |= {"in_scale": 1, "out_scale": 1}  # its initial values: the weights hold the learned ones
    return _KINDS.get(part[KIND], "gelu"), kwargs


def _convnext(network: Description) -> Candidates:
    if network[KIND] != "ConvNeXt":
        yield "convnext_afc", {}
        return
    activation, kwargs = _activation(network["activation"])
    sizes: dict[str, Any] = {} if network["layer_scale_init"] else {"layer_scale_init_value": 0}
    if len(network["depths"]) == 4:  # its number of stages cannot be chosen
        sizes |= {"depths": list(network["depths"]), "dims": list(network["widths"])}
    common = sizes | {"activation": activation, "activation_kwargs": kwargs}
    yield "convnext", sizes
    yield "convnext_poly", common
    common["conv_pad_type"] = network["padding"].lower()
    yield "convnext_circ", common
    norm = network["norm"]
    common["normalization_type"] = _NORMS.get(norm[KIND], "C")
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
        name, stem_kwargs = _activation(network["stem_activation"])
        common |= {"stem_activation": name, "stem_activation_kwargs": stem_kwargs}
    yield "convnext_afc", common


_AFC, _BLUR, _APS = alias_free_convnets, antialiased_cnns, truly_shift_invariant_cnns
# How options translate, and the candidates.
SOURCES: dict[str, tuple[Callable[..., Any], Callable[[Description], Candidates]]] = {
    _AFC.SOURCE: (_AFC.translate, _convnext),
    _BLUR.SOURCE: (_BLUR.translate, _antialiased),
    _BLUR.TORCHVISION: (_BLUR.translate_torchvision, _torchvision),
    _APS.SOURCE: (_APS.translate, _shift_invariant),
    _APS.CIFAR_SOURCE: (_APS.translate_cifar, _shift_invariant_cifar),
    _LPS.SOURCE: (_LPS.translate, _learnable),
}


@dataclass(frozen=True)
class _Nearest:
    """The network of a code base that is nearest to one of ours: `distance` 0 if it is the same."""

    distance: int
    lines: list[str]  # in what they differ
    model: str = ""
    options: dict[str, Any] = field(default_factory=dict)


_NONE = 1000  # a distance at which naming the nearest network would help nobody


def _nearest(source: str, card: ModelCard) -> _Nearest:
    ours = described(create_model(card.model, **card.options))
    given = {"num_classes": ours["num_classes"]}
    if source == _AFC.SOURCE:
        given["in_chans"] = card.channels
    elif card.channels != 3:
        return _Nearest(_NONE, [f"channels of the images: {card.channels}, there 3"])
    translate, candidates = SOURCES[source]
    compared = []
    for model, read_off in candidates(ours):
        options = {**given, **read_off}
        try:
            name, translated = translate(model, options)
        except ConversionError as error:
            compared.append(_Nearest(_NONE, [str(error)], model, options))
            continue
        found = differences(ours, described(create_model(name, **translated)))
        distance = sum(difference.weight for difference in found)
        compared.append(_Nearest(distance, list(map(str, found)), model, options))
    return min(compared, key=lambda nearest: nearest.distance)


def original_of(source: str, card: ModelCard) -> tuple[str, dict[str, Any]]:
    """Name and options, in the words of `source`, of the network that `card` describes.

    Raises:
      ConversionError: an unknown source; or it has no such network: in what the nearest one differs, and
        which sources have it.
    """
    if source not in SOURCES:
        raise ConversionError(unknown("source", source, SOURCES))
    found = _nearest(source, card)
    if not found.distance:
        return found.model, found.options
    having = [other for other in SOURCES if other != source and not _nearest(other, card).distance]
    elsewhere = f"Pass --to={' or --to='.join(having)}." if having else "No other original has it either."
    named = f"; the nearest, {found.model} {json.dumps(found.options)}, differs"
    shown = listing("ours and theirs", found.lines)
    raise ConversionError(
        f"{source} has no such network as {card.model}{named if found.distance < _NONE else ''}:{shown}\n"
        f"  {elsewhere}"
    )

"""The U-Nets of github.com/achaman2/truly_shift_invariant_cnns, for image-to-image tasks (CT and MRI).

There are U-Nets with APS, with BlurPool and with instance norm, and their baseline. Options are the arguments
of the constructors. The criterion of APS cannot be recognised from weights.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from aliasfree_jax.conversion.description import KIND, look, taps
from aliasfree_jax.conversion.entries import (
    CONV,
    POINTWISE,
    TRANSPOSED,
    Candidates,
    CodeBase,
    Entry,
    Options,
    batch_norm,
    blur_filter,
    check_options,
    chosen,
    linear,
)
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.models.unet import UNet

SOURCE = "truly_shift_invariant_cnns/unet"

# Original network -> our network, and its options besides `_COMMON`.
_APS, _LPF = {"filter_size", "apspool_criterion"}, {"filter_size", "sinc_mode"}
MODELS: dict[str, tuple[str, set[str]]] = {
    "unet_4down_aps": ("unet_aps", _APS),
    "unet_3down": ("unet_circular", {"bilinear"}),
    "unet_4down": ("unet_circular", {"bilinear"}),
    "unet_4down_instancenorm": ("unet_instance", {"bilinear"}),
    "unet_lpf": ("unet_blur", _LPF),
}
_COMMON = {"in_channels", "out_channels", "inner_channels_list", "padding_mode"}
_WIDTHS = (64, 128, 256, 512, 1024)
_PADDINGS = {"circular": "CIRCULAR", "zeros": "ZERO"}


def _widths(model: str, options: Options) -> tuple[int, ...]:
    """The width of each level. Raises `ConversionError` for widths that the original cannot join."""
    default = _WIDTHS[:-1] if "3down" in model else _WIDTHS
    widths = tuple(options.get("inner_channels_list", default))
    if "down" in model and len(widths) != len(default):
        raise ConversionError(f"{model} needs {len(default)} widths, got inner_channels_list={list(widths)}.")
    if any(2 * finer != coarser for finer, coarser in zip(widths, widths[1:], strict=False)):
        raise ConversionError(
            f"expected that each width is twice the width before, got inner_channels_list={list(widths)}: "
            f"the decoders of {SOURCE} halve the channels at each level."
        )
    return widths


def _named(model: str) -> str:
    """The name in `MODELS`. The original classes have capitals: UNet_4down_InstanceNorm."""
    if model.lower() == "unet_3down_aps":
        raise ConversionError(
            f"{model} of {SOURCE} cannot be converted: the original fails to build it, so no weights exist."
        )
    chosen(f"network of {SOURCE}", model.lower(), MODELS)
    return model.lower()


def translate(model: str, options: Options) -> tuple[str, dict[str, Any]]:
    """Translates a U-Net and its constructor's arguments to arguments of `create_model`."""
    model = _named(model)
    name, own = MODELS[model]
    check_options(f"{model} of {SOURCE}", options, _COMMON | own)
    mode = options.get("padding_mode", "circular")
    padding = chosen(f"padding_mode of {SOURCE}", mode, _PADDINGS)
    widths = _widths(model, options)
    ours: dict[str, Any] = {
        "num_classes": options.get("out_channels", 1),
        "widths": widths,
        "padding": padding,
    }
    # If convolutions pad with zeros, blurs reflect, as in the original's other networks.
    blur = {
        "name": "blur",
        "kernel_size": options.get("filter_size", 1),
        "padding": "CIRCULAR" if mode == "circular" else "REFLECT",
    }
    if options.get("sinc_mode", False):
        name = "unet_sinc"
    elif model == "unet_lpf":
        ours |= {"sampler": blur, "upsampler": {"name": "transposed", "inner": blur}}
    elif model == "unet_4down_aps":
        criterion = options.get("apspool_criterion", "l2")
        ours["sampler"] = {"name": "polyphase", "criterion": criterion, "inner": blur}
        ours["upsampler"] = {"name": "polyphase", "inner": blur, "gain": 1.0}
    elif options.get("bilinear", False):
        # No convolution follows. The last level has half the channels, as in milesial's U-Net.
        ours |= {"upsampler": "bilinear", "up_conv": False, "widths": (*widths[:-1], widths[-1] // 2)}
    return name, ours


def _convolutions(network: UNet, key: str, path: str) -> Iterator[Entry]:
    """A double convolution. A module before each convolution pads, except with zero padding."""
    with_norm = hasattr(network.norm(parent=None), "scale_init")
    before = 0 if network.padding == "ZERO" else 1
    for number in (1, 2):
        place = before + (number - 1) * (3 + before)
        yield from linear(f"{key}.{place}", f"{path}/conv{number}", CONV)
        if with_norm:
            yield from batch_norm(f"{key}.{place + 1}", f"{path}/norm{number}")


def _entries(network: UNet, model: str, options: Options) -> Iterator[Entry]:
    model = _named(model)
    aps, blurred = model == "unet_4down_aps", model == "unet_lpf"
    size = None if options.get("sinc_mode") or not (aps or blurred) else options.get("filter_size", 1)
    before = 3 if blurred else 2 - (network.padding == "ZERO")  # pad, max pool, blur
    yield from _convolutions(network, "inc.double_conv", "stage0_convs")
    widths = network.widths
    for stage in range(1, len(widths)):
        key = f"down{stage}.{'maxpool' if aps else 'maxpool_conv'}"
        if size:
            yield blur_filter(f"{key}.2.filt", widths[stage - 1], size)
        convs = f"down{stage}.double_conv" if aps else f"{key}.{before}"
        yield from _convolutions(network, f"{convs}.double_conv", f"stage{stage}_convs")
    for stage in reversed(range(len(widths) - 1)):
        key = f"up{len(widths) - 1 - stage}"
        if aps:
            yield blur_filter(f"{key}.up.0.filt", widths[stage + 1], size or 1)
            yield from linear(f"{key}.up.2", f"up{stage}/conv", CONV)
        elif network.up_conv:
            yield from linear(f"{key}.up{'.0' if blurred else ''}", f"up{stage}/conv", TRANSPOSED)
            if size:
                yield blur_filter(f"{key}.up.1.filt", widths[stage], size)
        yield from _convolutions(network, f"{key}.conv.double_conv", f"joined{stage}_convs")
    yield from linear("outc.conv", "head", POINTWISE)


def _candidates(network: Mapping[str, Any]) -> Candidates:
    words = {ours: theirs for theirs, ours in _PADDINGS.items()}
    bilinear = network.get("up_conv") is False
    widths = list(network["widths"]) if network[KIND] == "UNet" else list(_WIDTHS)
    widths[-1] *= 1 + bilinear
    common = {"inner_channels_list": widths, "padding_mode": words.get(network["padding"], "circular")}
    for model, (_, own) in MODELS.items():
        options: dict[str, Any] = dict(common)
        if "bilinear" in own:
            options["bilinear"] = bilinear
        if "apspool_criterion" in own:
            options["apspool_criterion"] = look(network["sampler"], "criterion", default="l2")
        if "filter_size" in own:
            options["filter_size"] = taps(network["sampler"])
        if model == "unet_lpf" or model.startswith(f"unet_{len(widths) - 1}down"):
            yield model, options
    yield "unet_lpf", {**common, "sinc_mode": True}


UNETS = CodeBase(
    SOURCE,
    translate,
    _entries,
    _candidates,
    filters="filter_size",
    no_filters="sinc_mode",
    classes="out_channels",
    channels="in_channels",
    task=lambda model: "regression",
)


def recognise_unet(state: Mapping[str, np.ndarray]) -> tuple[str, dict[str, Any]] | None:
    """Recognises a U-Net from keys and shapes.

    Returns:
      Name and options. None for weights of another network.
    """
    wrapped = "inc.double_conv.1.weight" in state and state["inc.double_conv.1.weight"].ndim == 4
    first = state.get(f"inc.double_conv.{int(wrapped)}.weight")
    if first is None or "outc.conv.weight" not in state:
        return None
    widths = [len(first)]
    kernels = {key: value for key, value in state.items() if key.endswith(".weight") and value.ndim == 4}
    while convs := [value for key, value in kernels.items() if key.startswith(f"down{len(widths)}.")]:
        widths.append(len(convs[0]))
    options: dict[str, Any] = {
        "in_channels": first.shape[1],
        "out_channels": len(state["outc.conv.weight"]),
        "inner_channels_list": widths,
        "padding_mode": "circular" if wrapped else "zeros",
    }
    filters = next((value for key, value in state.items() if key.endswith(".filt")), None)
    stated = {} if filters is None else {"filter_size": filters.shape[-1]}
    if "up1.up.2.weight" in state:
        return "unet_4down_aps", {**options, **stated}
    if "up1.up.0.weight" in state:
        return "unet_lpf", {**options, **(stated or {"sinc_mode": True})}
    if "up1.up.weight" not in state:
        widths[-1] *= 2
        options["bilinear"] = True
    normed = any(key.endswith("running_mean") for key in state)
    return f"unet_{len(widths) - 1}down{'' if normed else '_instancenorm'}", options

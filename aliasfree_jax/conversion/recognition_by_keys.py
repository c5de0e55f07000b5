"""Which network of the other code bases a state dict belongs to, read off its keys and shapes.

What leaves no trace has the originals' default: the criterion of APS, and of LPS what `lightning` cannot
find in the file either: the padding and what the samplers look at. APS and BlurPool networks for
CIFAR-10 have the same keys; they must be named.
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from aliasfree_jax.conversion import (
    antialiased_cnns,
    learnable_polyphase_sampling,
    truly_shift_invariant_cnns,
)
from aliasfree_jax.conversion.undecided import UndecidedError
from aliasfree_jax.conversion.weights import find_weights
from aliasfree_jax.models.resnet import CIFAR_SIZES, SIZES

State = Mapping[str, np.ndarray]
Original = tuple[str, str, dict[str, Any]]


def normalised(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The state dict in today's words.

    Without prefixes (`weights`), such as those of DataParallel, and without the masks of ideal filters
    (`rect`), which are made for one size of images; blur filters of 2019 (`ds.1.weight`) and DenseNet layers
    of 2017 (`norm.1.weight`) under their present names.
    """
    result: dict[str, np.ndarray] = {}
    arrays = {key: np.asarray(value) for key, value in state.items()}
    for key, value in find_weights(arrays).tensors.items() if arrays else ():
        if key.endswith(".rect"):
            continue
        key = re.sub(r"^features\.module\.", "features.", key)
        key = re.sub(r"\.ds\.1\.weight$", ".filt", key)
        key = re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key)
        result[key] = np.asarray(value)
    return result


def recognise_by_keys(state: State) -> Original | None:
    """(source, model, options) for `from_original`; None if the keys are of no such network.

    Raises:
      UndecidedError: a network for CIFAR-10 that may be two.
    """
    if "core.conv1.weight" in state:
        return _learned(state)
    if "layer1.0.bn1.weight" in state:
        return _resnet(state)
    return _chain(state)


def _filter_size(state: State) -> int | None:
    return next((value.shape[-1] for key, value in state.items() if key.endswith("filt")), None)


def _size(state: State, prefix: str = "") -> str | None:
    """The ResNet with these depths and shapes."""

    def shape(pattern: str) -> tuple[int, ...]:
        return next(value.shape for key, value in state.items() if re.fullmatch(pattern, key))

    state = {key.removeprefix(prefix): value for key, value in state.items()}
    depths: list[int] = []
    while blocks := {m[1] for k in state if (m := re.match(rf"layer{len(depths) + 1}\.(\d+)\.", k))}:
        depths.append(len(blocks))
    bottleneck = "layer1.0.bn3.weight" in state
    found: dict[str, Any] = {"block": "bottleneck" if bottleneck else "basic", "depths": tuple(depths)}
    if bottleneck:
        width, within = shape(r"layer1\.0\.conv2(\.1)?\.weight")[:2]
        if width != within:
            found |= {"groups": width // within, "group_width": within}
        elif width != 64:
            found |= {"group_width": width}
    if len(depths) == 3:
        small = {name: size for name, size in CIFAR_SIZES.items() if size["depths"] == tuple(depths)}
        return next((name.removesuffix("_cifar") for name in small), None)
    return next((name for name, size in SIZES.items() if size == found), None)


def _resnet(state: State) -> Original | None:
    size, taps = _size(state), _filter_size(state)
    wrapped = "conv1.1.weight" in state
    stem = state["conv1.1.weight" if wrapped else "conv1.weight"]
    if size is None or stem.ndim != 4:  # conv1.1 is a norm in networks with a stem of three convolutions
        return None
    if stem.shape[-1] == 3:
        return _cifar(size, taps, "circular" if wrapped else "zeros")
    if wrapped:
        adaptive = "layer2.0.conv2.1.1.weight" not in state and "layer2.0.conv3.1.weight" not in state
        options = {"filter_size": taps or 1, "pool_only": "maxpool.2.filt" in state}
        name = f"{size}_{'aps' if adaptive else 'lpf'}"
        known = name in truly_shift_invariant_cnns.IMAGENET
        return (truly_shift_invariant_cnns.SOURCE, name, options) if known else None
    if taps is None:
        return antialiased_cnns.TORCHVISION, size, {}
    return antialiased_cnns.SOURCE, size, {"filter_size": taps, "pool_only": "maxpool.0.filt" not in state}


def _cifar(size: str, taps: int | None, padding: str) -> Original:
    source = truly_shift_invariant_cnns.CIFAR_SOURCE
    if taps is not None:
        raise UndecidedError(
            f"this is a {size} for CIFAR-10 of {source}, with APS ({size}_aps) or BlurPool ({size}_lpf): "
            "their files are alike.",
            {
                "source": source,
                "model": f"{size}_aps",
                "options": {"filter_size": taps, "conv_pad_type": padding},
            },
        )
    return source, size, {"conv_pad_type": padding}


def _chain(state: State) -> Original | None:
    """AlexNet, VGG, DenseNet and MobileNet-v2: by the shapes of their parameters."""
    taps = _filter_size(state)
    source = antialiased_cnns.TORCHVISION if taps is None else antialiased_cnns.SOURCE
    options: dict[str, Any] = {} if taps is None else {"filter_size": taps}
    name = next((name for name in antialiased_cnns.CHAINS if _is(name, state)), None)
    if name is None:
        return None
    if taps is not None and name == "alexnet":
        options["pool_only"] = "features.5.weight" not in state
        options["relu_first"] = "features.1.filt" not in state
    elif taps is not None and name.startswith("densenet"):
        options["pool_only"] = "features.ds0.filt" not in state
    return source, name, options


def _is(name: str, state: State) -> bool:
    """Whether the first kernel, the number of kernels and the kind of norm are those of the network."""
    keys = ("features.0.weight", "features.conv0.weight", "features.0.0.weight")
    first = next((state[key].shape for key in keys if key in state), None)
    table = antialiased_cnns.table_torchvision(name, {})
    kernels = sum(entry.path.endswith("kernel") for entry in table)
    norms = sum(entry.key.endswith("running_mean") for entry in table)
    return (
        first == _first(name)
        and kernels == sum(key.endswith("weight") and value.ndim > 1 for key, value in state.items())
        and norms == sum(key.endswith("running_mean") for key in state)
    )


def _first(name: str) -> tuple[int, ...]:
    if name == "alexnet":
        return (64, 3, 11, 11)
    if name.startswith("vgg"):
        return (64, 3, 3, 3)
    if name == "mobilenet_v2":
        return (32, 3, 3, 3)
    return (96 if name == "densenet161" else 64, 3, 7, 7)


def _learned(state: State) -> Original | None:
    size = _size(state, "core.")
    if size is None:
        return None
    options: dict[str, Any] = {"inc_conv1_support": state["core.conv1.weight"].shape[-1] == 7}
    last = 2 if "core.layer1.0.bn3.weight" not in state else 3
    options["swap_conv_pool"] = f"core.layer2.0.conv{last}.0.weight" in state
    if options["inc_conv1_support"]:
        options["conv1_stride"] = not any(key.startswith("core.maxpool.3.") for key in state)
    logits = _logits(state)
    options |= {"pool": "LPS", **logits} if logits else {"pool": "max_2_norm"}
    shortcut = "core.layer2.0.downsample.0._antialias_layer"
    if f"{shortcut}.filt" in state:
        options["antialias"] = ["LowPassFilter", state[f"{shortcut}.filt"].shape[-1], "circular"]
    elif f"{shortcut}.conv.weight" in state:
        outputs, _, _, taps = state[f"{shortcut}.conv.weight"].shape
        options["antialias"] = ["DDAC", taps, "circular", outputs // taps**2]
    model = next(m for m, name in learnable_polyphase_sampling.MODELS.items() if name == size)
    return learnable_polyphase_sampling.SOURCE, model, options


def _logits(state: State) -> dict[str, Any]:
    """Kind and widths of the logits networks; empty where there are none."""
    found = {
        key.split("get_logits.")[1]: value
        for key, value in state.items()
        if re.match(r"core\.layer2\.0\.conv[23]\.[01]\.component_selection\.get_logits\.", key)
    }
    kinds = {
        "conv1.weight": "LPSLogitLayers",
        "_phi.2.weight": "SAInner_bn",
        "_phi.0.weight": "SAInner",
        "input_conv.0.weight": "GraphLogitLayers",
        "perceptron.weight": "ComponentPerceptron",
    }
    key = next((key for key in kinds if key in found), None)
    if key is None:
        return {}
    if key == "perceptron.weight":
        return {"logits": kinds[key]}
    first = found["_phi.0.weight" if key.startswith("_phi") else key]
    ratio = first.shape[0] / first.shape[1]
    widths = {name: round(width * ratio) for name, width in learnable_polyphase_sampling.WIDTHS.items()}
    return {"logits": kinds[key], "logits_channels": widths}

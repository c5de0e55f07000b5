"""Recognises an original's network from the keys and shapes of a state dict.

Sizes, activation and stem can be read. Other choices leave no trace in the weights:

- scales of polynomials that are not learned, cutoffs and the kind of norm are taken from the published
  training commands;
- the criterion of APS, and for LPS the padding and the map that samplers score, have the original's default,
  unless `undecided` finds them in the file.

Pass the network and its options for weights with other choices. APS and BlurPool networks for CIFAR-10 have
the same keys, so they must be named.
"""

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from aliasfree_jax.conversion.antialiased_cnns import MODELS
from aliasfree_jax.conversion.code_bases import AFC, BLURPOOL, CIFAR_APS, IMAGENET_APS, LPS, PLAIN, TIMM
from aliasfree_jax.conversion.learnable_polyphase_sampling import MODELS as LPS_MODELS
from aliasfree_jax.conversion.learnable_polyphase_sampling import WIDTHS
from aliasfree_jax.conversion.lps_deeplab import NAME, UNPOOLS
from aliasfree_jax.conversion.timm_resnet import recognise_timm_resnet
from aliasfree_jax.conversion.truly_shift_invariant_cnns import IMAGENET
from aliasfree_jax.conversion.undecided import UndecidedError
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.models.resnet import CIFAR_SIZES, SIZES

State = Mapping[str, np.ndarray]
Original = tuple[str, str, dict[str, Any]]

_SCALES = {"in_scale": 7, "out_scale": 7, "train_scale": True}


def recognise_original(state_dict: State) -> Original:
    """Returns source, model and options of the original with these keys and shapes.

    Raises:
      UndecidedError: Several networks have these keys and shapes.
      KeyError: A needed key is missing.
      ValueError: A shape does not fit.
      IndexError: A shape has too few axes.
      StopIteration: No key matches a needed pattern.
    """
    if "core.conv1.weight" in state_dict:
        other = _learned(state_dict, "core.")
    elif "backbone.conv1.weight" in state_dict:
        other = _deeplab(state_dict)
    elif "layer1.0.bn1.weight" in state_dict:
        other = _resnet(state_dict) or _timm_resnet(state_dict)
    else:
        other = _chain(state_dict)
    if other is not None:
        return other
    sizes = _sizes(state_dict)
    model, options = _convnext(state_dict)
    return AFC.source, model, {**sizes, **options}


def _count(keys: Iterable[str], pattern: str) -> int:
    return len({match[1] for key in keys if (match := re.match(pattern, key))})


def _sizes(state: State) -> dict[str, Any]:
    stages = _count(state, r"stages\.(\d+)\.")
    if not stages:
        raise KeyError("stages.*")
    return {
        "in_chans": _stem_kernel(state).shape[1],
        "num_classes": state["head.weight"].shape[0],
        "depths": [_count(state, rf"stages\.{stage}\.(\d+)\.") for stage in range(stages)],
        "dims": [state[f"stages.{stage}.0.norm.weight"].shape[0] for stage in range(stages)],
    }


def _stem_kernel(state: State) -> np.ndarray:
    circular = "downsample_layers.0.0.1.weight"
    return state[circular] if circular in state else state["downsample_layers.0.0.weight"]


def _convnext(state: State) -> tuple[str, dict[str, Any]]:
    """Model and options except the sizes."""
    if "downsample_layers.0.0.weight" in state:  # no padding module before the convolution
        if "stages.0.0.act.coef" not in state:
            return "convnext", {}
        return "convnext_poly", {"activation": "poly_per_channel", **_scales(state, "stages.0.0.act")}
    if "stages.0.0.mlp.pwconv1.weight" in state:
        return "convnext_afc", _afc(state)
    if "downsample_layers.0.3.weight" in state:
        filters = state.get("downsample_layers.0.1.filt")
        return "convnext_aps", {"blurpool_kwargs": {"filt_size": 1 if filters is None else filters.shape[-1]}}
    return "convnext_circ", {}


def _scales(state: State, prefix: str) -> dict[str, Any]:
    return {"activation_kwargs": _SCALES} if f"{prefix}.in_scale" in state else {}


def _afc(state: State) -> dict[str, Any]:
    filters = next((v for k, v in state.items() if k.endswith(".filt.filt")), None)
    blurpool = {"filter_type": "ideal"} if filters is None else {"filt_size": filters.shape[-1]}
    options: dict[str, Any] = {"blurpool_kwargs": {**blurpool, "scale_l2": False}}
    if "stages.0.0.mlp.act.coef" in state:
        options |= {
            "activation": "up_poly_per_channel",
            "normalization_type": "CHW2",
            **_scales(state, "stages.0.0.mlp.act"),
        }
    residual, plain = "downsample_layers.0.1.residual.0", "downsample_layers.0.1"
    for prefix, mode in ((residual, "activation_residual"), (plain, "activation")):
        if f"{prefix}.coef" in state:
            scales = _SCALES if f"{prefix}.in_scale" in state else {}
            options |= {
                "stem_mode": mode,
                "stem_activation": "lpf_poly_per_channel",
                "stem_activation_kwargs": {**scales, "cutoff": 0.75},
            }
    return options


def _filter_size(state: State) -> int | None:
    return next((value.shape[-1] for key, value in state.items() if key.endswith("filt")), None)


def _size(state: State, prefix: str = "") -> str | None:
    """Name of the ResNet with these depths and shapes."""

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
    if size is None or stem.ndim != 4:  # with a stem of three convolutions, conv1.1 is a norm
        return None
    if stem.shape[-1] == 3:
        return _cifar(size, taps, "circular" if wrapped else "zeros")
    if wrapped:
        adaptive = "layer2.0.conv2.1.1.weight" not in state and "layer2.0.conv3.1.weight" not in state
        options = {"filter_size": taps or 1, "pool_only": "maxpool.2.filt" in state}
        name = f"{size}_{'aps' if adaptive else 'lpf'}"
        known = name in IMAGENET
        return (IMAGENET_APS.source, name, options) if known else None
    if taps is None:
        return PLAIN.source, size, {}
    return BLURPOOL.source, size, {"filter_size": taps, "pool_only": "maxpool.0.filt" not in state}


def _timm_resnet(state: State) -> Original | None:
    """A ResNet of timm with other sizes or stems than torchvision's."""
    found = recognise_timm_resnet(state)
    return found and (TIMM.source, *found)


def _cifar(size: str, taps: int | None, padding: str) -> Original:
    source = CIFAR_APS.source
    if taps is not None:
        raise UndecidedError(
            f"this is a {size} for CIFAR-10 of {source}, with APS ({size}_aps) or BlurPool ({size}_lpf). "
            "Both have the same tensors.",
            {
                "source": source,
                "model": f"{size}_aps",
                "options": {"filter_size": taps, "conv_pad_type": padding},
            },
        )
    return source, size, {"conv_pad_type": padding}


def _chain(state: State) -> Original | None:
    """AlexNet, VGG, DenseNet or MobileNet-v2, by the numbers of kernels and norms, and the first kernel."""
    keys = ("features.0.weight", "features.conv0.weight", "features.0.0.weight")
    first = next((state[key].shape for key in keys if key in state), None)
    if first is None:
        return None
    kernels = sum(key.endswith("weight") and value.ndim > 1 for key, value in state.items())
    name = _chains().get((kernels, sum(key.endswith("running_mean") for key in state)))
    if name is None or first != _first(name):
        return None
    taps = _filter_size(state)
    if taps is None:
        return PLAIN.source, name, {}
    options: dict[str, Any] = {"filter_size": taps}
    if name == "alexnet":
        options["pool_only"] = "features.5.weight" not in state
        options["relu_first"] = "features.1.filt" not in state
    elif name.startswith("densenet"):
        options["pool_only"] = "features.ds0.filt" not in state
    return BLURPOOL.source, name, options


@functools.cache
def _chains() -> dict[tuple[int, int], str]:
    """The networks by their numbers of kernels and norms. No two are equal."""
    found = {}
    for name in MODELS:
        if name not in SIZES:
            entries = PLAIN.table(name, {})
            kernels = sum(entry.path.endswith("kernel") for entry in entries)
            found[kernels, sum(entry.key.endswith("running_mean") for entry in entries)] = name
    return found


def _first(name: str) -> tuple[int, ...]:
    if name == "alexnet":
        return (64, 3, 11, 11)
    if name.startswith("vgg"):
        return (64, 3, 3, 3)
    if name == "mobilenet_v2":
        return (32, 3, 3, 3)
    return (96 if name == "densenet161" else 64, 3, 7, 7)


def _learned(state: State, prefix: str) -> Original | None:
    size = _size(state, prefix)
    if size is None:
        return None
    options: dict[str, Any] = {"inc_conv1_support": state[f"{prefix}conv1.weight"].shape[-1] == 7}
    last = 2 if f"{prefix}layer1.0.bn3.weight" not in state else 3
    options["swap_conv_pool"] = f"{prefix}layer2.0.conv{last}.0.weight" in state
    if options["inc_conv1_support"]:
        options["conv1_stride"] = any(key.startswith(f"{prefix}maxpool.2.") for key in state)
    logits = _logits(state, prefix)
    options |= {"pool": "LPS", **logits} if logits else {"pool": "max_2_norm"}
    shortcut = f"{prefix}layer2.0.downsample.0._antialias_layer"
    if f"{shortcut}.filt" in state:
        options["antialias"] = ["LowPassFilter", state[f"{shortcut}.filt"].shape[-1], "circular"]
    elif f"{shortcut}.conv.weight" in state:
        outputs, _, _, taps = state[f"{shortcut}.conv.weight"].shape
        options["antialias"] = ["DDAC", taps, "circular", outputs // taps**2]
    model = next(m for m, name in LPS_MODELS.items() if name == size)
    return LPS.source, model, options


def _deeplab(state: State) -> Original | None:
    """A DeepLabV3+ of LPS."""
    if any(key.startswith("classifier.classifier.0.convs.") for key in state):
        raise ConversionError(
            f"these are weights of a DeepLabV3, which has no decoder. The only segmentation network of "
            f"{LPS.source} that can be read is DeepLabV3+."
        )
    if (found := _learned(state, "backbone.")) is None:
        return None
    source, backbone, options = found
    model, unpool = NAME.format(backbone), UNPOOLS[options["pool"]]
    written_back = any(key.startswith("classifier.unpool.") for key in state)
    traced = "antialias" in options or any(key.endswith("gumbel_tau") for key in state)
    if not written_back and not traced and not options["conv1_stride"]:
        raise UndecidedError(
            f"this {model} of {source} does not show how it enlarges its maps: by bilinear interpolation "
            f"(unpool null), or by the unpool {unpool!r}.",
            {"source": source, "model": model, "options": {**options, "unpool": unpool}},
        )
    options["unpool"] = unpool if written_back else None
    if (filters := state.get("unpool.0._antialias_layer.filt")) is not None:
        options["unpool_antialias_scale"] = round(float(filters[0].sum()) ** 0.5)
    return source, model, options


def _logits(state: State, prefix: str) -> dict[str, Any]:
    """Kind and widths of the logits networks. Empty without them."""
    found = {
        key.split("get_logits.")[1]: value
        for key, value in state.items()
        if re.match(rf"{prefix}layer2\.0\.conv[23]\.[01]\.component_selection\.get_logits\.", key)
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
    widths = {name: round(width * ratio) for name, width in WIDTHS.items()}
    return {"logits": kinds[key], "logits_channels": widths}

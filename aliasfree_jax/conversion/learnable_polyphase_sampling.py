"""The ResNets of github.com/raymondyeh07/learnable_polyphase_sampling.

Options are the flags of its command line, under the names in its checkpoints' hyper-parameters:

- `pool` ("LPS" or "max_2_norm"), `logits`, `logits_channels`, `logits_pad`;
- `antialias`: kind, size, padding, groups;
- `padding_mode`, `swap_conv_pool`, `conv1_stride`, `maxpool_zpad`, `selection_noantialias`;
- `inc_conv1_support` and `apply_maxpool`: both false for CIFAR;
- `LPS_train_convex`, `LPS_convex`, `LPS_gumbel`. The temperature of the last two, `gumbel_tau`, is read from
  the weights.

The original network ends with a log-softmax, this package's network with the logits.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import flax.linen as nn
import numpy as np

from aliasfree_jax.conversion.cnn_entries import Style, resnet
from aliasfree_jax.conversion.description import KIND, look
from aliasfree_jax.conversion.entries import (
    CONV,
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
from aliasfree_jax.errors import ConversionError, unknown
from aliasfree_jax.models.resnet import ResNet

SOURCE = "learnable_polyphase_sampling"

MODELS = {"ResNet18Custom": "resnet18", "ResNet50Custom": "resnet50", "ResNet101Custom": "resnet101"}
MODELS["BasicClassifier"] = "basic"
PADDINGS = {
    "circular": "CIRCULAR",
    "zeros": "ZERO",
    "zero": "ZERO",
    "constant": "ZERO",
    "reflect": "REFLECT",
    "replicate": "REPLICATE",
}
LOGITS: dict[str, Options] = {
    "LPSLogitLayers": {"name": "conv"},
    "LPSLogitLayersSkip": {"name": "conv", "skip": True},
    "SAInner": {"name": "attention"},
    "SAInner_bn": {"name": "attention", "batch_norm": True},
    "GraphLogitLayers": {"name": "graph"},
    "ComponentPerceptron": {"name": "linear"},
}
WIDTHS = {"maxpool": 64, "layer2": 128, "layer3": 256, "layer4": 512}
LEGAL = frozenset(
    "pool logits logits_channels logits_pad antialias padding_mode swap_conv_pool inc_conv1_support "
    "apply_maxpool conv1_stride maxpool_zpad selection_noantialias LPS_train_convex LPS_convex LPS_gumbel "
    "gumbel_tau forward_pool_method num_classes".split()
)


def _width_ratio(options: Options) -> float:
    channels = options.get("logits_channels") or WIDTHS
    ratios = {channels[name] / width for name, width in WIDTHS.items() if name in channels}
    if len(ratios) != 1:
        raise ConversionError(
            f"logits_channels {channels} is not supported: expected the same multiple of all of {WIDTHS}."
        )
    return ratios.pop()


def temperature(state_dict: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Reads the option `gumbel_tau` from the weights. All samplers share it. Empty if the weights lack it.

    Raises:
      ConversionError: The samplers have different temperatures.
    """
    found = {float(value) for key, value in state_dict.items() if key.endswith(".gumbel_tau")}
    if len(found) > 1:
        raise ConversionError(
            f"the samplers have different temperatures gumbel_tau: {sorted(found)}. Expected a single one."
        )
    return {"gumbel_tau": found.pop()} if found else {}


def filter_part(options: Options) -> dict[str, Any]:
    """Translates the option `antialias` to a sampler's filter."""
    antialias = options.get("antialias")
    if antialias is None:
        return {"name": "subsample"}
    kind, size, mode = antialias[:3]
    padding = chosen(f"antialias padding of {SOURCE}", mode, PADDINGS)
    if kind == "LowPassFilter":
        return {"name": "blur", "kernel_size": size, "padding": padding}
    if kind == "DDAC":
        return {"name": "adaptive_blur", "kernel_size": size, "padding": padding, "groups": antialias[3]}
    raise ConversionError(unknown(f"antialias of {SOURCE}", kind, ("LowPassFilter", "DDAC")))


def sampler(options: Options, antialias: bool = True) -> dict[str, Any]:
    """Translates the command line's flags to a sampler for `create_model`."""
    pool = options.get("pool", "LPS")
    part: dict[str, Any] = {"inner": filter_part(options) if antialias else {"name": "subsample"}}
    if options.get("selection_noantialias"):
        part["select_on"] = "raw"
    if pool == "max_2_norm":
        return {"name": "polyphase", "tie_order": "rows", "odd_padding": "ZERO", **part}
    if pool != "LPS":
        raise ConversionError(unknown(f"pool of {SOURCE}", pool, ("LPS", "max_2_norm")))
    logits = dict(chosen(f"logits of {SOURCE}", options.get("logits", "LPSLogitLayers"), LOGITS))
    logits["padding"] = chosen(f"logits_pad of {SOURCE}", options.get("logits_pad", "circular"), PADDINGS)
    logits["width_ratio"] = _width_ratio(options)
    if options.get("LPS_train_convex"):
        part["noise"] = False
    if options.get("LPS_convex") or options.get("LPS_gumbel"):
        part["evaluation"] = "convex" if options.get("LPS_convex") else "noisy"
        part["evaluation_temperature"] = float(options.get("gumbel_tau", 1.0))
    return {"name": "learned_polyphase", "logits": logits, **part}


def translate(model: str, options: Options) -> tuple[str, dict[str, Any]]:
    """Translates a network and its flags to arguments of `create_model`.

    Raises:
      ConversionError: The network, an option or a value is unknown.
    """
    check_options(SOURCE, options, LEGAL)
    size = chosen(f"network of {SOURCE}", model, MODELS)
    ours: dict[str, Any] = {
        "num_classes": options.get("num_classes", 10),
        "padding": chosen(f"padding_mode of {SOURCE}", options.get("padding_mode", "circular"), PADDINGS),
        "sampler": sampler(options),
    }
    if size == "basic":
        return size, ours
    ours["sampler_position"] = "after" if options.get("swap_conv_pool", True) else "before"
    if not options.get("inc_conv1_support", True):
        if options.get("apply_maxpool", False):
            raise ConversionError(
                "a CIFAR network (inc_conv1_support false) with apply_maxpool is not supported."
            )
        return f"{size}_cifar_lps", ours
    ours["stem"] = {
        "name": "image",
        "strided": options.get("conv1_stride", False),
        "pool_padding": "ZERO" if options.get("maxpool_zpad", False) else "CIRCULAR",
        "first_sampler": sampler(options, antialias=False),
    }
    return f"{size}_lps", ours


def _logits(key: str, path: str, kind: str) -> Iterator[Entry]:
    """Entries of the logits network at `key`. `path` ends in "logits0"."""
    if kind in ("LPSLogitLayers", "LPSLogitLayersSkip"):
        for name in ("conv1", "conv2"):
            yield from linear(f"{key}.{name}", f"{path}/{name}", CONV)
    elif kind in ("SAInner", "SAInner_bn"):
        for name in ("phi", "psi", "beta"):
            yield Entry(f"{key}._{name}.0.weight", f"params/{path}/{name}_conv1/kernel", CONV)
            if kind == "SAInner_bn":
                yield from batch_norm(f"{key}._{name}.2", f"{path}/{name}_norm")
            else:
                yield Entry(f"{key}._{name}.0.bias", f"params/{path}/{name}_conv1/bias")
            yield from linear(f"{key}._{name}.3", f"{path}/{name}_conv2", CONV)
    elif kind == "GraphLogitLayers":
        yield from linear(f"{key}.input_conv.0", f"{path}/input_conv", CONV)
        for name, ours in (("edge_network", "edge"), ("out_network", "out")):
            for index, number in ((0, 1), (2, 2)):
                yield from linear(f"{key}.{name}.{index}", f"{path}/{ours}{number}")
    else:
        yield from linear(f"{key}.perceptron", f"{path}/perceptron", CONV)


def pool_entries(options: Options, *, selects: bool, filters: bool) -> Any:
    """Entries of a `PolyphaseInvariantDown2D`.

    Args:
      options: Flags of the network.
      selects: Whether it selects a phase. Shortcuts do not.
      filters: Whether it filters. The first pool does not.
    """
    antialias = options.get("antialias") if filters else None

    def pool(key: str, path: str, channels: int) -> Iterator[Entry]:
        if options.get("pool", "LPS") == "LPS":
            tau = np.full((), options.get("gumbel_tau", 1), np.float32)
            yield Entry(f"{key}.component_selection.gumbel_tau", constant=tau, free=True)
            if selects:
                kind = options.get("logits", "LPSLogitLayers")
                yield from _logits(f"{key}.component_selection.get_logits", f"{path}/logits0", kind)
        if antialias and antialias[0] == "LowPassFilter":
            yield blur_filter(f"{key}._antialias_layer.filt", channels, antialias[1])
        elif antialias:
            yield Entry(f"{key}._antialias_layer.conv.weight", f"params/{path}/inner0/conv/kernel", CONV)
            yield from batch_norm(f"{key}._antialias_layer.bn", f"{path}/inner0/norm")

    return pool


def _basic(pool: Any) -> Iterator[Entry]:
    for number in range(4):
        yield from linear(f"conv{number + 1}", f"stage{number // 2}_conv{number % 2 + 1}", CONV)
    for number, width in enumerate((32, 64)):
        yield from pool(f"pool{number + 1}", f"stage{number}_sampler", width)
    yield from linear("fc", "head")


def _entries(network: nn.Module, model: str, options: Options) -> Iterator[Entry]:
    if not isinstance(network, ResNet):
        return _basic(pool_entries(options, selects=True, filters=True))
    return resnet(network, style(options, "core."))


def style(options: Options, prefix: str) -> Style:
    """Returns the tensor names of the ResNets, after a prefix."""
    pool = pool_entries(options, selects=True, filters=True)
    shortcut = pool_entries(options, selects=False, filters=True)
    found = Style(prefix, pool=pool, shortcut_pool=shortcut)
    if not options.get("inc_conv1_support", True):
        return found
    strided = options.get("conv1_stride", False)
    first = None if strided else pool_entries(options, selects=True, filters=False)
    return replace(found, first_pool=first, stem_pool="maxpool.2" if strided else "maxpool.3")


def zeros_word(padding: str, theirs: str = "zeros") -> str:
    """Returns the original's word for a padding. It has three words for zeros: `theirs` chooses one."""
    return theirs if padding == "ZERO" else padding.lower()


def _logits_options(sampler: Mapping[str, Any]) -> dict[str, Any]:
    part = sampler["logits"]
    name = part[KIND].removesuffix("Logits").lower()
    flagged = bool(part.get("skip") or part.get("batch_norm"))
    same = (their for their, ours in LOGITS.items() if ours["name"] == name and (len(ours) > 1) == flagged)
    return {
        "logits": next(same, "LPSLogitLayers"),
        "logits_pad": zeros_word(part["padding"]),
        "logits_channels": {name: round(width * part["width_ratio"]) for name, width in WIDTHS.items()},
        "LPS_convex": sampler["evaluation"] == "convex",
        "LPS_gumbel": sampler["evaluation"] == "noisy",
    }


def options_of(network: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the flags of the original network that may equal a described classifier or backbone."""
    sampler, stem = network["sampler"], look(network, "stem", default={})
    options: dict[str, Any] = {"padding_mode": zeros_word(network["padding"])}
    options["pool"] = "LPS" if sampler[KIND] == "LearnedPolyphase" else "max_2_norm"
    options["selection_noantialias"] = look(sampler, "select_on") == "raw"
    inner = look(sampler, "inner", default={})
    if look(inner, KIND) == "BlurPool":
        options["antialias"] = [
            "LowPassFilter",
            inner["kernel_size"],
            zeros_word(inner["padding"], "constant"),
        ]
    elif look(inner, KIND) == "AdaptiveBlurPool":
        options["antialias"] = ["DDAC", inner["kernel_size"], inner["padding"].lower(), inner["groups"]]
    if "logits" in sampler:
        options |= _logits_options(sampler)
    if network[KIND] == "ResNet":
        options["swap_conv_pool"] = network["sampler_position"] == "after"
        options["inc_conv1_support"] = stem[KIND] != "SmallStem"
        options["conv1_stride"] = bool(stem.get("strided"))
        options["maxpool_zpad"] = stem.get("pool_padding") == "ZERO"
    return options


def _candidates(network: Mapping[str, Any]) -> Candidates:
    yield from ((model, options_of(network)) for model in MODELS)


LPS_CLASSIFIERS = CodeBase(SOURCE, translate, _entries, _candidates)

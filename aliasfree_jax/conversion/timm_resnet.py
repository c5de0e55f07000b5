"""The ResNets of timm: translation and recognition. Their keys are those of torchvision.

The weights of resnet50, resnetblur50 and resnetaa50 have the same keys and shapes. Weights without the name
of an architecture are read as torchvision's.
"""

import fnmatch
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from aliasfree_jax.conversion.cnn_entries import ResNetNames, Style, resnet
from aliasfree_jax.conversion.description import KIND, look
from aliasfree_jax.conversion.entries import Candidates, CodeBase, Entry, Options
from aliasfree_jax.conversion.fields import (
    ACTIVATIONS,
    GLOBAL_POOLS,
    Fields,
    Only,
    activation_word,
    check_stages,
    pool_word,
)
from aliasfree_jax.conversion.resnet_dialects import WIDTHS, sized
from aliasfree_jax.errors import ConversionError, unknown
from aliasfree_jax.models.resnet import VARIANTS, ResNet

# The blocks of each depth, and the arguments of the letter after it.
_DEPTHS = {
    "10": ("basic", (1, 1, 1, 1)),
    "14": ("bottleneck", (1, 1, 1, 1)),
    "18": ("basic", (2, 2, 2, 2)),
    "26": ("bottleneck", (2, 2, 2, 2)),
    "34": ("basic", (3, 4, 6, 3)),
    "50": ("bottleneck", (3, 4, 6, 3)),
    "101": ("bottleneck", (3, 4, 23, 3)),
    "152": ("bottleneck", (3, 8, 36, 3)),
    "200": ("bottleneck", (3, 24, 36, 3)),
}
_LETTERS: dict[str, Options] = {
    "": {},
    "c": {"stem_type": "deep", "stem_width": 32},
    "d": {"stem_type": "deep", "stem_width": 32, "avg_down": True},
    "s": {"stem_type": "deep", "stem_width": 64},
    "t": {"stem_type": "deep_tiered", "stem_width": 32, "avg_down": True},
}
_NAMES = """
resnet10t resnet14t resnet18 resnet18d resnet26 resnet26d resnet26t resnet34 resnet34d
resnet50 resnet50c resnet50d resnet50s resnet50t resnet101 resnet101c resnet101d resnet101s
resnet152 resnet152c resnet152d resnet152s resnet200 resnet200d wide_resnet50_2 wide_resnet101_2
resnext50_32x4d resnext50d_32x4d resnext101_32x4d resnext101_32x8d resnext101_32x16d resnext101_32x32d
resnext101_64x4d resnetblur18 resnetblur50 resnetblur50d resnetblur101d
resnetaa34d resnetaa50 resnetaa50d resnetaa101d
""".split()
_NAME = re.compile(r"(?:wide_)?res(net|next|netblur|netaa)(\d+)([cdst]?)(?:_(\d+)(?:x(\d+)d)?)?")
_NORM = re.compile(r"layer(\d{1,4})\.(\d{1,4})\.bn([1-3])\.(?:weight|bias|running_mean|running_var)")
# Patterns of architectures that cannot be converted, with the unsupported part.
_LACKING = {
    "resnetv2_*": "norms before its convolutions",
    "resnetrs*": "channel attention",
    "*_gn": "group norms",
    "se*res*": "channel attention",
    "eca*res*": "channel attention",
    "res2ne*": "convolutions of several scales in a block",
    "resnest*": "split attention",
    "test_resnet*": "blocks of two kinds",
}


def _arguments(name: str) -> dict[str, Any]:
    """Parses an architecture's name: its arguments, its "block" and its "antialias"."""
    match = _NAME.fullmatch(name)
    assert match is not None
    kind, depth, letter, first, second = match.groups()
    block, layers = _DEPTHS[depth]
    arguments = {"block": block, "layers": layers, "antialias": kind.removeprefix("net"), **_LETTERS[letter]}
    if kind == "next":
        arguments |= {"antialias": "", "cardinality": int(first), "base_width": int(second)}
    elif first:
        arguments["base_width"] = 64 * int(first)
    return arguments


_ARCHITECTURES = {name: _arguments(name) for name in _NAMES}
_DEFAULTS: dict[str, Any] = {
    "num_classes": 1000,
    "global_pool": "avg",
    "layers": (),
    "channels": WIDTHS,
    "cardinality": 1,
    "base_width": 64,
    "stem_type": "",
    "stem_width": 64,
    "avg_down": False,
    "act_layer": "relu",
}

_IMAGE_STEM = VARIANTS[""]["stem"]
# The first pool drops an incomplete window at the end of an odd map, the second one averages it.
_AVERAGE, _WHOLE_AVERAGE = (
    {"name": "blur", "kernel_size": 2, "padding": padding} for padding in ("VALID", "REPLICATE")
)
# Anti-aliasing -> sampler, stem and the value of the argument `aa_layer`.
_ANTIALIAS: dict[str, tuple[Options | None, Options, str | None]] = {
    "": (None, _IMAGE_STEM, None),
    "blur": ({"name": "blur", "kernel_size": 3, "padding": "REFLECT"}, _IMAGE_STEM, "blurpool"),
    "aa": (_AVERAGE, {"name": "image", "strided": True, "pool_size": 1}, "avgpool"),
}


def _fields(model: str) -> Fields:
    lacking = next((what for pattern, what in _LACKING.items() if fnmatch.fnmatch(model, pattern)), None)
    if lacking is not None:
        raise ConversionError(f"timm's {model} has {lacking}. No network of this package has that.")
    if model not in _ARCHITECTURES:
        raise ConversionError(unknown("ResNet of timm", model, _ARCHITECTURES))
    named = _ARCHITECTURES[model]
    return Fields(
        translated={field: named.get(field, default) for field, default in _DEFAULTS.items()},
        without_effect={
            *("in_chans", "drop_rate", "drop_path_rate", "drop_block_rate", "zero_init_last"),
            *("device", "dtype"),
        },
        only={
            "global_pool": Only(tuple(GLOBAL_POOLS), "another pooling"),
            "act_layer": Only(tuple(ACTIVATIONS), "another activation"),
            "stem_type": Only(("", "deep", "deep_tiered"), "another stem"),
            "aa_layer": Only((_ANTIALIAS[named["antialias"]][2],), "another sampling"),
            "norm_layer": Only(("batchnorm2d", "batchnorm"), "another norm"),
            "output_stride": Only((32,), "dilated convolutions"),
            "replace_stem_pool": Only((False,), "a convolution in place of its stem's pool"),
            "block_reduce_first": Only((1,), "narrower convolutions in its blocks"),
            "down_kernel_size": Only((1,), "larger convolutions in its shortcuts"),
            "block_args": Only((None, {}), "other blocks"),
        },
    )


def _translate(model: str, options: Options) -> tuple[str, dict[str, Any]]:
    what, read = f"timm's {model}", _fields(model).read(f"timm's {model}", options)
    block, antialias = (_ARCHITECTURES[model][field] for field in ("block", "antialias"))
    check_stages(what, 4, layers=read["layers"], channels=read["channels"])
    if block == "basic" and (read["cardinality"], read["base_width"]) != (1, 64):
        raise ConversionError(
            f"{what} with cardinality={read['cardinality']} and base_width={read['base_width']}: basic "
            "blocks support neither. Only bottleneck blocks do, such as those of resnet50."
        )
    sizes = {"block": block, "depths": read["layers"], "widths": read["channels"]}
    name, ours = sized(sizes | {"groups": read["cardinality"], "group_width": read["base_width"]})
    sampler, pooling_stem, _ = _ANTIALIAS[antialias]
    stem, width = _stem(pooling_stem, read["stem_type"], read["stem_width"])
    plain = "subsample" if sampler else None  # shortcuts are strided unless they average
    parts = {
        "sampler": sampler,
        "shortcut_sampler": _WHOLE_AVERAGE if read["avg_down"] else plain,
        "stem": None if stem == _IMAGE_STEM else stem,
        "stem_width": None if width == read["channels"][0] else width,
        "activation": None if read["act_layer"] == "relu" else read["act_layer"],
        "global_pool": None if read["global_pool"] == "avg" else GLOBAL_POOLS[read["global_pool"]],
    }
    given = {option: value for option, value in parts.items() if value is not None}
    return name, {"num_classes": read["num_classes"], **ours, **given}


def _stem(pooling: Options, kind: str, width: int) -> tuple[Options, int]:
    """The stem and its output channels."""
    if not kind:
        return pooling, 64
    first = 3 * (width // 4) if kind == "deep_tiered" else width
    return {**pooling, "name": "deep", "hidden_widths": (first, width)}, 2 * width


def _entries(network: ResNet, model: str, options: Options) -> Iterator[Entry]:
    averaged = _fields(model).read(model, options)["avg_down"]
    # With avg_down, every shortcut begins with a pool or a module without tensors.
    names = ResNetNames(shortcut=("downsample.1", "downsample.2")) if averaged else ResNetNames()
    return resnet(network, Style(names=names, sampled=False))


def _architectures(block: str, read: Options) -> list[tuple[str, dict[str, Any]]]:
    """The architectures with these blocks and their further arguments, the fewest arguments first."""

    def differing(model: str) -> dict[str, Any]:
        own = {**_DEFAULTS, **_ARCHITECTURES[model]}
        return {field: value for field, value in read.items() if own[field] != value}

    found = [(name, differing(name)) for name, own in _ARCHITECTURES.items() if own["block"] == block]
    return sorted(found, key=lambda one: len(one[1]))


def _stem_arguments(hidden: Sequence[int]) -> dict[str, Any]:
    """Arguments of a stem. `hidden`: channels of all its convolutions except the last."""
    if not hidden:
        return {"stem_type": ""}
    return {"stem_type": "deep" if hidden[0] == hidden[-1] else "deep_tiered", "stem_width": hidden[-1]}


def _candidates(network: Mapping[str, Any]) -> Candidates:
    if network[KIND] != "ResNet" or (act_layer := activation_word(network["activation"])) is None:
        yield "resnet50", {}
        return
    read = {
        "num_classes": network["num_classes"],
        "layers": network["depths"],
        "channels": network["widths"],
        "cardinality": network["groups"],
        "base_width": network["group_width"],
        "avg_down": look(network, "shortcut_sampler", "padding") == _WHOLE_AVERAGE["padding"],
        "act_layer": act_layer,
        "global_pool": pool_word(network),
        **_stem_arguments(look(network, "stem", "hidden_widths", default=())),
    }
    yield from _architectures(network["block"], read)


def recognise_timm_resnet(state: Mapping[str, np.ndarray]) -> tuple[str, dict[str, Any]] | None:
    """Recognises a ResNet of timm from keys and shapes.

    If several architectures have these keys, it returns the one without blur and average pools. It also
    recognises the networks of torchvision, which are the same.

    Returns:
      Architecture and arguments. None for weights of another network.
    """
    shapes = {key: np.shape(value) for key, value in state.items()}
    norms = {
        tuple(map(int, match.groups())): shapes[key][0]
        for key in state
        if (match := _NORM.fullmatch(key)) and len(shapes[key]) == 1
    }
    stages = sorted({stage for stage, _, _ in norms})
    stem = [shapes.get(key, ()) for key in ("conv1.weight", "conv1.0.weight", "conv1.3.weight")]
    middle = shapes.get("layer1.0.conv2.weight", ())
    if stages != [1, 2, 3, 4] or len(middle) != 4 or any(key.endswith("filt") for key in state):
        return None
    if [len(shape) for shape in stem] not in ([4, 0, 0], [0, 4, 4]) or stem[0][2:] not in ((), (7, 7)):
        return None
    last = max(number for _, _, number in norms)
    expansion = {2: 1, 3: 4}.get(last, 1)
    widths = {stage: width for (stage, _, number), width in norms.items() if number == last}
    channels = tuple(widths.get(stage, 0) // expansion for stage in stages)
    groups = middle[0] // middle[1] if middle[1] else 1
    read = {
        "layers": tuple(len({block for s, block, _ in norms if s == stage}) for stage in stages),
        "channels": channels,
        "avg_down": any(key.endswith(".downsample.2.weight") for key in state),
        **_stem_arguments([shape[0] for shape in stem[1:] if shape]),
    }
    if expansion > 1 and groups and channels[0]:
        read |= {"cardinality": groups, "base_width": middle[0] // groups * 64 // channels[0]}
    if len(head := shapes.get("fc.weight", ())) == 2:
        read["num_classes"] = head[0]
    found = _architectures("bottleneck" if expansion > 1 else "basic", read)
    model, arguments = next(one for one in found if not _ARCHITECTURES[one[0]]["antialias"])
    images = (stem[0] or stem[1])[1]
    return model, arguments if images == 3 else {**arguments, "in_chans": images}


TIMM_RESNET = CodeBase("timm", _translate, _entries, _candidates)

"""The ResNets of transformers: fields of config.json, tensor names and recognition.

timm's are in `timm_resnet`, which shares code with this module. torchvision's are in `antialiased_cnns`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from aliasfree_jax.conversion.cnn_entries import ResNetNames, Style, resnet
from aliasfree_jax.conversion.description import KIND
from aliasfree_jax.conversion.entries import Candidates, CodeBase, Entry, Options
from aliasfree_jax.conversion.fields import (
    ACTIVATIONS,
    TRANSFORMERS_WITHOUT_EFFECT,
    Fields,
    Only,
    activation_word,
    check_stages,
    number_of_labels,
)
from aliasfree_jax.errors import ConversionError, unknown
from aliasfree_jax.models.residual import EXPANSION
from aliasfree_jax.models.resnet import SIZES, ResNet

# Fields that cannot be recognised from weights, with the defaults of transformers. config.json states them.
UNTRACED: Options = {
    "hidden_act": "relu",
    "downsample_in_bottleneck": False,
    "downsample_in_first_stage": False,
}

WIDTHS = (64, 128, 256, 512)


def sized(sizes: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Returns the name of our nearest ResNet, and the fields of `sizes` that differ from it."""

    def differing(name: str) -> dict[str, Any]:
        named = {"widths": WIDTHS, "groups": 1, "group_width": 64, **SIZES[name]}
        wanted = {**named, "groups": 1, "group_width": 64, **sizes}
        return {field: value for field, value in wanted.items() if named[field] != value}

    name = min(SIZES, key=lambda name: ("block" in differing(name), len(differing(name))))
    return name, differing(name)


_CLASSIFIER = "ResNetForImageClassification"
_FIELDS = Fields(
    translated={
        "embedding_size": 64,
        "hidden_sizes": (256, 512, 1024, 2048),
        "depths": (3, 4, 6, 3),
        "layer_type": "bottleneck",
        "hidden_act": "relu",
        "downsample_in_bottleneck": False,
    },
    without_effect={*TRANSFORMERS_WITHOUT_EFFECT, "num_labels", "num_channels"},
    only={
        "model_type": Only(("resnet",), "another architecture"),
        "layer_type": Only(("bottleneck", "basic"), "another kind of blocks"),
        "hidden_act": Only(tuple(ACTIVATIONS), "another activation"),
        "downsample_in_first_stage": Only((False,), "a stride in its first stage"),
    },
)
_STEM = "resnet.embedder.embedder"
_STYLE = Style(
    names=ResNetNames(
        stem_conv=f"{_STEM}.convolution",
        stem_norm=f"{_STEM}.normalization",
        block="resnet.encoder.stages.{s}.layers.{block}",
        conv="layer.{n}.convolution",
        norm="layer.{n}.normalization",
        shortcut=("shortcut.convolution", "shortcut.normalization"),
        head="classifier.1",
    ),
    sampled=False,
)
_LAYER = re.compile(r"resnet\.encoder\.stages\.(\d{1,4})\.layers\.(\d{1,4})\.layer\.(\d{1,4})\.")


def _translate(model: str, options: Options) -> tuple[str, dict[str, Any]]:
    if model != _CLASSIFIER:
        raise ConversionError(unknown("ResNet of transformers", model, [_CLASSIFIER]))
    what = f"transformers' {model}"
    read = _FIELDS.read(what, options)
    block, depths, sizes = read["layer_type"], read["depths"], read["hidden_sizes"]
    check_stages(what, None, depths=depths, hidden_sizes=sizes)
    if any(size % EXPANSION[block] for size in sizes):
        raise ConversionError(
            f"{what} has hidden_sizes {list(sizes)}, expected multiples of 4: the inner convolutions of a "
            "bottleneck have a quarter of its channels."
        )
    widths = tuple(size // EXPANSION[block] for size in sizes)
    name, ours = sized({"block": block, "depths": depths, "widths": widths})
    if read["embedding_size"] != widths[0]:
        ours["stem_width"] = read["embedding_size"]
    if (hidden_act := read["hidden_act"]) != "relu":
        # In transformers, convolutions within a block always have a ReLU.
        ours |= {"stem_activation": hidden_act, "sum_activation": hidden_act}
    if read["downsample_in_bottleneck"] and block == "bottleneck":
        ours["sampler_position"] = "first"
    return name, {"num_classes": number_of_labels(options), **ours}


def _entries(network: ResNet, model: str, options: Options) -> Iterator[Entry]:
    return resnet(network, _STYLE)


def _candidates(network: Mapping[str, Any]) -> Candidates:
    if network[KIND] != "ResNet" or (hidden_act := activation_word(network["sum_activation"])) is None:
        yield _CLASSIFIER, {}
        return
    block = network["block"]
    yield (
        _CLASSIFIER,
        {
            "embedding_size": network["stem_width"],
            "hidden_sizes": tuple(EXPANSION[block] * width for width in network["widths"]),
            "depths": network["depths"],
            "layer_type": block,
            "hidden_act": hidden_act,
            "downsample_in_bottleneck": network["sampler_position"] == "first",
            "num_labels": network["num_classes"],
        },
    )


def recognise_transformers_resnet(state: Mapping[str, np.ndarray]) -> tuple[str, dict[str, Any]] | None:
    """Recognises a ResNet of transformers from keys and shapes.

    Returns:
      Class name and fields of config.json, without those in `UNTRACED`. None for weights of another network.
    """
    stem, layers = state.get(f"{_STEM}.convolution.weight"), {}
    for key, value in state.items():
        if (match := _LAYER.match(key)) and np.ndim(value):
            stage, block, layer = map(int, match.groups())
            layers[stage, block, layer] = np.shape(value)[0]
    if stem is None or np.ndim(stem) != 4 or not layers:
        return None
    embedding_size, num_channels = np.shape(stem)[:2]
    last = max(layer for _, _, layer in layers)
    stages = sorted({stage for stage, _, _ in layers})
    found = {
        "embedding_size": embedding_size,
        "hidden_sizes": [
            next((size for (s, _, layer), size in layers.items() if (s, layer) == (stage, last)), 0)
            for stage in stages
        ],
        "depths": [len({block for s, block, _ in layers if s == stage}) for stage in stages],
        "layer_type": "bottleneck" if last > 1 else "basic",
        "num_channels": num_channels,
    }
    head = np.shape(state.get("classifier.1.weight", 0))
    return _CLASSIFIER, {**found, "num_labels": head[0]} if len(head) == 2 else found


TRANSFORMERS_RESNET = CodeBase("transformers", _translate, _entries, _candidates)

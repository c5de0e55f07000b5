"""timm's VGG, DenseNet and MobileNet-v2: translation, tensor names and recognition.

DenseNet has the tensors of torchvision. A file without description is read as torchvision's.
"""

import dataclasses
import fnmatch
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from aliasfree_jax.conversion.cnn_entries import Style, network_entries, vgg_features
from aliasfree_jax.conversion.entries import (
    CONV,
    DENSE,
    DEPTHWISE,
    POINTWISE,
    Candidates,
    CodeBase,
    Entry,
    Layout,
    Options,
    batch_norm,
    linear,
)
from aliasfree_jax.conversion.fields import GLOBAL_POOLS, Fields, Only, pool_word
from aliasfree_jax.errors import ConversionError, unknown
from aliasfree_jax.models.alexnet_vgg import VGG, VGGS
from aliasfree_jax.models.densenet import DENSENETS
from aliasfree_jax.models.mobilenet import STAGES, MobileNetV2

State = Mapping[str, np.ndarray]
Recognised = tuple[str, dict[str, Any]] | None

_WITHOUT_EFFECT = frozenset({"in_chans", "drop_rate", "device", "dtype"})
_POOLING = Only(tuple(GLOBAL_POOLS), "another pooling")
_OUTPUT_STRIDE = Only((32,), "dilated convolutions")
_PLAIN = {"num_classes": 1000, "global_pool": "avg"}


@dataclasses.dataclass(frozen=True)
class _Family:
    """One family of architectures.

    Attributes:
      title: Name of the family, for messages.
      networks: Our name of each architecture.
      fields: Fields of the constructor.
      lacking: Patterns of architectures that cannot be converted, with the unsupported part.
      options: Further options of `create_model`.
    """

    title: str
    networks: Mapping[str, str]
    fields: Fields
    lacking: Mapping[str, str]
    options: Options = dataclasses.field(default_factory=dict)

    def translate(self, model: str, options: Options) -> tuple[str, dict[str, Any]]:
        """Translates an architecture and its arguments to arguments of `create_model`.

        Raises:
          ConversionError: The architecture or an argument is unknown or cannot be converted.
        """
        if model not in self.networks:
            lacking = (what for pattern, what in self.lacking.items() if fnmatch.fnmatch(model, pattern))
            if what := next(lacking, None):
                raise ConversionError(f"timm's {model} has {what}. No network of this package has that.")
            raise ConversionError(unknown(f"{self.title} of timm", model, self.networks))
        read = self.fields.read(f"timm's {model}", options)
        ours = {"num_classes": read["num_classes"], **self.options}
        if read["global_pool"] != "avg":
            ours["global_pool"] = GLOBAL_POOLS[read["global_pool"]]
        return self.networks[model], ours

    def candidates(self, network: Mapping[str, Any]) -> Candidates:
        """Lists every architecture with the classes and the pooling of `network`."""
        options = {"num_classes": network["num_classes"]}
        if (pool := pool_word(network)) != "avg":
            options["global_pool"] = pool
        yield from ((model, options) for model in self.networks)

    def code_base(self, entries: Callable[[Any, str, Options], Iterator[Entry]]) -> CodeBase:
        """Makes a code base of the family and its table of tensors."""
        return CodeBase("timm", self.translate, entries, self.candidates)


_VGG = _Family(
    "VGG",
    {name: name for name in VGGS.sizes},
    Fields(
        translated=_PLAIN,
        without_effect=_WITHOUT_EFFECT,
        only={
            "global_pool": Only(("avg", "max"), "another pooling"),
            "output_stride": _OUTPUT_STRIDE,
            "mlp_ratio": Only((1.0,), "a hidden layer of another width"),
        },
    ),
    {},
    {"large_maps": "windows"},
)
_DENSENET = _Family(
    "DenseNet",
    {name: name for name in DENSENETS.sizes},
    Fields(
        translated=_PLAIN,
        without_effect=_WITHOUT_EFFECT | {"proj_drop_rate", "memory_efficient", "aa_stem_only"},
        only={
            "global_pool": _POOLING,
            "bn_size": Only((4,), "bottlenecks of another width"),
            "stem_type": Only(("",), "a stem of three convolutions"),
            "act_layer": Only(("relu",), "another activation"),
            "norm_layer": Only(("batchnorm2d",), "another norm"),
            "aa_layer": Only((None,), "blurs where timm has them"),
        },
    ),
    {"densenetblur*": "a stem of three convolutions and blurs", "densenet*d": "a stem of three convolutions"},
)
_MOBILENET = _Family(
    "MobileNet-v2",
    {"mobilenetv2_100": "mobilenet_v2"},
    Fields(
        translated=_PLAIN,
        without_effect=_WITHOUT_EFFECT | {"drop_path_rate", "bn_momentum"},
        only={
            "global_pool": _POOLING,
            "output_stride": _OUTPUT_STRIDE,
            "pad_type": Only(("",), "another padding"),
            "act_layer": Only((None, "relu6"), "another activation"),
            "norm_layer": Only((None, "batchnorm2d"), "another norm"),
            "aa_layer": Only((None,), "blurs where timm has them"),
            "se_layer": Only((None,), "another squeeze"),
            "bn_eps": Only((None, 1e-5), "norms with another epsilon"),
            "bn_tf": Only((False,), "norms with another epsilon"),
        },
    ),
    {"mobilenetv2_*": "channels that are rounded to multiples of 8"},
)


def _windows(value: np.ndarray) -> np.ndarray:
    return value.transpose(2, 3, 1, 0).reshape(-1, len(value))


def _kernels(value: np.ndarray) -> np.ndarray:
    return value.reshape(7, 7, -1, value.shape[1]).transpose(3, 2, 0, 1)


def _vgg_entries(network: VGG, model: str, options: Options) -> Iterator[Entry]:
    yield from vgg_features(network, Style(sampled=False))
    yield from linear("pre_logits.fc1", "classifier/hidden1", Layout(_windows, _kernels))
    yield from linear("pre_logits.fc2", "classifier/hidden2", POINTWISE)
    if network.num_classes:
        yield from linear("head.fc", "classifier/head", DENSE)


def _densenet_entries(network: Any, model: str, options: Options) -> Iterator[Entry]:
    head = "params/head/"
    entries = network_entries(network, Style(sampled=False))
    return (entry for entry in entries if network.num_classes or not entry.path.startswith(head))


# Our name of each convolution -> timm's names of it and its norm. The first block does not expand: there,
# "conv_pw" projects. In the other blocks it expands.
_FIRST = {"depthwise": ("conv_dw", "bn1"), "project": ("conv_pw", "bn2")}
_OTHERS = {
    "expand": ("conv_pw", "bn1"),
    "depthwise": ("conv_dw", "bn2"),
    "project": ("conv_pwl", "bn3"),
}


def _mobilenet_entries(network: MobileNetV2, model: str, options: Options) -> Iterator[Entry]:
    yield Entry("conv_stem.weight", "params/stem_conv/kernel", CONV)
    yield from batch_norm("bn1", "stem_norm")
    for stage, (expansion, _, depth, _) in enumerate(STAGES):
        for block in range(depth):
            key, path = f"blocks.{stage}.{block}", f"stage{stage}_block{block}"
            for ours, (conv, norm) in (_FIRST if expansion == 1 else _OTHERS).items():
                layout = DEPTHWISE if ours == "depthwise" else CONV
                yield Entry(f"{key}.{conv}.weight", f"params/{path}/{ours}/kernel", layout)
                yield from batch_norm(f"{key}.{norm}", f"{path}/{ours}_norm")
    yield Entry("conv_head.weight", "params/last_conv/kernel", CONV)
    yield from batch_norm("bn2", "last_norm")
    if network.num_classes:
        yield from linear("classifier", "head")


# Channels of the stem, channels of the second stage, whether that has a third block -> architecture.
_MULTIPLIERS = {
    (16, 8, False): "mobilenetv2_035",
    (16, 16, False): "mobilenetv2_050",
    (24, 24, False): "mobilenetv2_075",
    (32, 24, False): "mobilenetv2_100",
    (32, 24, True): "mobilenetv2_110d",
    (32, 32, True): "mobilenetv2_120d",
    (48, 32, False): "mobilenetv2_140",
}


def _head(state: State, module: str) -> dict[str, Any]:
    count = state[f"{module}.bias"].size if f"{module}.bias" in state else 0
    return {} if count == 1000 else {"num_classes": count}


def recognise_timm_vgg(state: State) -> Recognised:
    """Recognises a VGG of timm by its numbers of kernels and norms. None for another network."""
    if not _has_kernels(state, "features.0.weight", "pre_logits.fc1.weight"):
        return None
    kernels = sum(key.startswith("features.") and value.ndim == 4 for key, value in state.items())
    normed = any(key.endswith("running_mean") for key in state)
    for model, size in VGGS.sizes.items():
        if sum(size["depths"]) == kernels and model.endswith("_bn") == normed:
            return model, _head(state, "head.fc") | _channels(state["features.0.weight"])
    return None


def recognise_timm_mobilenet(state: State) -> Recognised:
    """Recognises a MobileNet-v2 of timm by the widths of its first stages. None for another network.

    It also names architectures that cannot be converted. Their translation raises the error.
    """
    keys = ("conv_stem.weight", "blocks.0.0.conv_pw.weight", "blocks.1.0.conv_pwl.weight")
    if not _has_kernels(state, *keys) or any(".se." in key for key in state):
        return None
    stem, first, second = (state[key] for key in keys)
    if second.shape[1] != 6 * first.shape[0]:
        return None
    model = _MULTIPLIERS.get((len(stem), len(second), "blocks.1.2.conv_pwl.weight" in state))
    return None if model is None else (model, _head(state, "classifier") | _channels(stem))


def _has_kernels(state: State, *keys: str) -> bool:
    return all(key in state and state[key].ndim == 4 for key in keys)


def _channels(stem: np.ndarray) -> dict[str, int]:
    return {} if stem.shape[1] == 3 else {"in_chans": stem.shape[1]}


TIMM_VGG = _VGG.code_base(_vgg_entries)
TIMM_DENSENET = _DENSENET.code_base(_densenet_entries)
TIMM_MOBILENET = _MOBILENET.code_base(_mobilenet_entries)

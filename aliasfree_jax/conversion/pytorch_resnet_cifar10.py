"""The ResNets of github.com/akamaster/pytorch_resnet_cifar10: those of He et al. 2016 for CIFAR-10.

Their shortcuts have no weights. The only option is `num_classes`. The keys in its files begin with "module.".
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from aliasfree_jax.conversion.cnn_entries import ResNetNames, Style, resnet
from aliasfree_jax.conversion.entries import (
    Candidates,
    CodeBase,
    Entry,
    Options,
    check_options,
    chosen,
)
from aliasfree_jax.models.resnet import ResNet

SOURCE = "pytorch_resnet_cifar10"

# Blocks in each of the three stages. This package has no name for the deepest network.
_DEPTHS = {"resnet20": 3, "resnet32": 5, "resnet44": 7, "resnet56": 9, "resnet110": 18, "resnet1202": 200}
_STYLE = Style(names=ResNetNames(shortcut=None, head="linear"), sampled=False)


def translate(model: str, options: Options) -> tuple[str, dict[str, Any]]:
    """Translates a network to arguments of `create_model`.

    Raises:
      ConversionError: The network or an option is unknown.
    """
    check_options(SOURCE, options, {"num_classes"})
    depth = chosen(f"network of {SOURCE}", model, _DEPTHS)
    ours = {"num_classes": options.get("num_classes", 10), "shortcut": "zero_padded"}
    if model == "resnet1202":
        return "resnet110_cifar", {**ours, "depths": (depth,) * 3}
    return f"{model}_cifar", ours


def _entries(network: ResNet, model: str, options: Options) -> Iterator[Entry]:
    return resnet(network, _STYLE)


def _candidates(network: Mapping[str, Any]) -> Candidates:
    yield from ((model, {}) for model in _DEPTHS)


def recognise_pytorch_resnet_cifar10(
    state: Mapping[str, np.ndarray],
) -> tuple[str, dict[str, Any]] | None:
    """Recognises a network from keys and shapes.

    Returns:
      Its name and options. None for weights of another code base.
    """
    head, stages = state.get("linear.weight"), {key.split(".")[0] for key in state}
    if head is None or np.ndim(head) != 2 or "layer3" not in stages or "layer4" in stages:
        return None
    depth = len({key.split(".")[1] for key in state if key.startswith("layer1.")})
    model = next((model for model, blocks in _DEPTHS.items() if blocks == depth), None)
    classes = len(head)
    return None if model is None else (model, {} if classes == 10 else {"num_classes": classes})


AKAMASTER = CodeBase(SOURCE, translate, _entries, _candidates)

"""The networks of github.com/adobe/antialiased-cnns (BlurPool) and of torchvision.

BlurPool's networks are built on torchvision's. Their options are the constructors' arguments: `filter_size`
(default 4), `pool_only` and `num_classes`. torchvision's networks have no anti-aliasing. Their state dicts
can also initialise the anti-aliased networks.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn

from aliasfree_jax.conversion.cnn_entries import Style, network_entries
from aliasfree_jax.conversion.description import taps
from aliasfree_jax.conversion.entries import (
    Candidates,
    CodeBase,
    Entry,
    Options,
    blur_pool,
    check_options,
)
from aliasfree_jax.errors import ConversionError, unknown
from aliasfree_jax.models.alexnet_vgg import ALEXNETS, VGGS
from aliasfree_jax.models.densenet import DENSENETS
from aliasfree_jax.models.mobilenet import MOBILENETS
from aliasfree_jax.models.resnet import SIZES

SOURCE = "antialiased-cnns"
TORCHVISION = "torchvision"

CHAINS = (*ALEXNETS.sizes, *VGGS.sizes, *DENSENETS.sizes, *MOBILENETS.sizes)
MODELS = (*SIZES, *CHAINS)


def _check(source: str, model: str) -> None:
    if model not in MODELS:
        raise ConversionError(unknown(f"network of {source}", model, MODELS))


def default_pool_only(model: str) -> bool | None:
    """The default of `pool_only`. None for networks without that option."""
    if model == "alexnet":
        return False
    return True if model in SIZES or model.startswith("densenet") else None


def translate(model: str, options: Options) -> tuple[str, dict[str, Any]]:
    """Translates an anti-aliased network and its options to arguments of `create_model`.

    Raises:
      ConversionError: The network or an option is unknown.
    """
    _check(SOURCE, model)
    pool_only = default_pool_only(model)
    legal = {"filter_size", "num_classes"} | ({"pool_only"} if pool_only is not None else set())
    legal |= {"relu_first"} if model == "alexnet" else set()
    check_options(f"{SOURCE} {model}", options, legal)
    ours = {"filter_size": 4, "num_classes": 1000, **options}
    if pool_only is not None:
        ours = {"pool_only": pool_only, **ours}
    if model == "alexnet":
        ours["sample_first"] = not ours.pop("relu_first", True)
        ours["activate_first"] = not ours["pool_only"]  # the original lacks the activation there
    return f"{model}_blur", ours


def _entries(network: nn.Module, model: str, options: Options) -> Iterator[Entry]:
    pool = blur_pool(options.get("filter_size", 4))
    if options.get("pool_only", default_pool_only(model)):
        style = Style(pool=pool, stem_pool="maxpool.1")
    else:
        style = Style(pool=pool, first_pool=pool, stem_pool="maxpool.2")
    return network_entries(network, style)


def _candidates(network: Mapping[str, Any]) -> Candidates:
    options = {"filter_size": taps(network["sampler"])}
    for model in MODELS:
        if default_pool_only(model) is None:
            yield model, options
            continue
        for pool_only in (True, False):
            yield model, options | {"pool_only": pool_only}
            if model == "alexnet" and not pool_only:
                yield model, options | {"pool_only": pool_only, "relu_first": False}


def translate_torchvision(model: str, options: Options) -> tuple[str, dict[str, Any]]:
    """Translates a network of torchvision to arguments of `create_model`."""
    _check(TORCHVISION, model)
    check_options(f"{TORCHVISION} {model}", options, {"num_classes"})
    return model, {"num_classes": 1000, **options}


def _entries_torchvision(network: nn.Module, model: str, options: Options) -> Iterator[Entry]:
    return network_entries(network, Style(sampled=False))


def _candidates_torchvision(network: Mapping[str, Any]) -> Candidates:
    yield from ((model, {}) for model in MODELS)


BLURPOOL = CodeBase(SOURCE, translate, _entries, _candidates, "filter_size")
TORCHVISION_CNNS = CodeBase(TORCHVISION, translate_torchvision, _entries_torchvision, _candidates_torchvision)

"""The networks of github.com/adobe/antialiased-cnns (BlurPool), and torchvision's, which they come from.

Options are the constructors' arguments: filter_size (default 4), pool_only, num_classes. torchvision's
networks are plain; a plain state dict also gives the anti-aliased network its starting weights.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn

from aliasfree_jax.conversion.classic_entries import alexnet, densenet, mobilenet, vgg
from aliasfree_jax.conversion.entries import Entry, blur_filter
from aliasfree_jax.conversion.resnet_entries import Style, resnet
from aliasfree_jax.errors import ConversionError, unknown
from aliasfree_jax.models import create_model
from aliasfree_jax.models.alexnet_vgg import ALEXNETS, VGG, VGGS, AlexNet
from aliasfree_jax.models.densenet import DENSENETS, DenseNet
from aliasfree_jax.models.mobilenet import MOBILENETS, MobileNetV2
from aliasfree_jax.models.resnet import SIZES, ResNet

SOURCE = "antialiased-cnns"
TORCHVISION = "torchvision"
Options = Mapping[str, Any]

CHAINS = (*ALEXNETS.sizes, *VGGS.sizes, *DENSENETS.sizes, *MOBILENETS.sizes)
MODELS = (*SIZES, *CHAINS)


def _check(source: str, model: str, options: Options, legal: set[str]) -> None:
    if model not in MODELS:
        raise ConversionError(unknown(f"network of {source}", model, MODELS))
    for option in options:
        if option not in legal:
            raise ConversionError(unknown(f"option of {source} {model}", option, legal))


def default_pool_only(model: str) -> bool | None:
    """The default of pool_only; None for networks without that option."""
    if model == "alexnet":
        return False
    return True if model in SIZES or model.startswith("densenet") else None


def translate(model: str, options: Options) -> tuple[str, dict[str, Any]]:
    """Name and options of `create_model` for an anti-aliased network.

    Raises:
      ConversionError: unknown network or option.
    """
    pool_only = default_pool_only(model)
    legal = {"filter_size", "num_classes"} | ({"pool_only"} if pool_only is not None else set())
    _check(SOURCE, model, options, legal | ({"relu_first"} if model == "alexnet" else set()))
    ours = {"filter_size": 4, "num_classes": 1000, **options}
    if pool_only is not None:
        ours = {"pool_only": pool_only, **ours}
    if model == "alexnet":
        ours["sample_first"] = not ours.pop("relu_first", True)
        ours["activate_first"] = not ours["pool_only"]  # the original forgets it there
    return f"{model}_blur", ours


def table(model: str, options: Options) -> list[Entry]:
    """The state dict of an anti-aliased network."""
    name, ours = translate(model, options)
    size = ours["filter_size"]

    def pool(key: str, path: str, channels: int) -> Iterator[Entry]:
        yield blur_filter(f"{key}.filt", channels, size)

    first, second = "stem/first_sampler", "stem/pool/sampler"
    stem = (
        (("maxpool.1", second, pool),)
        if ours.get("pool_only")
        else (("maxpool.0", first, pool), ("maxpool.2", second, pool))
    )
    style = Style(pool=pool, shortcut_pool=pool, stem_pools=stem)
    return list(_entries(create_model(name, **ours), style))


def translate_torchvision(model: str, options: Options) -> tuple[str, dict[str, Any]]:
    """Name and options of `create_model` for torchvision's network."""
    _check(TORCHVISION, model, options, {"num_classes"})
    return model, {"num_classes": 1000, **options}


def table_torchvision(model: str, options: Options) -> list[Entry]:
    """The state dict of torchvision's network."""
    name, ours = translate_torchvision(model, options)
    return list(_entries(create_model(name, **ours), Style(sampled=False)))


def _entries(network: nn.Module, style: Style) -> Iterator[Entry]:
    match network:
        case ResNet():
            return resnet(network, style)
        case AlexNet():
            return alexnet(network, style)
        case VGG():
            return vgg(network, style)
        case DenseNet():
            return densenet(network, style)
        case MobileNetV2():
            return mobilenet(network, style)
    raise TypeError(type(network).__name__)

"""The ResNets of github.com/achaman2/truly_shift_invariant_cnns: APS, and BlurPool on the circle.

For ImageNet (`SOURCE`) resnet18_aps and resnet*_lpf, for CIFAR-10 (`CIFAR_SOURCE`) resnet18, 20, 34, 50
and 56, plain, _lpf and _aps. Options are the programs' flags; the criterion leaves no trace in a file.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from aliasfree_jax.conversion.entries import Entry, blur_filter
from aliasfree_jax.conversion.resnet_entries import Style, no_entries, resnet
from aliasfree_jax.errors import ConversionError, unknown
from aliasfree_jax.models import create_model
from aliasfree_jax.models.resnet import ResNet

SOURCE = "truly_shift_invariant_cnns"
CIFAR_SOURCE = f"{SOURCE}/cifar10"
Options = Mapping[str, Any]

_DEPTHS = ("18", "34", "50", "101", "152")
IMAGENET = {"resnet18_aps": "resnet18_aps"} | {
    f"{size}_lpf": f"{size}_circular_blur"
    for size in (*(f"resnet{depth}" for depth in _DEPTHS), "resnext50_32x4d", "resnext101_32x8d")
}
CIFAR = {
    f"resnet{depth}{theirs}": f"resnet{depth}_cifar{ours}"
    for depth in (18, 20, 34, 50, 56)
    for theirs, ours in (("", "_circular"), ("_lpf", "_circular_blur"), ("_aps", "_aps"))
}
_PADDINGS = {"circular": "CIRCULAR", "zeros": "ZERO", "reflect": "REFLECT"}


def filters(size: int) -> Any:
    """Samplers whose only tensor is their blur filter."""

    def pool(key: str, path: str, channels: int) -> Iterator[Entry]:
        yield blur_filter(f"{key}.filt", channels, size)

    return pool


def _check(source: str, options: Options, legal: set[str]) -> None:
    for option in options:
        if option not in legal:
            raise ConversionError(unknown(f"option of {source}", option, legal))


def _name(source: str, model: str, table: Mapping[str, str]) -> str:
    name = re.sub(r" \(circular\)$", "", model)
    if name not in table:
        raise ConversionError(unknown(f"network of {source}", name, table))
    return table[name]


def _sampler(name: str, size: int, padding: str, options: Options, raw: bool) -> Any:
    blur = {"name": "blur", "kernel_size": size, "padding": padding}
    if not name.endswith("_aps"):
        return blur
    criterion = options.get("apspool_criterion", "l2")
    selection = {"select_on": "raw"} if raw else {}
    return {"name": "polyphase", "criterion": criterion, "inner": blur, **selection}


def translate(model: str, options: Options) -> tuple[str, dict[str, Any]]:
    """Name and options of `create_model` for an ImageNet network and its flags."""
    _check(SOURCE, options, {"filter_size", "apspool_criterion", "pool_only", "num_classes"})
    name = _name(SOURCE, model, IMAGENET)
    ours = {"num_classes": options.get("num_classes", 1000), "pool_only": options.get("pool_only", False)}
    sampler = _sampler(name, options.get("filter_size", 1), "CIRCULAR", options, False)
    return name, {**ours, "sampler": sampler}


def table(model: str, options: Options) -> list[Entry]:
    """The state dict of an ImageNet network."""
    name, ours = translate(model, options)
    size, adaptive = options.get("filter_size", 1), name.endswith("_aps")
    pool = no_entries if adaptive and size == 1 else filters(size)
    first, second = ("maxpool.0", "stem/first_sampler"), ("maxpool.3", "stem/pool/sampler")
    stem = (("maxpool.2", second[1], pool),) if ours["pool_only"] else ((*first, pool), (*second, pool))
    style = Style(
        wrapped=True,
        pool=pool,
        shortcut_pool=pool,
        pool_name="aps_down" if adaptive else "",
        stem_pools=stem,
    )
    return _entries(name, ours, style)


def translate_cifar(model: str, options: Options) -> tuple[str, dict[str, Any]]:
    """Name and options of `create_model` for a CIFAR-10 network and its flags."""
    legal = {"filter_size", "apspool_criterion", "conv_pad_type", "num_classes"}
    _check(CIFAR_SOURCE, options, legal)
    name = _name(CIFAR_SOURCE, model, CIFAR)
    mode = options.get("conv_pad_type", "circular")
    if mode not in _PADDINGS:  # replicate_pad, whose maps grow with every convolution
        raise ConversionError(unknown(f"conv_pad_type of {CIFAR_SOURCE}", mode, _PADDINGS))
    ours = {"num_classes": options.get("num_classes", 10), "padding": _PADDINGS[mode]}
    if name.endswith("_circular"):
        return name, ours
    padding = "CIRCULAR" if mode == "circular" else "REFLECT"
    return name, {**ours, "sampler": _sampler(name, options.get("filter_size", 1), padding, options, True)}


def table_cifar(model: str, options: Options) -> list[Entry]:
    """The state dict of a CIFAR-10 network."""
    name, ours = translate_cifar(model, options)
    wrapped, plain = ours["padding"] != "ZERO", name.endswith("_circular")
    pool = filters(options.get("filter_size", 1))
    return _entries(name, ours, Style(wrapped=wrapped, sampled=not plain, pool=pool, shortcut_pool=pool))


def _entries(name: str, ours: Options, style: Style) -> list[Entry]:
    network = create_model(name, **ours)
    assert isinstance(network, ResNet)
    return list(resnet(network, style))

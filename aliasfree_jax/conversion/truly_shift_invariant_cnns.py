"""The ResNets of github.com/achaman2/truly_shift_invariant_cnns: APS, and BlurPool with circular padding.

For ImageNet (`SOURCE`): resnet18_aps and resnet*_lpf. For CIFAR-10 (`CIFAR_SOURCE`): resnet18, 20, 34, 50 and
56, each plain, with _lpf and with _aps. Options are the programs' flags. The criterion of APS cannot be
recognised from weights.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from aliasfree_jax.conversion.cnn_entries import Style, resnet
from aliasfree_jax.conversion.description import taps
from aliasfree_jax.conversion.entries import (
    Candidates,
    CodeBase,
    Entry,
    Options,
    blur_pool,
    check_options,
    chosen,
    no_entries,
)
from aliasfree_jax.models.resnet import ResNet

SOURCE = "truly_shift_invariant_cnns"
CIFAR_SOURCE = f"{SOURCE}/cifar10"

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


def _name(source: str, model: str, table: Mapping[str, str]) -> str:
    return chosen(f"network of {source}", model.removesuffix(" (circular)"), table)


def _sampler(name: str, padding: str, options: Options, raw: bool) -> Any:
    blur = {"name": "blur", "kernel_size": options.get("filter_size", 1), "padding": padding}
    if not name.endswith("_aps"):
        return blur
    criterion = options.get("apspool_criterion", "l2")
    selection = {"select_on": "raw"} if raw else {}
    return {"name": "polyphase", "criterion": criterion, "inner": blur, **selection}


def translate(model: str, options: Options) -> tuple[str, dict[str, Any]]:
    """Translates an ImageNet network and its flags to arguments of `create_model`."""
    check_options(SOURCE, options, {"filter_size", "apspool_criterion", "pool_only", "num_classes"})
    name = _name(SOURCE, model, IMAGENET)
    ours = {"num_classes": options.get("num_classes", 1000), "pool_only": options.get("pool_only", False)}
    return name, {**ours, "sampler": _sampler(name, "CIRCULAR", options, False)}


def _entries(network: ResNet, model: str, options: Options) -> Iterator[Entry]:
    size, adaptive = options.get("filter_size", 1), _name(SOURCE, model, IMAGENET).endswith("_aps")
    pool = no_entries if adaptive and size == 1 else blur_pool(size)
    pool_only = options.get("pool_only", False)
    style = Style(
        wrapped=True,
        pool=pool,
        pool_name="aps_down" if adaptive else "",
        first_pool=None if pool_only else pool,
        stem_pool="maxpool.2" if pool_only else "maxpool.3",
    )
    return resnet(network, style)


def translate_cifar(model: str, options: Options) -> tuple[str, dict[str, Any]]:
    """Translates a CIFAR-10 network and its flags to arguments of `create_model`."""
    legal = {"filter_size", "apspool_criterion", "conv_pad_type", "num_classes"}
    check_options(CIFAR_SOURCE, options, legal)
    name = _name(CIFAR_SOURCE, model, CIFAR)
    mode = options.get("conv_pad_type", "circular")
    # The original's replicate_pad is left out: its maps grow with every convolution.
    padding = chosen(f"conv_pad_type of {CIFAR_SOURCE}", mode, _PADDINGS)
    ours = {"num_classes": options.get("num_classes", 10), "padding": padding}
    if name.endswith("_circular"):
        return name, ours
    padding = "CIRCULAR" if mode == "circular" else "REFLECT"
    return name, {**ours, "sampler": _sampler(name, padding, options, True)}


def _entries_cifar(network: ResNet, model: str, options: Options) -> Iterator[Entry]:
    plain = _name(CIFAR_SOURCE, model, CIFAR).endswith("_circular")
    wrapped = options.get("conv_pad_type", "circular") != "zeros"
    return resnet(
        network, Style(wrapped=wrapped, sampled=not plain, pool=blur_pool(options.get("filter_size", 1)))
    )


def _read_off(network: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that both programs share, for a described network."""
    sampler = network["sampler"]
    options: dict[str, Any] = {"filter_size": taps(sampler)}
    if "criterion" in sampler:
        options["apspool_criterion"] = sampler["criterion"]
    return options


def _candidates(network: Mapping[str, Any]) -> Candidates:
    for model in IMAGENET:
        yield from ((model, _read_off(network) | {"pool_only": pool_only}) for pool_only in (False, True))


def _candidates_cifar(network: Mapping[str, Any]) -> Candidates:
    words = {ours: theirs for theirs, ours in _PADDINGS.items()}
    options = {"conv_pad_type": words.get(network["padding"], "circular"), **_read_off(network)}
    yield from ((model, options) for model in CIFAR)


IMAGENET_APS = CodeBase(SOURCE, translate, _entries, _candidates, "filter_size")
CIFAR_APS = CodeBase(CIFAR_SOURCE, translate_cifar, _entries_cifar, _candidates_cifar, "filter_size")

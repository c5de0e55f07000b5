"""State-dict tables of the ConvNeXts of alias_free_convnets."""

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from aliasfree_jax.conversion.entries import (
    CONV,
    DEPTHWISE,
    Entry,
    Layout,
    Options,
    affine,
    batch_norm,
    blur_filter,
    linear,
    no_entries,
)
from aliasfree_jax.models.convnext import ConvNeXt

ModuleEntries = Callable[[str, str], Iterator[Entry]]
"""Entries of a module, from its key there and its path here."""


def _group_norm(key: str, path: str) -> Iterator[Entry]:
    return affine(key, f"{path}/norm")


NORMS: dict[str, ModuleEntries] = {
    "C": affine,
    "CHW2": affine,
    "batch": batch_norm,
    "instance": no_entries,
    "group": _group_norm,
}


@dataclasses.dataclass(frozen=True)
class Style:
    """How one of the five networks names its tensors.

    Attributes:
      wrapped: whether convolutions are the second module of a sequence, after their padding.
      stem_norm: position of the norm in the stem.
      norm: of the whole network but its end.
      stem_filters, filters: names of the blur filters in the stem and in each downsampling layer.
      filter_size: of these.
      mlp: prefix of a block's linear layers.
      activation, stem_activation: of the blocks and of the stem.
    """

    wrapped: bool
    stem_norm: int
    norm: ModuleEntries
    stem_filters: tuple[str, ...]
    filters: tuple[str, ...]
    filter_size: int
    mlp: str
    activation: ModuleEntries
    stem_activation: ModuleEntries


def polynomial(kwargs: Options, prefix: str = "") -> ModuleEntries:
    """Entries of a polynomial activation with these constructor arguments."""
    count = len(kwargs.get("coef", (0, 0, 0)))

    def there(value: np.ndarray) -> np.ndarray:
        return np.pad(value, ((0, 0), (0, count - value.shape[1])))[..., None, None]

    # The original evaluates a quadratic whatever the number of coefficients.
    coefficients = Layout(lambda value: value[:, :3, 0, 0], there)

    def entries(key: str, path: str) -> Iterator[Entry]:
        yield Entry(f"{key}.{prefix}coef", f"params/{path}/coefficients", coefficients)
        for name in ("in_scale", "out_scale"):
            value = kwargs.get(name, 1)
            if kwargs.get("train_scale", False):
                yield Entry(f"{key}.{prefix}{name}", f"params/{path}/{name}")
            elif value != 1:
                yield Entry(f"{key}.{prefix}{name}", constant=np.full(1, value, np.float32))

    return entries


def convnext(network: ConvNeXt, style: Style) -> Iterator[Entry]:
    """All tensors of `network` in the words of `style`."""
    inner = ".1" if style.wrapped else ""
    for stage, (depth, width) in enumerate(zip(network.depths, network.widths, strict=True)):
        key, path = f"downsample_layers.{stage}", f"downsample{stage}" if stage else "stem"
        if stage == 0:
            yield from linear(f"{key}.0{inner}", f"{path}/conv", CONV)
            if network.stem_residual:
                yield Entry(f"{key}.1.gamma", f"params/{path}/gain")
            activation = f"{key}.1.residual.0" if network.stem_residual else f"{key}.1"
            yield from style.stem_activation(activation, f"{path}/activation")
            yield from style.norm(f"{key}.{style.stem_norm}", f"{path}_norm")
        else:
            yield from style.norm(f"{key}.0", f"{path}_norm")
            yield from linear(f"{key}.1{inner}", f"{path}/conv", CONV)
        for name in style.filters if stage else style.stem_filters:
            yield blur_filter(f"{key}.{name}", width, style.filter_size)
        for block in range(depth):
            yield from _block(network, style, f"stages.{stage}.{block}", f"stage{stage}_block{block}")
    yield from affine("norm", "norm")
    yield from linear("head", "head")


def _block(network: ConvNeXt, style: Style, key: str, path: str) -> Iterator[Entry]:
    if network.layer_scale_init > 0:
        yield Entry(f"{key}.gamma", f"params/{path}/layer_scale")
    yield from linear(f"{key}.dwconv{'.1' if style.wrapped else ''}", f"{path}/depthwise", DEPTHWISE)
    yield from style.norm(f"{key}.norm", f"{path}/norm")
    yield from linear(f"{key}.{style.mlp}pwconv1", f"{path}/mlp/expand")
    yield from style.activation(f"{key}.{style.mlp}act", f"{path}/mlp/activation")
    yield from linear(f"{key}.{style.mlp}pwconv2", f"{path}/mlp/project")


def convnext_entries(network: ConvNeXt, model: str, options: Options) -> Iterator[Entry]:
    """The state dict of a network of the original, without the masks of its ideal filters.

    These (`rect`) are made on first use.
    """
    return convnext(network, _style(model, options))


def _style(model: str, options: Options) -> Style:
    stem_mode = options.get("stem_mode")
    size, stem_filters, filters = _filters(model, options)
    stem_norm = {"convnext_afc": 3 if stem_mode else 2, "convnext_aps": 3}.get(model, 1)
    kwargs, stem_kwargs = (options.get(f"{part}activation_kwargs", {}) for part in ("", "stem_"))
    activation = options.get("activation", "poly_per_channel" if model == "convnext_poly" else "gelu")
    stem_activation = (options.get("stem_activation") or activation) if stem_mode else "gelu"
    # The MLP that upsamples as a whole holds the polynomial itself, others hold the activation module.
    whole = model == "convnext_afc" and activation == "up_poly_per_channel"
    return Style(
        wrapped=model not in ("convnext", "convnext_poly"),
        stem_norm=stem_norm,
        norm=NORMS[options.get("normalization_type", "C")],
        stem_filters=stem_filters,
        filters=filters,
        filter_size=size,
        mlp="mlp." if model == "convnext_afc" else "",
        activation=_activation_entries("poly_per_channel" if whole else activation, kwargs),
        stem_activation=_activation_entries(stem_activation, stem_kwargs),
    )


def _filters(model: str, options: Options) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
    """Size and names of the blur filters: in the stem, and in each downsampling layer."""
    kwargs = options.get("blurpool_kwargs", {})
    if model == "convnext_aps" and kwargs.get("filt_size", 3) > 1:
        return kwargs.get("filt_size", 3), ("1.filt", "2.filt"), ("2.filt",)
    if model == "convnext_afc" and kwargs.get("filter_type", "basic") == "basic":
        position = 2 if options.get("stem_mode") else 1
        return kwargs.get("filt_size", 1), (f"{position}.filt.filt",), ("2.filt.filt",)
    return 1, (), ()


def _activation_entries(activation: str, kwargs: Options) -> ModuleEntries:
    if activation in ("gelu", "relu"):
        return no_entries
    return polynomial(kwargs, "pact." if activation == "up_poly_per_channel" else "")

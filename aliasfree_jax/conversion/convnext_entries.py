"""State-dict tables of the ConvNeXts of alias_free_convnets."""

from collections.abc import Iterator

import numpy as np

from aliasfree_jax.conversion.entries import (
    CONV,
    DEPTHWISE,
    Entry,
    Layout,
    ModuleEntries,
    Options,
    affine,
    batch_norm,
    blur_filter,
    linear,
    no_entries,
)
from aliasfree_jax.models.convnext import ConvNeXt


def _group_norm(key: str, path: str) -> Iterator[Entry]:
    return affine(key, f"{path}/norm")


NORMS: dict[str, ModuleEntries] = {
    "C": affine,
    "CHW2": affine,
    "batch": batch_norm,
    "instance": no_entries,
    "group": _group_norm,
}


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


def _filters(model: str, options: Options) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
    """Size and names of the blur filters: in the stem, and in each downsampling layer."""
    kwargs = options.get("blurpool_kwargs", {})
    if model == "convnext_aps" and kwargs.get("filt_size", 3) > 1:
        return kwargs.get("filt_size", 3), ("1.filt", "2.filt"), ("2.filt",)
    if model == "convnext_afc" and kwargs.get("filter_type", "basic") == "basic":
        position = 2 if options.get("stem_mode") else 1
        return kwargs.get("filt_size", 1), (f"{position}.filt.filt",), ("2.filt.filt",)
    return 1, (), ()


def _activations(model: str, options: Options) -> tuple[ModuleEntries, ModuleEntries]:
    """Entries of the activation of the blocks, and of that of the stem."""
    name = options.get("activation", "poly_per_channel" if model == "convnext_poly" else "gelu")
    stem = (options.get("stem_activation") or name) if options.get("stem_mode") else "gelu"
    # The MLP that upsamples as a whole holds the polynomial itself, others hold the activation module.
    whole = model == "convnext_afc" and name == "up_poly_per_channel"
    found: list[ModuleEntries] = []
    for activation, part in (("poly_per_channel" if whole else name, ""), (stem, "stem_")):
        kwargs = options.get(f"{part}activation_kwargs", {})
        prefix = "pact." if activation == "up_poly_per_channel" else ""
        found.append(no_entries if activation in ("gelu", "relu") else polynomial(kwargs, prefix))
    return found[0], found[1]


def convnext_entries(network: ConvNeXt, model: str, options: Options) -> Iterator[Entry]:
    """The state dict of a network of the original, without the masks of its ideal filters.

    These (`rect`) are made on first use.
    """
    afc, plain = model == "convnext_afc", model in ("convnext", "convnext_poly")
    inner = "" if plain else ".1"  # convolutions are the second module of a sequence, after their padding
    mlp = "mlp." if afc else ""
    norm = NORMS[options.get("normalization_type", "C")]
    activation, stem_activation = _activations(model, options)
    size, stem_filters, filters = _filters(model, options)
    for stage, (depth, width) in enumerate(zip(network.depths, network.widths, strict=True)):
        key, path = f"downsample_layers.{stage}", f"downsample{stage}" if stage else "stem"
        if stage == 0:
            yield from linear(f"{key}.0{inner}", f"{path}/conv", CONV)
            if network.stem_residual:
                yield Entry(f"{key}.1.gamma", f"params/{path}/gain")
            place = f"{key}.1.residual.0" if network.stem_residual else f"{key}.1"
            yield from stem_activation(place, f"{path}/activation")
            position = (3 if options.get("stem_mode") else 2) if afc else 3 if model == "convnext_aps" else 1
            yield from norm(f"{key}.{position}", f"{path}_norm")
        else:
            yield from norm(f"{key}.0", f"{path}_norm")
            yield from linear(f"{key}.1{inner}", f"{path}/conv", CONV)
        for name in filters if stage else stem_filters:
            yield blur_filter(f"{key}.{name}", width, size)
        for block in range(depth):
            key, path = f"stages.{stage}.{block}", f"stage{stage}_block{block}"
            if network.layer_scale_init > 0:
                yield Entry(f"{key}.gamma", f"params/{path}/layer_scale")
            yield from linear(f"{key}.dwconv{inner}", f"{path}/depthwise", DEPTHWISE)
            yield from norm(f"{key}.norm", f"{path}/norm")
            yield from linear(f"{key}.{mlp}pwconv1", f"{path}/mlp/expand")
            yield from activation(f"{key}.{mlp}act", f"{path}/mlp/activation")
            yield from linear(f"{key}.{mlp}pwconv2", f"{path}/mlp/project")
    yield from affine("norm", "norm")
    yield from linear("head", "head")

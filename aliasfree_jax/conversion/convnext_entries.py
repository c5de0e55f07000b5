"""State-dict tables of ConvNeXts, shared by several code bases."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from aliasfree_jax.conversion.entries import (
    CONV,
    DENSE,
    DEPTHWISE,
    VECTOR,
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
from aliasfree_jax.models.convnext import SIZES, ConvNeXt

State = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Names:
    """The tensor names of a code base's ConvNeXts.

    Names may contain the places `{stage}` and `{block}`, `{even}` (twice the stage) and `{odd}` (`{even}` +
    1). Keys within a block start with `block`.

    Attributes:
      stem: The stem's convolution.
      stem_norm: The stem's norm.
      downsample_norm: The norm before a downsampling convolution.
      downsample: A downsampling convolution.
      block: A block.
      depthwise: The depthwise convolution, within a block.
      norm: The norm, within a block.
      expand: The first layer of the MLP, within a block.
      project: The second layer of the MLP, within a block.
      layer_scale: The layer scale, within a block.
      final_norm: The last norm.
      head: The last linear layer.
      pointwise: Layout of the MLP's kernels.
      scale: Layout of the layer scale.
      norms: Entries of all norms except the last one.
    """

    stem: str
    stem_norm: str
    downsample_norm: str
    downsample: str
    block: str
    depthwise: str
    norm: str
    expand: str
    project: str
    layer_scale: str
    final_norm: str
    head: str
    pointwise: Layout = DENSE
    scale: Layout = VECTOR
    norms: ModuleEntries = affine


def placed(name: str, stage: int, block: int = 0) -> str:
    """Fills stage and block into a name of `Names`."""
    return name.format(stage=stage, block=block, even=2 * stage, odd=2 * stage + 1)


def convnext(network: ConvNeXt, names: Names) -> Iterator[Entry]:
    """Yields all tensors of `network` except those of activations and samplers."""
    yield from linear(names.stem, "stem/conv", CONV)
    yield from names.norms(names.stem_norm, "stem_norm")
    for stage, depth in enumerate(network.depths):
        if stage >= network.first_downsampled:
            yield from names.norms(placed(names.downsample_norm, stage), f"downsample{stage}_norm")
            yield from linear(placed(names.downsample, stage), f"downsample{stage}/conv", CONV)
        for block in range(depth):
            key, path = placed(names.block, stage, block), f"stage{stage}_block{block}"
            if network.layer_scale_init > 0:
                yield Entry(f"{key}.{names.layer_scale}", f"params/{path}/layer_scale", names.scale)
            yield from linear(f"{key}.{names.depthwise}", f"{path}/depthwise", DEPTHWISE)
            yield from names.norms(f"{key}.{names.norm}", f"{path}/norm")
            yield from linear(f"{key}.{names.expand}", f"{path}/mlp/expand", names.pointwise)
            yield from linear(f"{key}.{names.project}", f"{path}/mlp/project", names.pointwise)
    yield from affine(names.final_norm, "norm")
    if network.num_classes:
        yield from linear(names.head, "head")


def sized(variant: str, depths: Sequence[int], widths: Sequence[int]) -> tuple[str, dict[str, Any]]:
    """Returns name and options of `create_model`: a published size, or tiny with `depths` and `widths`."""
    sizes = {"depths": tuple(depths), "widths": tuple(widths)}
    name = next((name for name, size in SIZES.items() if size == sizes), None)
    return (f"{variant}_{name}", {}) if name else (f"{variant}_tiny", sizes)


def _stages(state: State, names: Names) -> tuple[list[int], list[int]]:
    """Depths and widths of the network with these tensors. Every stage and block with a tensor counts."""
    depths: list[int] = []
    widths: list[int] = []
    while True:
        stage, depth = len(depths), 0
        while any(key.startswith(f"{placed(names.block, stage, depth)}.") for key in state):
            depth += 1
        vectors = (
            state.get(f"{placed(names.block, stage)}.{name}")
            for name in (f"{names.norm}.weight", f"{names.norm}.bias", f"{names.depthwise}.bias")
        )
        width = next((vector.size for vector in vectors if vector is not None), 0)
        if not (depth and width):
            return depths, widths
        depths.append(depth)
        widths.append(width)


def rank(state: State, key: str) -> int:
    """Returns the number of axes of a tensor. 0 if it is missing."""
    return state[key].ndim if key in state else 0


def read_off(state: State, names: Names) -> dict[str, Any] | None:
    """Reads the sizes of a ConvNeXt from keys and shapes. None for weights of another network."""
    stem = state.get(f"{names.stem}.weight")
    depths, widths = _stages(state, names)
    if stem is None or stem.ndim != 4 or not depths:
        return None
    return {
        "depths": tuple(depths),
        "widths": tuple(widths),
        "patch_size": stem.shape[-1],
        "channels": stem.shape[1],
        "classes": state[f"{names.head}.bias"].size if f"{names.head}.bias" in state else 0,
        "scaled": any(key.endswith(f".{names.layer_scale}") for key in state),
    }


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
    """Returns the entries of a polynomial activation with these constructor arguments."""
    count = len(kwargs.get("coef", (0, 0, 0)))

    def there(value: np.ndarray) -> np.ndarray:
        return np.pad(value, ((0, 0), (0, count - value.shape[1])))[..., None, None]

    # The original evaluates a quadratic. It ignores further coefficients.
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
    """Size of the blur filters, their names in the stem, and their names in a downsampling layer."""
    kwargs = options.get("blurpool_kwargs", {})
    if model == "convnext_aps" and kwargs.get("filt_size", 3) > 1:
        return kwargs.get("filt_size", 3), ("1.filt", "2.filt"), ("2.filt",)
    if model == "convnext_afc" and kwargs.get("filter_type", "basic") == "basic":
        position = 2 if options.get("stem_mode") else 1
        return kwargs.get("filt_size", 1), (f"{position}.filt.filt",), ("2.filt.filt",)
    return 1, (), ()


def _activations(model: str, options: Options) -> tuple[ModuleEntries, ModuleEntries]:
    """Entries of the blocks' activation and of the stem's activation."""
    name = options.get("activation", "poly_per_channel" if model == "convnext_poly" else "gelu")
    stem = (options.get("stem_activation") or name) if options.get("stem_mode") else "gelu"
    # An MLP that upsamples holds the polynomial directly. Other MLPs hold the activation module.
    whole = model == "convnext_afc" and name == "up_poly_per_channel"
    found: list[ModuleEntries] = []
    for activation, part in (("poly_per_channel" if whole else name, ""), (stem, "stem_")):
        kwargs = options.get(f"{part}activation_kwargs", {})
        prefix = "pact." if activation == "up_poly_per_channel" else ""
        found.append(no_entries if activation in ("gelu", "relu") else polynomial(kwargs, prefix))
    return found[0], found[1]


def _names(model: str, options: Options) -> Names:
    afc, plain = model == "convnext_afc", model in ("convnext", "convnext_poly")
    inner = "" if plain else ".1"  # the convolution follows its padding in a sequence
    mlp = "mlp." if afc else ""
    position = (3 if options.get("stem_mode") else 2) if afc else 3 if model == "convnext_aps" else 1
    return Names(
        stem=f"downsample_layers.0.0{inner}",
        stem_norm=f"downsample_layers.0.{position}",
        downsample_norm="downsample_layers.{stage}.0",
        downsample=f"downsample_layers.{{stage}}.1{inner}",
        block="stages.{stage}.{block}",
        depthwise=f"dwconv{inner}",
        norm="norm",
        expand=f"{mlp}pwconv1",
        project=f"{mlp}pwconv2",
        layer_scale="gamma",
        final_norm="norm",
        head="head",
        norms=NORMS[options.get("normalization_type", "C")],
    )


def convnext_entries(network: ConvNeXt, model: str, options: Options) -> Iterator[Entry]:
    """Yields the state dict of a network of alias_free_convnets.

    The masks of ideal filters (`rect`) are left out: the original makes them on first use.
    """
    yield from convnext(network, _names(model, options))
    activation, stem_activation = _activations(model, options)
    if network.stem_residual:
        yield Entry("downsample_layers.0.1.gamma", "params/stem/gain")
    place = "downsample_layers.0.1.residual.0" if network.stem_residual else "downsample_layers.0.1"
    yield from stem_activation(place, "stem/activation")
    size, stem_filters, filters = _filters(model, options)
    mlp = "mlp." if model == "convnext_afc" else ""
    for stage, (depth, width) in enumerate(zip(network.depths, network.widths, strict=True)):
        for name in filters if stage else stem_filters:
            yield blur_filter(f"downsample_layers.{stage}.{name}", width, size)
        for block in range(depth):
            yield from activation(
                f"stages.{stage}.{block}.{mlp}act", f"stage{stage}_block{block}/mlp/activation"
            )

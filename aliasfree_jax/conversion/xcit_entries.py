"""State-dict tables of XCiTs, shared by timm, facebookresearch/xcit and the Alias-Free ViT."""

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from aliasfree_jax.conversion.entries import (
    CONV,
    DEPTHWISE,
    POINTWISE,
    Entry,
    Layout,
    Options,
    affine,
    batch_norm,
    linear,
)
from aliasfree_jax.conversion.fields import Only
from aliasfree_jax.layers.activation import LowpassPolynomial, Polynomial, UpPolynomial
from aliasfree_jax.models.xcit import SIZES, XCiT

State = Mapping[str, np.ndarray]

# Arguments that timm and the originals share, with their defaults, and the values that can be converted.
ARGUMENTS: Options = {
    "embed_dim": 768,
    "depth": 12,
    "num_heads": 12,
    "patch_size": 16,
    "mlp_ratio": 4.0,
    "eta": 1.0,
    "cls_attn_layers": 2,
    "num_classes": 1000,
}
ONLY: Mapping[str, Only] = {
    "qkv_bias": Only((True,), "queries, keys and values without bias"),
    "patch_size": Only((16, 8), "another stem"),
}

TEMPERATURE = Layout(lambda value: value[:, 0, 0], lambda value: value[:, None, None])
COEFFICIENTS = Layout(lambda value: value.reshape(value.shape[:2]), lambda value: value[:, :, None, None])
# torch's module that holds an activation's weights, by our class.
_INNER = {UpPolynomial: "act_layer.", LowpassPolynomial: "", Polynomial: ""}


@dataclasses.dataclass(frozen=True)
class Names:
    """How the code bases differ.

    Attributes:
      convolutions: Places of the stem's convolutions in its sequence. Activations follow them.
      positions: The projection of the positions.
      local_norm: The norm within a local patch interaction.
      separate: Whether class attention has three linear layers instead of one.
      constant_scales: The scales that are 1 and not stored, for the activations of the blocks ("mlp_act",
        "lpi_act") and of the stem ("pe_act", "pe_first_act").
    """

    convolutions: Sequence[int]
    positions: str
    local_norm: str
    separate: bool = False
    constant_scales: Mapping[str, Collection[str]] = dataclasses.field(default_factory=dict)


def xcit(network: XCiT, names: Names) -> Iterator[Entry]:
    """Yields the state dict of an XCiT."""
    yield from _stem(network, names)
    if network.positions is not None:
        yield from linear(f"{names.positions}.token_projection", "positions/linear", POINTWISE)
    local = network.local_activation or network.activation
    for i in range(network.depth):
        key, path = f"blocks.{i}", f"block{i}"
        for number, branch in ((1, "attention"), (3, "interaction"), (2, "mlp")):
            yield Entry(f"{key}.gamma{number}", f"params/{path}/{branch}_scale")
            yield from affine(f"{key}.norm{number}", f"{path}/{branch}_norm")
        yield from _cross_covariance(f"{key}.attn", f"{path}/attention")
        yield from _mlp(f"{key}.mlp", f"{path}/mlp")
        yield from _activation(network.activation, f"{key}.mlp.act", f"{path}/mlp", names, "mlp_act")
        for number in (1, 2):
            yield from linear(f"{key}.local_mp.conv{number}", f"{path}/interaction/conv{number}", DEPTHWISE)
        yield from _activation(local, f"{key}.local_mp.act", f"{path}/interaction", names, "lpi_act")
        yield from batch_norm(f"{key}.local_mp.{names.local_norm}", f"{path}/interaction/norm")
    if network.class_attention is not None:
        yield from _class_blocks(network, names)
    yield from linear("head", "head")


def _stem(network: XCiT, names: Names) -> Iterator[Entry]:
    usual = network.stem_activation or network.activation
    last = len(names.convolutions) - 1
    for i, place in enumerate(names.convolutions):
        key = f"patch_embed.proj.{place}"
        yield Entry(f"{key}.0.weight", f"params/stem/conv{i + 1}{_conv(network)}/kernel", CONV)
        yield from batch_norm(f"{key}.1", f"stem/norm{i + 1}")
        activation = (i == 0 and network.stem_first_activation) or usual
        activation = (i == last and network.stem_last_activation) or activation
        word = "pe_first_act" if i == 0 and network.stem_first_activation else "pe_act"
        yield from _activation(activation, f"patch_embed.proj.{place + 1}", "stem", names, word, str(i + 1))


def _conv(network: XCiT) -> str:
    """A stem that samples before it activates has its convolution inside a sampled convolution."""
    return "/conv" if getattr(network.patch_stem, "__name__", "") == "PatchStem" else ""


def _activation(
    factory: Any, key: str, path: str, names: Names, word: str, number: str = ""
) -> Iterator[Entry]:
    activation = factory(parent=None)
    inner = _INNER.get(type(activation))
    if inner is None:
        return
    here = f"params/{path}/activation{number}"
    yield Entry(f"{key}.{inner}coef", f"{here}/coefficients", COEFFICIENTS)
    for scale in ("in_scale", "out_scale") if activation.train_scale else ():
        if scale in names.constant_scales.get(word, ()):
            yield Entry("", f"{here}/{scale}", constant=np.ones(1, np.float32))
        else:
            yield Entry(f"{key}.{inner}{scale}", f"{here}/{scale}")


def _cross_covariance(key: str, path: str) -> Iterator[Entry]:
    yield Entry(f"{key}.temperature", f"params/{path}/temperature", TEMPERATURE)
    yield from linear(f"{key}.qkv", f"{path}/qkv")
    yield from linear(f"{key}.proj", f"{path}/project")


def _mlp(key: str, path: str) -> Iterator[Entry]:
    yield from linear(f"{key}.fc1", f"{path}/expand")
    yield from linear(f"{key}.fc2", f"{path}/project")


def _class_blocks(network: XCiT, names: Names) -> Iterator[Entry]:
    yield Entry("cls_token", "params/class_token", Layout(np.ravel, lambda value: value[None, None]))
    of_classes = getattr(network.class_attention, "__name__", "") == "ClassAttention"
    for i in range(network.class_blocks):
        key, path = f"cls_attn_blocks.{i}", f"class_block{i}"
        for number, branch in ((1, "attention"), (2, "mlp")):
            yield Entry(f"{key}.gamma{number}", f"params/{path}/{branch}_scale")
            yield from affine(f"{key}.norm{number}", f"{path}/{branch}_norm")
        if of_classes:
            yield from _class_attention(f"{key}.attn", f"{path}/attention", names.separate)
        else:
            yield from _cross_covariance(f"{key}.attn", f"{path}/attention")
        yield from _mlp(f"{key}.mlp", f"{path}/mlp")
    yield from affine("norm", "norm")


def _class_attention(key: str, path: str, separate: bool) -> Iterator[Entry]:
    for third, name in enumerate(("query", "key", "value")):
        for entry in linear(f"{key}.{name[0] if separate else 'qkv'}", f"{path}/{name}"):
            yield entry if separate else dataclasses.replace(entry, share=(third, 3))
    yield from linear(f"{key}.proj", f"{path}/project")


def arguments(variant: str, read: Options) -> tuple[str, dict[str, Any]]:
    """Returns the arguments of `create_model` for sizes in the words of the original."""
    ours = {
        "width": read["embed_dim"],
        "depth": read["depth"],
        "num_heads": read["num_heads"],
        "patch_size": read["patch_size"],
    }
    size = next((n for n, s in SIZES.items() if all(s[k] == ours[k] for k in ours)), "nano_12_p16")
    return f"{variant}_{size}", {
        **ours,
        "layer_scale_init": read["eta"],
        "mlp_ratio": read["mlp_ratio"],
        "num_classes": read["num_classes"],
        "class_blocks": read["cls_attn_layers"],
        "normed_tokens": "all" if read["tokens_norm"] else "class",
    }


def published_size(found: Options) -> str | None:
    """The name of the published size with these arguments, such as "nano_12_p16". None for other sizes."""
    words = ("embed_dim", "depth", "num_heads", "patch_size")
    published = ((name, sizes_of(name)) for name in SIZES)
    return next((n for n, size in published if size and all(size[w] == found[w] for w in words)), None)


def sizes_of(name: str) -> dict[str, Any] | None:
    """The arguments of a published size, such as "nano_12_p16". None for another name."""
    size = SIZES.get(name)
    if size is None or name in ("micro", "cifar"):
        return None
    return {
        "embed_dim": size["width"],
        "depth": size["depth"],
        "num_heads": size["num_heads"],
        "patch_size": size["patch_size"],
        "eta": size["layer_scale_init"],
        "tokens_norm": True,
    }


def read_off(state: State) -> dict[str, Any] | None:
    """Reads sizes from keys and shapes. None for weights of another network."""
    temperature, head = state.get("blocks.0.attn.temperature"), state.get("head.weight")
    stem = state.get("patch_embed.proj.0.0.weight")
    if temperature is None or stem is None or head is None:
        return None
    stages = sum(
        key.startswith("patch_embed.proj.") and key.endswith(".0.weight") and np.ndim(value) == 4
        for key, value in state.items()
    )
    return {
        "embed_dim": head.shape[1],
        "depth": 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks.")),
        "num_heads": np.shape(temperature)[0],
        "patch_size": 2**stages,
        "num_classes": len(head),
        "cls_attn_layers": len({key.split(".")[1] for key in state if key.startswith("cls_attn_blocks.")}),
        "tokens_norm": head.shape[1] != 128,  # the published nano networks norm the class token only
    }


def described_sizes(network: Options) -> dict[str, Any]:
    """The arguments of a described network (module `description`) in the words of the original."""
    return {
        "embed_dim": network["width"],
        "depth": network["depth"],
        "num_heads": network["num_heads"],
        "patch_size": network["patch_size"],
        "mlp_ratio": network["mlp_ratio"],
        "cls_attn_layers": network["class_blocks"],
        "tokens_norm": network["normed_tokens"] == "all",
    }

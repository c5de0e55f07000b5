"""Names of the parts of networks, and JSON-compatible options that select them.

A part is given by its name ("ideal"), as a module class or factory, or by a dictionary of name and fields:
`{"name": "blur", "kernel_size": 3}`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from aliasfree_jax import layers
from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.layers import activation, attention, patches, shortcut, stems
from aliasfree_jax.layers.layer import Factory, ModuleFactory

Part = str | Mapping[str, Any] | ModuleFactory

PARTS: dict[str, dict[str, type[nn.Module]]] = {
    "sampler": {
        "subsample": layers.Subsample,
        "blur": layers.BlurPool,
        "ideal": layers.IdealDownsample,
        "adaptive_blur": layers.AdaptiveBlurPool,
        "polyphase": layers.AdaptivePolyphase,
        "learned_polyphase": layers.LearnedPolyphase,
        "norm_preserving": layers.NormPreserving,
    },
    "upsampler": {
        "transposed": layers.ZeroUpsample,
        "bilinear": layers.BilinearUpsample,
        "polyphase": layers.PolyphaseUpsample,
        "ideal": layers.IdealUpsample,
    },
    "activation": {
        "identity": activation.Identity,
        "gelu": activation.Gelu,
        "up_gelu": layers.UpGelu,
        "relu": activation.Relu,
        "relu6": activation.Relu6,
        "polynomial": layers.Polynomial,
        "up_polynomial": layers.UpPolynomial,
        "lowpass_polynomial": layers.LowpassPolynomial,
        "up_self_gate": layers.UpSelfGate,
        "gate": layers.Gate,
        "up_gate": layers.UpGate,
        "lowpass_gate": layers.LowpassGate,
        "bandlimited_gate": layers.BandlimitedGate,
    },
    "conv": {"plain": layers.Conv, "standardised": layers.StandardisedConv},
    "norm": {
        "channel": layers.ChannelNorm,
        "spatial": layers.SpatialNorm,
        "position": layers.PositionNorm,
        "batch": layers.BatchNorm,
        "bounded_batch": layers.BoundedBatchNorm,
        "instance": layers.InstanceNorm,
        "group": layers.GroupNorm,
    },
    "logits": {
        "conv": layers.ConvLogits,
        "attention": layers.AttentionLogits,
        "graph": layers.GraphLogits,
        "linear": layers.LinearLogits,
    },
    "stem": {"image": stems.ImageStem, "deep": stems.DeepStem, "small": stems.SmallStem},
    "shortcut": {"projection": shortcut.ProjectionShortcut, "zero_padded": shortcut.ZeroPaddedShortcut},
    "patch_stem": {
        "sampled": patches.PatchStem,
        "activated": patches.ActivatedPatchStem,
        "first_activated": patches.FirstActivatedPatchStem,
    },
    "positions": {"fourier": patches.FourierPositions},
    "class_attention": {
        "class": attention.ClassAttention,
        "cross_covariance": attention.CrossCovarianceAttention,
    },
}
"""The parts of each kind by name. `register_part` adds to them."""

# Options of networks that contain a part, and the kind of that part.
KIND_OF_OPTION = {
    **{kind: kind for kind in ("sampler", "upsampler", "activation", "norm", "conv", "stem", "shortcut")},
    **{kind: kind for kind in ("patch_stem", "positions", "class_attention")},
    **dict.fromkeys(("final_norm", "conv_norm"), "norm"),
    **dict.fromkeys(("stem_activation", "sum_activation"), "activation"),
    **dict.fromkeys(("local_activation", "stem_first_activation", "stem_last_activation"), "activation"),
    "shortcut_sampler": "sampler",
}
# Fields of parts that contain another part, and its kind.
_NESTED = {"inner": "sampler", "first_sampler": "sampler", "logits": "logits"}

# Fields that the network sets.
_RESERVED = {"name", "parent", "dtype", "param_dtype", "precision", "strides", "scale_init"}
# Further fields that the network sets, by kind.
_RESERVED_IN = {
    "stem": {"width", "sampler", "activation", "norm", "padding", "conv"},
    "shortcut": {"features", "stride", "sampler", "norm", "conv"},
    "conv": {field.name for field in dataclasses.fields(layers.Conv)},
    "patch_stem": {f.name for f in dataclasses.fields(patches.PatchStem)},
    "class_attention": {"num_heads"},
}


def register_part(kind: str, name: str, module: type[nn.Module]) -> None:
    """Registers your layer under a name, so that options and configurations can select it.

    The name is known in the current process only: register it wherever such a network is built.

    Args:
      kind: one of `PARTS`, such as "sampler", "activation" or "norm". The layer is built and called like the
        library's parts of this kind. A gated activation (two input channels per output channel) needs the
        class attribute `gated = True`. It can be used in ConvNeXts, ResNets, XCiTs and U-Nets.
      name: name in options.
      module: the module class.

    Raises:
      ConfigError: unknown kind, name already taken, or not a module class.

    Source: this package.
    """
    if kind not in PARTS:
        raise ConfigError(unknown("kind of part", kind, PARTS))
    if name in PARTS[kind]:
        raise ConfigError(
            f"the {kind} name {name!r} is taken by {PARTS[kind][name].__name__}: choose another name."
        )
    if not (isinstance(module, type) and issubclass(module, nn.Module)):
        raise ConfigError(f"expected the class of a Flax module for the {kind} {name!r}, got {module!r}.")
    PARTS[kind][name] = module


def fields_of(part: Part) -> dict[str, Any] | None:
    """Returns name and fields of a part given by name or dictionary; None for a class or factory."""
    if isinstance(part, str):
        return {"name": part}
    return dict(part) if isinstance(part, Mapping) else None


# What the cutoff loses before sampling, times the stride. Two low-passed factors share the loss.
_LOST = {"lowpass_polynomial": 1.0, "lowpass_gate": 1.0, "bandlimited_gate": 0.5}


def with_cutoff(part: Part | None, stride: int) -> Part | None:
    """Sets the cutoff of a low-passed product before sampling by `stride`, if it is not given.

    Raises:
      ConfigError: a low-passed product, but nothing is sampled.
    """
    fields = None if part is None else fields_of(part)
    if fields is None or fields.get("name") not in _LOST:
        return part
    if stride == 1 and "cutoff" not in fields:
        raise ConfigError(
            f"{fields['name']} needs the low-pass filter of a strided stem: with stem_stride=1 use "
            "stem_activation=None."
        )
    return {"cutoff": 1 - _LOST[fields["name"]] / stride, **fields}


def frozen(value: Any) -> Any:
    """Replaces lists by tuples, so that networks can be hashed."""
    return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value


def resolve(kind: str, part: Part, option: str = "", *, gated: bool = True) -> ModuleFactory:
    """Returns the class or factory that `part` selects among the parts of this kind.

    Args:
      option: name of the option in error messages, if it differs from `kind`.
      gated: whether gated activations are allowed.

    Raises:
      ConfigError: unknown name or field (the message lists similar ones), or a missing field without
        default.
    """
    option = option or kind
    if isinstance(part, nn.Module):
        raise ConfigError(
            f"expected the {option} as a name, dictionary or module class, got a module: the network sets "
            f"some of its fields, so pass the class or layers.Factory({type(part).__name__}, ...)."
        )
    if callable(part):
        return part
    fields = fields_of(part)
    if fields is None:
        raise ConfigError(f"expected the {option} as a name, dictionary or module class, got {part!r}.")
    name = fields.pop("name", None)
    known = {n: m for n, m in PARTS[kind].items() if gated or not getattr(m, "gated", False)}
    if name not in known:
        raise ConfigError(unknown(option, name, known))
    module = known[name]
    reserved = _RESERVED | _RESERVED_IN.get(kind, set())
    legal = {field.name: field for field in dataclasses.fields(module) if field.name not in reserved}
    for field in fields:
        if field not in legal:
            raise ConfigError(unknown(f"option of {option} {name!r}", field, legal))
    for field, declared in legal.items():
        optional = declared.default is not dataclasses.MISSING or field in fields
        if not optional and declared.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{option} {name!r} needs the option {field!r}.")
    for field, inner in _NESTED.items():
        if fields.get(field) is not None:
            fields[field] = resolve(inner, fields[field])
    # The plain class if there are no fields: networks made by name and by class are then equal.
    return Factory(module, **{field: frozen(value) for field, value in fields.items()}) if fields else module

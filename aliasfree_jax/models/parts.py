"""Names of the parts that networks are built from, and how a JSON-able option names one.

A part is given as its name ("ideal"), as a dictionary of its name and fields
({"name": "blur", "kernel_size": 3}), or as a module class or factory of your own.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from aliasfree_jax import layers
from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.layers import activation, sampled, shortcut
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
        "relu": activation.Relu,
        "relu6": activation.Relu6,
        "polynomial": layers.Polynomial,
        "up_polynomial": layers.UpPolynomial,
        "lowpass_polynomial": layers.LowpassPolynomial,
        "up_self_gate": layers.UpSelfGate,
        "gate": layers.Gate,
        "up_gate": layers.UpGate,
        "lowpass_gate": layers.LowpassGate,
    },
    "norm": {
        "channel": layers.ChannelNorm,
        "spatial": layers.SpatialNorm,
        "batch": layers.BatchNorm,
        "instance": layers.InstanceNorm,
        "group": layers.GroupNorm,
    },
    "logits": {
        "conv": layers.ConvLogits,
        "attention": layers.AttentionLogits,
        "graph": layers.GraphLogits,
        "linear": layers.LinearLogits,
    },
    "stem": {"image": sampled.ImageStem, "deep": sampled.DeepStem, "small": sampled.SmallStem},
    "shortcut": {"projection": shortcut.ProjectionShortcut, "zero_padded": shortcut.ZeroPaddedShortcut},
}
"""The parts of each kind by name; `register_part` adds to them."""

# Options of networks that hold a part, and of which kind it is.
KIND_OF_OPTION = {
    **{kind: kind for kind in ("sampler", "upsampler", "activation", "norm", "stem", "shortcut")},
    "final_norm": "norm",
    **dict.fromkeys(("stem_activation", "sum_activation"), "activation"),
    "shortcut_sampler": "sampler",
}
# Fields of parts that hold a part themselves.
_NESTED = {"inner": "sampler", "first_sampler": "sampler", "logits": "logits"}

# Fields that the network fills in itself.
_RESERVED = {"name", "parent", "dtype", "param_dtype", "precision", "strides", "scale_init"}
# ... of these kinds, besides.
_RESERVED_IN = {
    "stem": {"width", "sampler", "activation", "norm", "padding"},
    "shortcut": {"features", "stride", "sampler", "norm"},
}


def register_part(kind: str, name: str, module: type[nn.Module]) -> None:
    """Makes a layer of your own known by name, so that JSON-able options and configurations can give it.

    Args:
      kind: "sampler", "upsampler", "activation", "norm", "logits", "stem" or "shortcut": it is called and
        built as the library's own of this kind are. An activation that takes twice the maps it gives has the
        class attribute `gated` = True, and is for networks whose layer before it can make as many: ConvNeXts
        and U-Nets.
      name: what options call it. It is known in this process: register it wherever such a network is built.
      module: the class.

    Raises:
      ConfigError: an unknown kind, a name that is taken, no module class.
    """
    if kind not in PARTS:
        raise ConfigError(unknown("kind of part", kind, PARTS))
    if name in PARTS[kind]:
        raise ConfigError(f"{kind} {name!r} is taken by {PARTS[kind][name].__name__}: choose another name.")
    if not (isinstance(module, type) and issubclass(module, nn.Module)):
        raise ConfigError(f"expected the class of a Flax module for the {kind} {name!r}, got {module!r}.")
    PARTS[kind][name] = module


def fields_of(part: Part) -> dict[str, Any] | None:
    """The name and fields of a part that is given by name or dictionary; None for a class or factory."""
    if isinstance(part, str):
        return {"name": part}
    return dict(part) if isinstance(part, Mapping) else None


def frozen(value: Any) -> Any:
    """`value` with tuples in place of lists, so that networks can be hashed."""
    return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value


def resolve(kind: str, part: Part, option: str = "", *, gated: bool = True) -> ModuleFactory:
    """The class, or factory, that `part` names among those of its kind.

    Args:
      option: what messages call it, if not by its kind.
      gated: whether gated activations can be used as well.

    Raises:
      ConfigError: unknown name or field, with the near ones; a field without default left out.
    """
    option = option or kind
    if isinstance(part, nn.Module):
        raise ConfigError(
            f"expected the {option} as a name, dictionary or module class, got a module: the network fills "
            f"in some of its fields, so give the class, or layers.Factory({type(part).__name__}, ...)."
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
    # A class by itself, so that a part and its name alone are equal, and so are their networks.
    return Factory(module, **{field: frozen(value) for field, value in fields.items()}) if fields else module

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
from aliasfree_jax.layers import activation
from aliasfree_jax.layers.layer import Factory, ModuleFactory
from aliasfree_jax.models.resnet_stems import ImageStem, SmallStem

Part = str | Mapping[str, Any] | ModuleFactory

SAMPLERS: dict[str, type[nn.Module]] = {
    "subsample": layers.Subsample,
    "blur": layers.BlurPool,
    "ideal": layers.IdealDownsample,
    "adaptive_blur": layers.AdaptiveBlurPool,
    "polyphase": layers.AdaptivePolyphase,
    "learned_polyphase": layers.LearnedPolyphase,
    "norm_preserving": layers.NormPreserving,
}
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "identity": activation.Identity,
    "gelu": activation.Gelu,
    "relu": activation.Relu,
    "relu6": activation.Relu6,
    "polynomial": layers.Polynomial,
    "up_polynomial": layers.UpPolynomial,
    "lowpass_polynomial": layers.LowpassPolynomial,
    "up_self_gate": layers.UpSelfGate,
}
# Of networks whose layer before the activation makes as many maps as it takes.
GATED_ACTIVATIONS: dict[str, type[nn.Module]] = ACTIVATIONS | {
    "gate": layers.Gate,
    "up_gate": layers.UpGate,
    "lowpass_gate": layers.LowpassGate,
}
NORMS: dict[str, type[nn.Module]] = {
    "channel": layers.ChannelNorm,
    "spatial": layers.SpatialNorm,
    "batch": layers.BatchNorm,
    "instance": layers.InstanceNorm,
    "group": layers.GroupNorm,
}
LOGITS: dict[str, type[nn.Module]] = {
    "conv": layers.ConvLogits,
    "attention": layers.AttentionLogits,
    "graph": layers.GraphLogits,
    "linear": layers.LinearLogits,
}
STEMS: dict[str, type[nn.Module]] = {"image": ImageStem, "small": SmallStem}

# Fields that hold a part themselves, and where it is named.
_NESTED = {
    "inner": ("sampler", SAMPLERS),
    "first_sampler": ("sampler", SAMPLERS),
    "logits": ("logits", LOGITS),
}

# Fields that the network fills in itself.
_RESERVED = {"name", "parent", "dtype", "param_dtype", "precision", "strides", "scale_init"}
# ... of a stem, besides.
_RESERVED_IN_STEMS = {"width", "sampler", "activation", "norm", "padding"}


def frozen(value: Any) -> Any:
    """`value` with tuples in place of lists, so that networks can be hashed."""
    return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value


def resolve(kind: str, part: Part, table: Mapping[str, type[nn.Module]]) -> ModuleFactory:
    """The class, or factory, that `part` names among `table`.

    Raises:
      ConfigError: unknown name or field, with the near ones; a field without default left out.
    """
    if isinstance(part, nn.Module):
        raise ConfigError(
            f"expected the {kind} as a name, dictionary or module class, got a module: the network fills in "
            f"some of its fields, so give the class, or layers.Factory({type(part).__name__}, ...)."
        )
    if callable(part):
        return part
    if not isinstance(part, str | Mapping):
        raise ConfigError(f"expected the {kind} as a name, dictionary or module class, got {part!r}.")
    fields: dict[str, Any] = {"name": part} if isinstance(part, str) else dict(part)
    name = fields.pop("name", None)
    if name not in table:
        raise ConfigError(unknown(kind, name, table))
    module = table[str(name)]
    reserved = _RESERVED | (_RESERVED_IN_STEMS if kind == "stem" else set())
    legal = {field.name: field for field in dataclasses.fields(module) if field.name not in reserved}
    for field in fields:
        if field not in legal:
            raise ConfigError(unknown(f"option of {kind} {name!r}", field, legal))
    for field, declared in legal.items():
        optional = declared.default is not dataclasses.MISSING or field in fields
        if not optional and declared.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{kind} {name!r} needs the option {field!r}.")
    for field, (inner, names) in _NESTED.items():
        if fields.get(field) is not None:
            fields[field] = resolve(inner, fields[field], names)
    # A class by itself, so that a part and its name alone are equal, and so are their networks.
    return Factory(module, **{field: frozen(value) for field, value in fields.items()}) if fields else module

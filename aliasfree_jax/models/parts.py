"""Names of the parts that networks are built from, and how a JSON-able option names one.

A part is given as its name ("ideal"), as a dictionary of its name and fields
({"name": "blur", "size": 3}), or as a module class or factory of your own.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.layers import (
    activation,
    adaptive_blur,
    gate,
    normalization,
    phase_logits,
    polyphase,
    sampling,
)
from aliasfree_jax.models.resnet_stems import ImageStem, SmallStem

ModuleFactory = Callable[..., nn.Module]
Part = str | Mapping[str, Any] | ModuleFactory

SAMPLERS: dict[str, type[nn.Module]] = {
    "subsample": sampling.Subsample,
    "blur": sampling.BlurSampler,
    "ideal": sampling.IdealSampler,
    "adaptive_blur": adaptive_blur.AdaptiveBlurSampler,
    "polyphase": polyphase.PolyphaseSampler,
    "learned_polyphase": polyphase.LearnedPolyphaseSampler,
    "norm_preserving": sampling.NormPreservingSampler,
}
ACTIVATIONS: dict[str, type[nn.Module]] = {
    "identity": activation.Identity,
    "gelu": activation.Gelu,
    "relu": activation.Relu,
    "relu6": activation.Relu6,
    "polynomial": activation.Polynomial,
    "up_polynomial": activation.UpPolynomial,
    "lowpass_polynomial": activation.LowpassPolynomial,
    "up_self_gate": gate.UpSelfGate,
}
# Of networks whose layer before the activation makes as many maps as it takes.
GATED_ACTIVATIONS: dict[str, type[nn.Module]] = ACTIVATIONS | {
    "gate": gate.Gate,
    "up_gate": gate.UpGate,
    "lowpass_gate": gate.LowpassGate,
}
NORMS: dict[str, type[nn.Module]] = {
    "channel": normalization.ChannelNorm,
    "spatial": normalization.SpatialNorm,
    "batch": normalization.BatchNorm,
    "instance": normalization.InstanceNorm,
    "group": normalization.GroupNorm,
}
LOGITS: dict[str, type[nn.Module]] = {
    "conv": phase_logits.ConvLogits,
    "attention": phase_logits.AttentionLogits,
    "graph": phase_logits.GraphLogits,
    "linear": phase_logits.LinearLogits,
}
STEMS: dict[str, type[nn.Module]] = {"image": ImageStem, "small": SmallStem}

# Fields that hold a part themselves, and where it is named.
_NESTED = {
    "inner": ("sampler", SAMPLERS),
    "first_sampler": ("sampler", SAMPLERS),
    "logits": ("logits", LOGITS),
}

# Fields that the network fills in itself.
_RESERVED = {"name", "parent", "numerics", "stride", "scale_init"}
# ... of a stem, besides.
_RESERVED_IN_STEMS = {"width", "sampler", "activation", "norm", "padding"}


def resolve(kind: str, part: Part, table: Mapping[str, type[nn.Module]]) -> ModuleFactory:
    """The factory that `part` names among `table`.

    Raises:
      ConfigError: unknown name or field, with the near ones; a field without default left out.
    """
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
    return functools.partial(module, **fields)

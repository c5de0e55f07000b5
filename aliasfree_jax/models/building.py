"""From JSON-able options to a network: what the builders of all families have in common."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.models.parts import ACTIVATIONS, NORMS, SAMPLERS, STEMS, Part, frozen, resolve
from aliasfree_jax.ops.padding import check_padding

Options = Mapping[str, Any]

Table = Mapping[str, type[nn.Module]]

_PARTS: dict[str, Table] = {"sampler": SAMPLERS, "norm": NORMS, "stem": STEMS}
_SHARED = ("any_size", "filter_size")


def options_of(module: type[nn.Module]) -> frozenset[str]:
    """Every option of a network: its fields, with JSON-able parts, and the shared ones.

    Those are any_size (ideal samplers only) and filter_size (taps of the sampler's blur, 1 to 7).
    """
    return frozenset({*module.__dataclass_fields__, *_SHARED} - {"parent", "name"})


def any_size(sampler: Part) -> Part:
    """The ideal sampler `sampler`, exact for every size; ConfigError for other samplers."""
    fields = {"name": sampler} if isinstance(sampler, str) else sampler
    if not isinstance(fields, Mapping) or fields.get("name") != "ideal":
        raise ConfigError(
            f"any_size=True needs the ideal sampler, got {sampler!r}: only ideal resampling divides every "
            "circle evenly. Use an alias-free network (*_afc*) or sampler='ideal'."
        )
    return {**fields, "any_size": True}


def with_filter(sampler: Part, size: int) -> Part:
    """`sampler` with a blur of `size` taps: as a blur itself, or before it chooses a component."""
    fields = {"name": sampler} if isinstance(sampler, str) else sampler
    if not isinstance(fields, Mapping):
        raise ConfigError(f"filter_size is for samplers given by name, got {sampler!r}.")
    name = fields.get("name")
    if name == "blur":
        return {**fields, "kernel_size": size}
    if name in ("polyphase", "learned_polyphase"):
        inner = fields.get("inner", "subsample")
        kept = inner if isinstance(inner, Mapping) and inner.get("name") == "blur" else {"name": "blur"}
        return {**fields, "inner": {**kept, "kernel_size": size}}
    raise ConfigError(f"filter_size is for samplers that blur (blur, polyphase, ...), got {sampler!r}.")


def check_options(
    network: str, module: type[nn.Module], options: Options, extra: tuple[str, ...] = ()
) -> None:
    """Raises `ConfigError` for the first of `options` that the network has not, with the near ones."""
    legal = options_of(module) | set(extra)
    for option in options:
        if option not in legal:
            raise ConfigError(unknown(f"option of {network}", option, legal))


def _default(module: type[nn.Module], field: str) -> Any:
    declared = module.__dataclass_fields__.get(field)
    return None if declared is None else declared.default


_PRECISIONS = (None, "default", "high", "highest")  # JAX's other words for them name number formats


def _numerics(fields: Options) -> dict[str, Any]:
    """The options dtype, param_dtype and precision, as far as they are given; names become objects of JAX."""
    precision = fields.get("precision")
    if not isinstance(precision, jax.lax.Precision) and precision not in _PRECISIONS:
        raise ConfigError(
            unknown("precision", precision, _PRECISIONS[1:])
            + ' Number formats are other options: dtype="bfloat16", param_dtype.'
        )
    found = {name: fields[name] for name in ("dtype", "param_dtype") if fields.get(name) is not None}
    return {name: _format(name, value) for name, value in found.items()}


def _format(name: str, value: Any) -> jnp.dtype:
    try:
        found = jnp.dtype(value)
    except TypeError:
        found = None
    if found is None or not jnp.issubdtype(found, jnp.floating):
        raise ConfigError(f'{name} is a number format of JAX, such as "bfloat16", got {value!r}.')
    return found


def build(module: type[nn.Module], options: Options, activations: Table = ACTIVATIONS) -> Any:
    """The network with these options, checked by `check_options`: parts resolved, lists made tuples.

    Args:
      activations: those that the network can take, by name.

    Raises:
      ConfigError: an unknown part or value.
    """
    fields = dict(options)
    fields |= _numerics(fields)
    if fields.pop("any_size", False):
        fields["sampler"] = any_size(fields.get("sampler", "subsample"))
    if fields.get("filter_size") is not None:
        fields["sampler"] = with_filter(fields.get("sampler", "subsample"), fields["filter_size"])
    fields.pop("filter_size", None)
    of_activations = ("activation", "stem_activation", "sum_activation")
    tables = {**_PARTS, **dict.fromkeys(of_activations, activations)}
    for field, table in tables.items():
        left_out = fields.get(field) is None and _default(module, field) is None
        if field in fields and not left_out:
            fields[field] = resolve(field, fields[field], table)
    check_padding(fields.get("padding", "ZERO"))
    if fields.get("num_classes", 0) < 0:
        raise ConfigError(
            f"num_classes is a number of classes, or 0 for features, got {fields['num_classes']}."
        )
    fields = {name: frozen(value) for name, value in fields.items()}
    declared = module.__dataclass_fields__
    if {"depths", "widths"} <= set(declared):
        depths, widths = (fields.get(name, declared[name].default) for name in ("depths", "widths"))
        if len(depths) != len(widths):
            raise ConfigError(f"depths {depths} and widths {widths} differ in their number of stages.")
    return module(**fields)

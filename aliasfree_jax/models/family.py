"""Families: the networks of one class by name, built from JSON-compatible options."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.models.network import Network
from aliasfree_jax.models.parts import KIND_OF_OPTION, fields_of, frozen, resolve
from aliasfree_jax.ops.padding import padding_word

Options = Mapping[str, Any]
Rewrite = Callable[[dict[str, Any], Any], dict[str, Any]]

# antialiased-cnns uses reflecting blurs in zero-padded networks.
REFLECTING_BLUR = {"name": "blur", "kernel_size": 4, "padding": "REFLECT"}
# The scales of alias_free_convnets' polynomials.
LEARNED_SCALES = {"in_scale": 7.0, "out_scale": 7.0, "train_scale": True}


def _any_size(options: dict[str, Any], wanted: bool) -> dict[str, Any]:
    """Makes the ideal sampler exact for every size."""
    sampler = options.get("sampler", "subsample")
    fields = fields_of(sampler)
    if wanted and (fields is None or fields.get("name") != "ideal"):
        raise ConfigError(
            f"any_size=True needs the ideal sampler, got {sampler!r}: only ideal resampling can sample every "
            "size evenly. Use an alias-free network (*_afc*) or sampler='ideal'."
        )
    if fields is None or not (wanted or fields.get("any_size")):
        return options
    return {**options, "sampler": {**fields, "any_size": wanted}}


def blur_of(size: int, replaced: Any) -> dict[str, Any]:
    """Returns a blur of `size` taps that replaces another part; it keeps the padding of a replaced blur."""
    fields = (replaced and fields_of(replaced)) or {}
    return {**(fields if fields.get("name") == "blur" else {"name": "blur"}), "kernel_size": size}


def filter_size(options: dict[str, Any], size: int) -> dict[str, Any]:
    """Sets the taps of the sampler's blur to `size`.

    The blur is the sampler itself, or it precedes the choice of a polyphase component.

    Raises:
      ConfigError: the sampler is not given by name, or does not blur.
    """
    sampler = options.get("sampler", "subsample")
    fields = fields_of(sampler)
    if fields is None:
        raise ConfigError(f"filter_size needs a sampler given by name, got {sampler!r}.")
    if fields.get("name") == "blur":
        fields["kernel_size"] = size
    elif fields.get("name") in ("polyphase", "learned_polyphase"):
        fields["inner"] = blur_of(size, fields.get("inner"))
    else:
        raise ConfigError(
            f"filter_size needs a sampler that blurs (blur, polyphase, learned_polyphase), got {sampler!r}."
        )
    return {**options, "sampler": fields}


_ALIASES: dict[str, Rewrite] = {"any_size": _any_size, "filter_size": filter_size}


@dataclasses.dataclass(frozen=True)
class Family:
    """Networks of one class: every size in every variant.

    Attributes:
      network: the class. Its fields are the options, with JSON-compatible parts. All families also have the
        options `any_size` (ideal samplers only) and `filter_size` (taps of the sampler's blur, 1 to 7).
      sizes: options of each size by name, such as depths and widths.
      variants: options of each variant by name, mainly parts.
      pattern: pattern of the networks' names.
      aliases: options that set other options. Each one rewrites the options for a given value.
      gated: whether gated activations are possible: the layer before each activation can compute twice the
        channels.
      completed: function that completes and checks the options.
      checked: function that checks the network together with the options it was made with.

    Source: this package.
    """

    network: type[Network]
    sizes: Mapping[str, Options]
    variants: Mapping[str, Options]
    pattern: str = "{size}_{variant}"
    aliases: Mapping[str, Rewrite] = dataclasses.field(default_factory=dict)
    gated: bool = False
    completed: Callable[[dict[str, Any]], dict[str, Any]] = lambda options: options
    checked: Callable[[Any, Options], None] = lambda network, options: None

    def names(self) -> Iterator[tuple[str, tuple[str, str]]]:
        """Yields the name of every network with its size and variant."""
        for variant in self.variants:
            for size in self.sizes:
                yield self.pattern.format(size=size, variant=variant).rstrip("_"), (size, variant)

    def build(self, size: str, variant: str, options: Options) -> Network:
        """Builds the network of a size and variant with these options.

        Raises:
          ConfigError: unknown option, part or value.
        """
        own = self.network.__dataclass_fields__.keys() - {"parent", "name"}
        legal = own | _ALIASES.keys() | self.aliases.keys()
        # If names begin with the variant, all sizes have the same options.
        of = variant if self.pattern.startswith("{variant}") else f"{size}_{variant}".rstrip("_")
        for option in options:
            if option not in legal:
                raise ConfigError(unknown(f"option of {of}", option, legal))
        options = {**self.variants[variant], **self.sizes[size], **options}
        fields = {name: _with_upper_case_padding(name, value) for name, value in options.items()}
        for alias, rewrite in {**_ALIASES, **self.aliases}.items():
            value = fields.pop(alias, None)
            fields = fields if value is None else rewrite(fields, value)
        fields = self.completed(fields)
        network = self.network(**_constructed(self.network, fields, self.gated))
        self.checked(network, options)
        return network


def _with_upper_case_padding(name: str, value: Any) -> Any:
    """Converts padding words in an option or a part's field to Flax's upper case."""
    if isinstance(value, Mapping):
        return {field: _with_upper_case_padding(field, inner) for field, inner in value.items()}
    return padding_word(value) if name.endswith("padding") else value


_PRECISIONS = (None, "default", "high", "highest")  # JAX's other precisions are named like number formats


def _constructed(network: type[Network], options: Options, gated: bool) -> dict[str, Any]:
    """Converts options to fields of a network: number formats, parts, checked words, tuples for lists."""
    fields, declared = dict(options), network.__dataclass_fields__
    for name, value in options.items():
        kind = declared[name].type
        if name in KIND_OF_OPTION and not (value is None and type(None) in get_args(kind)):
            fields[name] = resolve(KIND_OF_OPTION[name], value, name, gated=gated)
        elif name in ("dtype", "param_dtype") and value is not None:
            fields[name] = _format(name, value)
        elif name == "precision" and not isinstance(value, jax.lax.Precision) and value not in _PRECISIONS:
            raise ConfigError(
                unknown("precision", value, _PRECISIONS[1:])
                + ' For number formats use dtype="bfloat16" or param_dtype.'
            )
        elif get_origin(kind) is Literal and value not in get_args(kind):
            raise ConfigError(unknown(name, value, get_args(kind)))
        fields[name] = frozen(fields[name])
    if {"depths", "widths"} <= declared.keys():
        depths, widths = (fields.get(name, declared[name].default) for name in ("depths", "widths"))
        if len(depths) != len(widths):
            raise ConfigError(
                f"depths {depths} and widths {widths} must have the same length, one entry per stage."
            )
    return fields


def _format(name: str, value: Any) -> jnp.dtype:
    try:
        found = jnp.dtype(value)
    except TypeError:
        found = None
    if found is None or not jnp.issubdtype(found, jnp.floating):
        raise ConfigError(
            f'{name} must be a floating-point format of JAX, such as "bfloat16", got {value!r}.'
        )
    return found

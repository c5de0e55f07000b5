"""Tables of the tensors of state dicts. One table serves both directions (`converting`).

An `Entry` maps one tensor of the original to one of our variables, and states how its axes are reordered.
Some buffers are constants here (blur filters, counters, temperatures). They have entries too: conversion
checks them, and export writes them for programs that load strictly.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import numpy as np

from aliasfree_jax.errors import ConversionError, unknown
from aliasfree_jax.models import create_model
from aliasfree_jax.ops.blurring import binomial_taps

Options = Mapping[str, Any]
ModuleEntries = Callable[[str, str], "Iterator[Entry]"]
"""Entries of a module, from its key in the original and its path here."""
Pool = Callable[[str, str, int], "Iterator[Entry]"]
"""Entries of a sampler, from its key in the original, its path here and its channels."""
Candidates = Iterator[tuple[str, dict[str, Any]]]
"""Names and possible options of original networks."""
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Layout:
    """How the axes of one kind of tensor are reordered.

    Attributes:
      here: Converts an original tensor to ours.
      there: Converts our tensor to the original.
    """

    here: Callable[[np.ndarray], np.ndarray]
    there: Callable[[np.ndarray], np.ndarray]


VECTOR = Layout(lambda value: value, lambda value: value)
CONV = Layout(lambda value: value.transpose(2, 3, 1, 0), lambda value: value.transpose(3, 2, 0, 1))
# A transposed convolution. Original axes: (input, output, rows, columns).
TRANSPOSED = Layout(lambda value: value.transpose(2, 3, 0, 1), lambda value: value.transpose(2, 3, 0, 1))
DEPTHWISE = Layout(
    lambda value: np.squeeze(value, 1).transpose(1, 2, 0), lambda value: value.transpose(2, 0, 1)[:, None]
)
DENSE = Layout(lambda value: value.T, lambda value: value.T)
# A 1 x 1 convolution that is a linear layer here.
POINTWISE = Layout(lambda value: np.squeeze(value, (2, 3)).T, lambda value: value.T[:, :, None, None])


def flattened_map(side: int) -> Layout:
    """Layout of a linear layer that reads a flattened map of `side` x `side`.

    The original flattens (channel, row, column), this package (row, column, channel).
    """

    def here(value: np.ndarray) -> np.ndarray:
        return value.reshape(len(value), -1, side, side).transpose(2, 3, 1, 0).reshape(-1, len(value))

    def there(value: np.ndarray) -> np.ndarray:
        features = value.shape[1]
        return value.reshape(side, side, -1, features).transpose(3, 2, 0, 1).reshape(features, -1)

    return Layout(here, there)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One tensor of the original.

    Attributes:
      key: Key in the original's state dict. "" if the original has no such tensor: it then has the value
        `constant`.
      path: Path here, such as "params/stem/conv/kernel". "" for a constant.
      layout: How its axes are reordered.
      constant: The value of a constant. Conversion refuses other values, unless `free`.
      free: Whether a constant may have any value or be missing (counters, temperatures).
      share: The part of the original's tensor that this is: number and count of equal parts along axis 0.
    """

    key: str
    path: str = ""
    layout: Layout = VECTOR
    constant: np.ndarray | None = None
    free: bool = False
    share: tuple[int, int] = (0, 1)


def blur_filter(key: str, channels: int, size: int) -> Entry:
    """Entry of BlurPool's filter buffer: `[channels, 1, size, size]`, float32. Ones for size 1."""
    taps = binomial_taps(size)
    outer = np.outer(taps, taps).astype(np.float32)
    return Entry(key, constant=np.broadcast_to(outer, (channels, 1, size, size)))


def blur_pool(size: int) -> Pool:
    """Entries of samplers whose only tensor is the blur filter."""

    def pool(key: str, path: str, channels: int) -> Iterator[Entry]:
        yield blur_filter(f"{key}.filt", channels, size)

    return pool


def no_entries(key: str, path: str, channels: int = 0) -> Iterator[Entry]:
    """No entries: for a module without tensors."""
    return iter(())


def affine(key: str, path: str) -> Iterator[Entry]:
    """Entries of a norm: weight and bias."""
    yield Entry(f"{key}.weight", f"params/{path}/scale")
    yield Entry(f"{key}.bias", f"params/{path}/bias")


def batch_norm(key: str, path: str) -> Iterator[Entry]:
    """Entries of a BatchNorm2d (five tensors), for `layers.normalization.BatchNorm` at `path`."""
    yield from affine(key, f"{path}/norm")
    for theirs, ours in (("running_mean", "mean"), ("running_var", "var")):
        yield Entry(f"{key}.{theirs}", f"batch_stats/{path}/norm/{ours}")
    yield Entry(f"{key}.num_batches_tracked", constant=np.zeros((), np.int64), free=True)


def linear(key: str, path: str, layout: Layout = DENSE) -> Iterator[Entry]:
    """Entries of a linear layer: weight and bias. With another layout: a convolution."""
    yield Entry(f"{key}.weight", f"params/{path}/kernel", layout)
    yield Entry(f"{key}.bias", f"params/{path}/bias")


@dataclasses.dataclass(frozen=True)
class CodeBase:
    """A code base with its networks, under its own names and options.

    Attributes:
      source: Name of the code base.
      translate: Translates a network and its options to arguments of `create_model`. Raises `ConversionError`
        for unknown networks, options and values.
      entries: The state dict of a network that was made from the result of `translate`. The masks of ideal
        filters are left out.
      candidates: Lists networks that may equal a described network (module `description`). `translate`
        decides whether one is equal.
      filters: The option that states blur filters or their absence. "" for code bases without filters.
      no_filters: The option that states the absence of filters, if it is another one.
      classes: The option that states the number of classes.
      channels: The option that states the channels of the images. "" if they are always 3.
      task: The task of a network, by its name. Same values as in `ModelCard`.
    """

    source: str
    translate: Callable[[str, Options], tuple[str, dict[str, Any]]]
    entries: Callable[[Any, str, Options], Iterator[Entry]]
    candidates: Callable[[Mapping[str, Any]], Candidates]
    filters: str = ""
    no_filters: str = ""
    classes: str = "num_classes"
    channels: str = ""
    task: Callable[[str], str] = lambda model: "classification"

    def table(self, model: str, options: Options) -> list[Entry]:
        """Returns the state-dict entries of a network."""
        name, ours = self.translate(model, options)
        return list(self.entries(create_model(name, **ours), model, options))


def united(source: str, families: Mapping[str, CodeBase], **fields: str) -> CodeBase:
    """Joins several families of networks into one code base.

    Args:
      source: Name of the code base.
      families: The family for each pattern of network names, such as "vgg*".
      fields: Further fields of `CodeBase`.
    """

    def family(model: str) -> CodeBase:
        found = next((base for pattern, base in families.items() if fnmatchcase(model, pattern)), None)
        if found is None:
            raise ConversionError(unknown(f"network of {source}", model, families))
        return found

    def translate(model: str, options: Options) -> tuple[str, dict[str, Any]]:
        return family(model).translate(model, options)

    def entries(network: Any, model: str, options: Options) -> Iterator[Entry]:
        return family(model).entries(network, model, options)

    def candidates(network: Mapping[str, Any]) -> Candidates:
        for base in families.values():
            yield from base.candidates(network)

    def task(model: str) -> str:
        return family(model).task(model)

    return CodeBase(source, translate, entries, candidates, task=task, **fields)


def chosen(what: str, name: str, table: Mapping[str, T]) -> T:
    """Returns `table[name]`. Raises `ConversionError` if `table` lacks the name."""
    if name not in table:
        raise ConversionError(unknown(what, name, table))
    return table[name]


def check_options(what: str, options: Options, legal: Collection[str]) -> None:
    """Raises `ConversionError` for the first option that is not `legal`."""
    for option in options:
        if option not in legal:
            raise ConversionError(unknown(f"option of {what}", option, legal))

"""Converts state dicts strictly, tensor by tensor. One table of entries serves both directions.

An `Entry` maps one tensor of the original to one of our variables, and states how its axes are reordered.
Some buffers are constants here (blur filters, counters, temperatures). They have entries too: conversion
checks them, and export writes them for programs that load strictly.
"""

import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import numpy as np
from flax import traverse_util

from aliasfree_jax.checkpoint import named_leaves
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
    lambda value: value[:, 0].transpose(1, 2, 0), lambda value: value.transpose(2, 0, 1)[:, None]
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


def listing(title: str, lines: Sequence[str]) -> str:
    """Formats a section of a report with its first 20 lines. "" without lines."""
    shown = "".join(f"\n    {line}" for line in lines[:20])
    more = f"\n    ... and {len(lines) - 20} more" if len(lines) > 20 else ""
    return f"\n  {title}:{shown}{more}" if lines else ""


_NO_WEIGHTS = "biucOSU"  # numpy's kinds. Integers are quantised weights: their scales are stored elsewhere.


def convert(state_dict: Mapping[str, np.ndarray], entries: Iterable[Entry], target: Any) -> Any:
    """Converts `state_dict` to the structure of `target`.

    Args:
      state_dict: Arrays of the original, under its keys. Constants may be missing.
      entries: Table of the original's tensors.
      target: Nested dictionary of shapes, from `checkpoint.abstract_variables`.

    Returns:
      The same nesting with float32 arrays. float64 arrays keep their dtype.

    Raises:
      ConversionError: Keys are left over or missing, shapes or constants differ, or weights are not
        floating-point numbers.
    """
    shapes = {path: tuple(leaf.shape) for path, leaf in named_leaves(target).items()}
    left, filled = dict(state_dict), {}
    missing, wrong = [], []
    for entry in entries:
        value = _shared(entry, state_dict.get(entry.key))
        left.pop(entry.key, None)
        if not entry.key and entry.constant is not None:
            filled[entry.path] = entry.constant
            shapes.pop(entry.path, None)
        elif entry.constant is not None:
            if value is not None and not entry.free and not _equal(value, entry.constant):
                shape = list(entry.constant.shape)
                wrong.append(
                    f"{entry.key} {list(value.shape)}: differs from the constant {shape} of this network"
                )
        elif value is None:
            missing.append(f"{entry.key} (for {entry.path})")
        elif (dtype := np.asarray(value).dtype).kind in _NO_WEIGHTS:
            wrong.append(f"{entry.key} {list(np.shape(value))}: {dtype}, expected floating-point numbers")
            shapes.pop(entry.path, None)
        else:
            filled[entry.path] = moved = _moved(entry, np.asarray(value))
            expected = shapes.pop(entry.path, None)
            if expected is None:
                wrong.append(f"{entry.key} {list(value.shape)}: the network has no {entry.path}")
            elif moved.shape != expected:
                wrong.append(
                    f"{entry.key} has the converted shape {list(moved.shape)}, {entry.path} needs "
                    f"{list(expected)}"
                )
    report = (
        listing("keys that the network does not have", [f"{k} {list(np.shape(v))}" for k, v in left.items()])
        + listing("keys that are missing", missing)
        + listing("parameters that no key fills", [] if missing else list(shapes))
        + listing("shapes or values that differ", wrong)
    )
    if report:
        raise ConversionError(
            f"these weights do not fit this network:{report}\n"
            "  Check the model name and its options (depths, widths, filter size, stem, activation, padding, "
            "number of classes)."
        )
    return traverse_util.unflatten_dict(filled, sep="/")


def _equal(value: np.ndarray, constant: np.ndarray) -> bool:
    # Half-precision files store the filters exactly: their values are dyadic.
    return value.shape == constant.shape and bool((np.asarray(value, np.float32) == constant).all())


def _shared(entry: Entry, value: np.ndarray | None) -> np.ndarray | None:
    number, count = entry.share
    if value is None or count == 1 or np.ndim(value) == 0:
        return value
    size = len(value) // count
    return value[number * size : (number + 1) * size]


def _moved(entry: Entry, value: np.ndarray) -> np.ndarray:
    try:
        value = entry.layout.here(value)
    except (ValueError, IndexError):
        pass  # impossible shape for this layout: reported with the other shapes that differ
    return np.ascontiguousarray(value, np.float64 if value.dtype == np.float64 else np.float32)


def export(variables: Any, entries: Sequence[Entry]) -> dict[str, np.ndarray]:
    """Converts `variables` to the original's state dict, constants included.

    Raises:
      ConversionError: The variables belong to another network than the table.
    """
    flat = named_leaves(variables)
    paths = {entry.path for entry in entries if entry.path}
    report = listing("parameters that the original does not have", sorted(set(flat) - paths)) + listing(
        "parameters that are missing", sorted(paths - set(flat))
    )
    if report:
        raise ConversionError(f"these variables do not belong to the network that was named:{report}")
    parts = dict[str, list[np.ndarray]]()
    for entry in entries:
        if not entry.key and not np.array_equal(flat[entry.path], np.asarray(entry.constant)):
            raise ConversionError(f"the original has no counterpart of {entry.path}, which must be 1 there.")
        if entry.constant is not None:
            value = np.array(entry.constant)
        else:
            value = np.ascontiguousarray(entry.layout.there(np.asarray(flat[entry.path])))
        parts.setdefault(entry.key, []).append(value)
    parts.pop("", None)
    return {key: values[0] if len(values) == 1 else np.concatenate(values) for key, values in parts.items()}

"""Converts state dicts strictly, tensor by tensor, with tables of entries."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from flax import traverse_util

from aliasfree_jax.checkpoint import named_leaves
from aliasfree_jax.conversion.entries import Entry
from aliasfree_jax.errors import ConversionError

_NO_WEIGHTS = "biucOSU"  # numpy's kinds. Integers are quantised weights: their scales are stored elsewhere.


def listing(title: str, lines: Sequence[str]) -> str:
    """Formats a section of a report with its first 20 lines. "" without lines."""
    shown = "".join(f"\n    {line}" for line in lines[:20])
    more = f"\n    ... and {len(lines) - 20} more" if len(lines) > 20 else ""
    return f"\n  {title}:{shown}{more}" if lines else ""


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
    if value is None or count == 1 or np.ndim(value) == 0 or len(value) % count:
        return value  # an impossible shape is reported with the other shapes that differ
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

"""Renaming and reshaping of foreign weights by a table, strictly.

A table is a sequence of `Rule`s; the first whose pattern matches a whole source key decides. Every
source key must be consumed or dropped on purpose, every target filled exactly once, every shape
equal; otherwise one `ConversionError` lists all that differs.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax import traverse_util

from aliasfree_jax.errors import ConversionError

Transform = Callable[[np.ndarray], np.ndarray]


def copy(value: np.ndarray) -> np.ndarray:
    """Unchanged."""
    return value


def conv(value: np.ndarray) -> np.ndarray:
    """Convolution kernel (out, in, rows, columns) to (rows, columns, in, out)."""
    return value.transpose(2, 3, 1, 0)


def depthwise(value: np.ndarray) -> np.ndarray:
    """Depthwise kernel (C, 1, rows, columns) to (rows, columns, C)."""
    return value[:, 0].transpose(1, 2, 0)


def dense(value: np.ndarray) -> np.ndarray:
    """Linear weight (out, in) to (in, out)."""
    return value.T


@dataclasses.dataclass(frozen=True)
class Rule:
    """Source keys that match `pattern` go to `target` (with group references), transformed.

    `target=None` drops the key on purpose; `why` then says for what reason.
    """

    pattern: str
    target: str | None
    transform: Transform = copy
    why: str = ""


def listing(title: str, entries: Sequence[str]) -> str:
    """A paragraph of a report: the first 20 entries, or nothing if there are none."""
    shown = "".join(f"\n    {entry}" for entry in entries[:20])
    more = f"\n    ... and {len(entries) - 20} more" if len(entries) > 20 else ""
    return f"\n  {title}:{shown}{more}" if entries else ""


def convert(state_dict: Mapping[str, np.ndarray], rules: Sequence[Rule], target: Any) -> Any:
    """Fills the structure of `target` from `state_dict`.

    Args:
      state_dict: source arrays in their original layout.
      rules: the table; targets are slash-separated paths such as "params/stem/conv/kernel".
      target: nested dictionary of shapes, from `jax.eval_shape(module.init, ...)`.

    Returns:
      The same nesting with float32 arrays (float64 stays).

    Raises:
      ConversionError: keys left over, targets unfilled or filled twice, or shapes that differ.
    """
    shapes = {path: leaf.shape for path, leaf in traverse_util.flatten_dict(target, sep="/").items()}
    filled: dict[str, np.ndarray] = {}
    unknown_keys, twice, wrong = [], [], []
    for key, value in state_dict.items():
        rule, match = next(((r, m) for r in rules if (m := re.fullmatch(r.pattern, key))), (None, None))
        if rule is None or match is None:
            unknown_keys.append(f"{key} {list(value.shape)}")
            continue
        if rule.target is None:
            continue
        path = match.expand(rule.target)
        if path not in shapes:
            unknown_keys.append(f"{key} {list(value.shape)} (the network has no {path})")
        elif path in filled:
            twice.append(f"{path} from {key}")
        else:
            filled[path] = _transformed(rule.transform, np.asarray(value))
            if filled[path].shape != shapes[path]:
                wrong.append(f"{path}: {list(filled[path].shape)} from {key}, expected {list(shapes[path])}")
    missing = [f"{path} {list(shape)}" for path, shape in shapes.items() if path not in filled]
    report = (
        listing("source keys without a place", unknown_keys)
        + listing("parameters without a source", missing)
        + listing("parameters with two sources", twice)
        + listing("shapes that differ", wrong)
    )
    if report:
        raise ConversionError(
            f"these weights do not fit this network:{report}\n"
            "  Check the model name and its options (depths, widths, activation, number of classes)."
        )
    return traverse_util.unflatten_dict(filled, sep="/")


def _transformed(transform: Transform, value: np.ndarray) -> np.ndarray:
    try:
        value = transform(value)
    except (ValueError, IndexError):
        pass  # a shape the layout cannot have: reported with the other shapes that differ
    return np.ascontiguousarray(value, np.float64 if value.dtype == np.float64 else np.float32)


def target_shapes(module: Any, image_size: int, channels: int = 3) -> Any:
    """Nested shapes of the variables of `module`, without allocating them."""
    images = jax.ShapeDtypeStruct((1, image_size, image_size, channels), np.float32)
    return jax.eval_shape(lambda key, x: module.init(key, x, train=False), jax.random.key(0), images)

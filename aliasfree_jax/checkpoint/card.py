"""The card beside every stored network: how to rebuild it, and which arrays belong to it."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any, Self

import jax

from aliasfree_jax.data.class_names import placeholders
from aliasfree_jax.errors import CheckpointError

PyTree = Any
Shapes = dict[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What is needed to rebuild a network, to prepare its input and to name its classes."""

    model: str  # name for `create_model`
    options: dict[str, Any]  # keyword arguments of `create_model`
    class_names: tuple[str, ...]
    image_size: int  # side of the square input, pixels; with a border of zero_pad
    channels: int
    mean: tuple[float, ...]  # per channel, of images in [0, 1]
    std: tuple[float, ...]
    eval_crop_ratio: float
    step: int  # parameter updates so far; 0 for foreign weights
    origin: str  # configuration or original file, for people to read
    # As in `config.data`:
    zero_pad: int = 0
    eval_view: str = "auto"
    interpolation: str = "bicubic"
    exif: bool = False

    def preparation(self) -> dict[str, Any]:
        """The fields of `config.data` that decide how images for this network are prepared."""
        names = ("zero_pad", "mean", "std", "eval_view", "eval_crop_ratio", "interpolation", "exif")
        side = self.image_size - 2 * self.zero_pad
        return {"image_size": side, **{name: getattr(self, name) for name in names}}

    def outputs(self) -> tuple[str, ...]:
        """The names of the classes that the network's outputs stand for; numbers where it has no names."""
        count = int(self.options.get("num_classes", len(self.class_names)))
        return self.class_names if len(self.class_names) == count else placeholders(count)

    def to_json(self) -> dict[str, Any]:
        """The card as a dictionary that `json` can write and `from_json` reads back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The card that `to_json` described.

        Unknown fields are ignored, with a warning; missing ones have their default.

        Raises:
          CheckpointError: a field without a default is missing.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        missing = [
            name
            for name, field in known.items()
            if name not in fields and field.default is field.default_factory is dataclasses.MISSING
        ]
        if missing:
            raise CheckpointError(
                f"the model card lacks {', '.join(missing)}: it was written by another version of "
                "aliasfree_jax."
            )
        if others := [name for name in fields if name not in known]:
            warnings.warn(
                "the model card has fields that this version of aliasfree_jax does not know; they are "
                f"ignored: {', '.join(others)}.",
                stacklevel=2,
            )
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
            if name in known
        }
        return cls(**values)


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """The leaves of `tree` under their paths, e.g. "params/stem/kernel"."""
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}


def leaf_shapes(tree: PyTree) -> Shapes:
    """The shapes of the leaves of `tree` under their paths."""
    return {name: tuple(leaf.shape) for name, leaf in named_leaves(tree).items()}


def differences(expected: Shapes, found: Shapes) -> str:
    """Lists missing, unexpected and wrongly shaped leaves, one kind a line; "" if all agree."""
    wrong = [n for n in expected if n in found and expected[n] != found[n]]
    kinds = {
        "missing": sorted(set(expected) - set(found)),
        "unexpected": sorted(set(found) - set(expected)),
        "wrong shape": [f"{n} {found[n]} (expected {expected[n]})" for n in wrong],
    }
    lines = []
    for kind, names in kinds.items():
        if names:
            more = f", ... ({len(names)} in all)" if len(names) > 6 else ""
            lines.append(f"  {kind}: {', '.join(names[:6])}{more}")
    return "\n".join(lines)

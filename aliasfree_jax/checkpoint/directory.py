"""One step directory: a card, which tells how to rebuild the network, and arrays in one or more items."""

import dataclasses
import errno
import hashlib
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict

from aliasfree_jax.data.class_names import placeholders
from aliasfree_jax.errors import CheckpointError, listed

PyTree = Any
Shapes = dict[str, tuple[int, ...]]
# The fields of `config.data` that a card has too: they decide how images for the network are prepared.
PREPARATION = ("mean", "std", "zero_pad", "eval_view", "eval_crop_ratio", "interpolation", "exif")
FORMAT = 1
# What a file system says of files that may be sound: who may read them, or whether it works, can change.
TEMPORARY = [
    os.strerror(getattr(errno, name))
    for name in (
        *("EACCES", "EPERM", "EIO", "ESTALE", "ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "ENOMEM", "EAGAIN"),
        *("EBUSY", "EINTR", "ELOOP", "EISDIR", "ENOTDIR", "ENODEV", "ENXIO", "ETIMEDOUT", "EHOSTDOWN"),
        *("ENETDOWN", "ECONNREFUSED", "ECONNRESET", "ENOTCONN", "EREMOTEIO", "EROFS"),
    )
    if hasattr(errno, name)
]


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What is needed to rebuild a network, to prepare its input and to name its classes."""

    model: str  # name for `create_model`, or /path/to/my_file.py:make_network
    options: dict[str, Any]  # keyword arguments of `create_model`, or of that function
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
    task: str = "classification"  # as in the configuration: what the outputs are
    # Arguments of `shift_invariant`, as in `config.model`; and the content of the file that `model` names.
    shift_invariant: dict[str, Any] = dataclasses.field(default_factory=dict)
    file_sha256: str = ""

    def in_words(self) -> str:
        """The network with its options."""
        transformed = f", shift_invariant {self.shift_invariant}" if self.shift_invariant else ""
        return f"{self.model} {self.options}{transformed}"

    def preparation(self) -> dict[str, Any]:
        """The fields of `config.data` that decide how images for this network are prepared."""
        side = self.image_size - 2 * self.zero_pad
        return {"image_size": side} | {name: getattr(self, name) for name in PREPARATION}

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


def weights_sha256(variables: PyTree) -> str:
    """A SHA-256 by which weights are known again: of names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for name, leaf in sorted(named_leaves(variables).items()):
        array = np.asarray(leaf)
        digest.update(f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


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
            lines.append(f"  {kind}: {listed(names, 6)}")
    return "\n".join(lines)


class DamagedCheckpointError(CheckpointError):
    """A checkpoint whose files are incomplete or have a wrong content; others of the run may be sound."""


class UnreadableCheckpointError(CheckpointError):
    """A checkpoint that the file system does not give out, now or to this user; it may be sound."""


def _nested(tree: PyTree) -> dict[str, Any]:
    # Plain nested dictionaries on disk, so that no class of ours or of optax is part of the format.
    return unflatten_dict(named_leaves(tree), sep="/")


def contents(card: ModelCard, items: dict[str, PyTree]) -> ocp.args.Composite:
    """What Orbax is to write for a card and some items, e.g. {"variables": ..., "state": ...}."""
    stored = {"format": FORMAT, "card": card.to_json(), "arrays": leaf_shapes(items)}
    arrays = {name: ocp.args.StandardSave(_nested(tree)) for name, tree in items.items()}
    return ocp.args.Composite(card=ocp.args.JsonSave(stored), **arrays)


def finished_steps(checkpoints: Path) -> list[int]:
    """The steps that have a directory, in order; Orbax gives unfinished ones other names.

    Raises:
      UnreadableCheckpointError: the file system does not tell.
    """
    try:
        return sorted(int(path.name) for path in checkpoints.iterdir() if path.name.isdigit())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UnreadableCheckpointError(f"{checkpoints} cannot be read: {error}.") from error


def set_aside(directory: Path, word: str) -> Path:
    """Renames a directory to <name>.<word>, with a number if there is one already."""
    aside, number = directory.with_name(f"{directory.name}.{word}"), 1
    while aside.exists():
        number += 1
        aside = directory.with_name(f"{directory.name}.{word}{number}")
    return directory.rename(aside)


def _faulty(directory: Path, error: Exception) -> CheckpointError:
    """That a checkpoint is damaged, if `error` proves it; otherwise that it cannot be read."""
    # Orbax and its libraries hand most of the system's errors on as ValueErrors.
    reasons = [reason for reason in TEMPORARY if reason in str(error)]
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        reasons.insert(0, error.strerror or str(error))
    if reasons:
        return UnreadableCheckpointError(
            f"checkpoint {directory} cannot be read ({reasons[0]}): it may be sound, so nothing is changed. "
            "Mend permissions or the file system, then start again."
        )
    cause = (str(error).splitlines() or [type(error).__name__])[0][:200]
    text = f"checkpoint {directory} is damaged or incomplete: {cause}."
    if directory.name.isdigit():
        older = [step for step in finished_steps(directory.parent) if step < int(directory.name)]
        text += f" The one before is of step {older[-1]}." if older else " There is no older one."
    return DamagedCheckpointError(text)


def read_card(directory: Path) -> tuple[ModelCard, Shapes]:
    """The card of a step directory, and the shapes of all arrays, e.g. "variables/params/stem/kernel".

    Raises:
      DamagedCheckpointError: incomplete, or no card.
      UnreadableCheckpointError: it may be sound, but the file system does not give it out.
      CheckpointError: of another format.
    """
    try:
        stored = json.loads((directory / "card" / "metadata").read_bytes())
        if stored["format"] == FORMAT:
            shapes = {name: tuple(shape) for name, shape in stored["arrays"].items()}
            return ModelCard.from_json(stored["card"]), shapes
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise _faulty(directory, error) from error
    raise CheckpointError(
        f"checkpoint {directory} has format {stored['format']}, this version of aliasfree_jax reads format "
        f"{FORMAT}: use the version that wrote it."
    )


def read_items(directory: Path, found: Shapes, items: dict[str, PyTree]) -> dict[str, PyTree]:
    """Reads arrays in the structure, dtypes and shardings of the abstract arrays in `items`.

    Args:
      directory: a step directory.
      found: the shapes that its card lists.
      items: by name, abstract arrays; an item that is not named is not read.

    Raises:
      DamagedCheckpointError: arrays are incomplete or corrupt.
      UnreadableCheckpointError: they may be sound, but the file system does not give them out.
      CheckpointError: the arrays there are not those asked for.
    """
    for name, tree in items.items():  # one by one: the first, the network's, explains all others
        there = {path: shape for path, shape in found.items() if path.startswith(f"{name}/")}
        faults = differences(leaf_shapes({name: tree}), there)
        if faults:
            raise CheckpointError(
                f"checkpoint {directory} is of another model or optimizer; compared with the one asked for:\n"
                f"{faults}\nUse the model and options it was written with, or another directory."
            )
    try:
        with ocp.StandardCheckpointer() as reader:
            return {
                name: _structured(reader.restore(directory.absolute() / name, _nested(tree)), tree)
                for name, tree in items.items()
            }
    except (ValueError, KeyError, OSError) as error:
        raise _faulty(directory, error) from error


def read_stored(directory: Path, item: str) -> PyTree:
    """Reads all arrays of an item of a step directory, to the host, as nested dictionaries.

    Raises:
      DamagedCheckpointError: arrays are incomplete or corrupt.
      UnreadableCheckpointError: they may be sound, but the file system does not give them out.
    """
    place = directory.absolute() / item
    try:
        described = ocp.StandardCheckpointHandler().metadata(place).tree
        like = jax.tree.map(lambda array: np.empty(array.shape, array.dtype), described)
        with ocp.StandardCheckpointer() as reader:
            return reader.restore(place, like)
    except (ValueError, KeyError, OSError) as error:
        raise _faulty(directory, error) from error


def _structured(nested: dict[str, Any], like: PyTree) -> PyTree:
    """Undoes `_nested`."""
    leaves = flatten_dict(nested, sep="/")
    return jax.tree.unflatten(jax.tree.structure(like), [leaves[name] for name in named_leaves(like)])

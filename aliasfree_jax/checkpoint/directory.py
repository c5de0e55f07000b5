"""One step directory: a card, and arrays in one or more items (see `aliasfree_jax.checkpoint`)."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict

from aliasfree_jax.checkpoint.card import ModelCard, PyTree, Shapes, differences, leaf_shapes, named_leaves
from aliasfree_jax.errors import CheckpointError

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


def _structured(nested: dict[str, Any], like: PyTree) -> PyTree:
    """Undoes `_nested`."""
    leaves = flatten_dict(nested, sep="/")
    return jax.tree.unflatten(jax.tree.structure(like), [leaves[name] for name in named_leaves(like)])

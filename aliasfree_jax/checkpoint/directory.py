"""Reads and writes one step directory: a card that describes the network, and items with arrays."""

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict

from aliasfree_jax.checkpoint.card import ModelCard
from aliasfree_jax.errors import CheckpointError, listed

PyTree = Any
Shapes = dict[str, tuple[int, ...]]
FORMAT = 1
# Messages of a file system about files that may be sound: access rights and failures can change.
TEMPORARY = [
    os.strerror(getattr(errno, name))
    for name in (
        *("EACCES", "EPERM", "EIO", "ESTALE", "ENOSPC", "EDQUOT", "EMFILE", "ENFILE", "ENOMEM", "EAGAIN"),
        *("EBUSY", "EINTR", "ELOOP", "EISDIR", "ENOTDIR", "ENODEV", "ENXIO", "ETIMEDOUT", "EHOSTDOWN"),
        *("ENETDOWN", "ECONNREFUSED", "ECONNRESET", "ENOTCONN", "EREMOTEIO", "EROFS"),
    )
    if hasattr(errno, name)
]


def named_leaves(tree: PyTree) -> dict[str, Any]:
    """Returns the leaves of a pytree under their paths, e.g. "params/stem/kernel".

    Args:
      tree: The pytree, e.g. the variables of a network.

    Returns:
      Leaves by path.
    """
    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in flat}


def leaf_shapes(tree: PyTree) -> Shapes:
    """Returns the shapes of the leaves of a pytree under their paths.

    Args:
      tree: The pytree.

    Returns:
      Shapes by path.
    """
    return {name: tuple(leaf.shape) for name, leaf in named_leaves(tree).items()}


def weights_sha256(variables: PyTree) -> str:
    """Returns a SHA-256 of the names, dtypes, shapes and values of variables. It identifies weights.

    Args:
      variables: The variables of a network.

    Returns:
      64 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for name, leaf in sorted(named_leaves(variables).items()):
        array = np.asarray(leaf)
        digest.update(f"{name} {array.dtype} {array.shape} ".encode() + array.tobytes())
    return digest.hexdigest()


def differences(expected: Shapes, found: Shapes) -> str:
    """Lists missing leaves, unexpected leaves and leaves with another shape.

    Args:
      expected: The expected shapes, from `leaf_shapes`.
      found: The found shapes.

    Returns:
      One line for each kind of difference. "" if all shapes are equal.
    """
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
    """The files of a checkpoint are incomplete or damaged. Other checkpoints of the run may be sound."""


class UnreadableCheckpointError(CheckpointError):
    """A checkpoint cannot be read now or by this user. It may be sound."""


def _nested(tree: PyTree) -> dict[str, Any]:
    # Plain nested dictionaries: no class of this package or of optax is part of the format.
    return unflatten_dict(named_leaves(tree), sep="/")


def contents(card: ModelCard, items: dict[str, PyTree]) -> ocp.args.Composite:
    """Returns Orbax's arguments to write a card and items, e.g. `{"variables": ..., "state": ...}`."""
    stored = {"format": FORMAT, "card": card.to_json(), "arrays": leaf_shapes(items)}
    arrays = {name: ocp.args.StandardSave(_nested(tree)) for name, tree in items.items()}
    return ocp.args.Composite(card=ocp.args.JsonSave(stored), **arrays)


def finished_steps(checkpoints: Path) -> list[int]:
    """Returns the finished steps in a directory of checkpoints, in order.

    Directories of unfinished steps have other names.

    Args:
      checkpoints: The directory `<run>/checkpoints`. It may be missing.

    Returns:
      The steps. Empty if the directory is missing.

    Raises:
      UnreadableCheckpointError: The directory cannot be read.
    """
    try:
        return sorted(int(path.name) for path in checkpoints.iterdir() if path.name.isdigit())
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UnreadableCheckpointError(f"{checkpoints} cannot be read: {error}.") from error


def set_aside(directory: Path, word: str) -> Path:
    """Renames a directory to `<name>.<word>`, with a number if that exists. Returns the new path."""
    aside, number = directory.with_name(f"{directory.name}.{word}"), 1
    while aside.exists():
        number += 1
        aside = directory.with_name(f"{directory.name}.{word}{number}")
    return directory.rename(aside)


def _faulty(directory: Path, error: Exception) -> CheckpointError:
    """The error for a checkpoint: damaged if `error` proves it, else unreadable."""
    # Orbax and its libraries turn most errors of the system into ValueErrors.
    reasons = [reason for reason in TEMPORARY if reason in str(error)]
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        reasons.insert(0, error.strerror or str(error))
    if reasons:
        return UnreadableCheckpointError(
            f"checkpoint {directory} cannot be read ({reasons[0]}). It may be sound, so nothing was changed. "
            "Fix the permissions or the file system, then start again."
        )
    cause = (str(error).splitlines() or [type(error).__name__])[0][:200]
    text = f"checkpoint {directory} is damaged or incomplete: {cause}."
    if directory.name.isdigit():
        older = [step for step in finished_steps(directory.parent) if step < int(directory.name)]
        text += f" The previous one is step {older[-1]}." if older else " There is no older one."
    return DamagedCheckpointError(text)


def read_card(directory: Path) -> tuple[ModelCard, Shapes]:
    """Reads the card of a step directory and the shapes of its arrays.

    Returns:
      `(card, shapes)`. Shapes have names like "variables/params/stem/kernel".

    Raises:
      DamagedCheckpointError: The card is missing or damaged.
      UnreadableCheckpointError: The card cannot be read, but may be sound.
      CheckpointError: The checkpoint has another format.
    """
    try:
        stored = json.loads((directory / "card" / "metadata").read_bytes())
        if stored["format"] == FORMAT:
            shapes = {name: tuple(shape) for name, shape in stored["arrays"].items()}
            return ModelCard.from_json(stored["card"]), shapes
    except (OSError, KeyError, TypeError, AttributeError, ValueError) as error:
        raise _faulty(directory, error) from error
    raise CheckpointError(
        f"checkpoint {directory} has format {stored['format']}, but this version of aliasfree_jax reads "
        f"format {FORMAT}. Use the version that wrote it."
    )


def read_items(directory: Path, found: Shapes, items: dict[str, PyTree]) -> dict[str, PyTree]:
    """Reads arrays with the structure, dtypes and shardings of abstract arrays.

    Args:
      directory: A step directory.
      found: The shapes in its card.
      items: Abstract arrays by item. Other items are not read.

    Raises:
      DamagedCheckpointError: Arrays are incomplete or damaged.
      UnreadableCheckpointError: Arrays cannot be read, but may be sound.
      CheckpointError: The stored arrays differ from those of `items`.
    """
    # One by one: a fault in the first item, the network's, explains the others.
    for name, tree in items.items():
        there = {path: shape for path, shape in found.items() if path.startswith(f"{name}/")}
        faults = differences(leaf_shapes({name: tree}), there)
        if faults:
            raise CheckpointError(
                f"checkpoint {directory} has another model or optimizer. Compared with the expected one:\n"
                f"{faults}\nUse the model and options that wrote it, or another directory."
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
    """Reads all arrays of an item to the host, as nested dictionaries.

    Args:
      directory: A step directory.
      item: Name of the item, e.g. "variables".

    Raises:
      DamagedCheckpointError: Arrays are incomplete or damaged.
      UnreadableCheckpointError: Arrays cannot be read, but may be sound.
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

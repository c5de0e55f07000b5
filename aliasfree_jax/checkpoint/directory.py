"""One step directory: a card, and arrays in one or more items (see `aliasfree_jax.checkpoint`)."""

import json
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp
from flax.traverse_util import flatten_dict, unflatten_dict

from aliasfree_jax.checkpoint.card import ModelCard, PyTree, Shapes, differences, leaf_shapes, named_leaves
from aliasfree_jax.errors import CheckpointError

FORMAT = 1


class DamagedCheckpointError(CheckpointError):
    """A checkpoint whose files are incomplete or unreadable; others of the run may be sound."""


def _nested(tree: PyTree) -> dict[str, Any]:
    # Plain nested dictionaries on disk, so that no class of ours or of optax is part of the format.
    return unflatten_dict(named_leaves(tree), sep="/")


def contents(card: ModelCard, items: dict[str, PyTree]) -> ocp.args.Composite:
    """What Orbax is to write for a card and some items, e.g. {"variables": ..., "state": ...}."""
    stored = {"format": FORMAT, "card": card.to_json(), "arrays": leaf_shapes(items)}
    arrays = {name: ocp.args.StandardSave(_nested(tree)) for name, tree in items.items()}
    return ocp.args.Composite(card=ocp.args.JsonSave(stored), **arrays)


def finished_steps(checkpoints: Path) -> list[int]:
    """The steps that have a directory, in order; Orbax gives unfinished ones other names."""
    if not checkpoints.is_dir():
        return []
    return sorted(int(path.name) for path in checkpoints.iterdir() if path.name.isdigit())


def _damaged(directory: Path, error: Exception) -> DamagedCheckpointError:
    cause = (str(error).splitlines() or [type(error).__name__])[0][:200]
    text = f"checkpoint {directory} is damaged or incomplete: {cause}."
    if directory.name.isdigit():
        older = [step for step in finished_steps(directory.parent) if step < int(directory.name)]
        text += f" The one before is of step {older[-1]}." if older else " There is no older one."
    return DamagedCheckpointError(text)


def read_card(directory: Path) -> tuple[ModelCard, Shapes]:
    """The card of a step directory, and the shapes of all arrays, e.g. "variables/params/stem/kernel".

    Raises:
      DamagedCheckpointError: incomplete or unreadable.
      CheckpointError: of another format.
    """
    try:
        stored = json.loads((directory / "card" / "metadata").read_text())
        if stored["format"] == FORMAT:
            shapes = {name: tuple(shape) for name, shape in stored["arrays"].items()}
            return ModelCard.from_json(stored["card"]), shapes
    except (OSError, KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise _damaged(directory, error) from error
    raise CheckpointError(
        f"checkpoint {directory} has format {stored['format']}, this version of aliasfree_jax reads {FORMAT}."
    )


def read_items(directory: Path, found: Shapes, items: dict[str, PyTree]) -> dict[str, PyTree]:
    """Reads arrays in the structure, dtypes and shardings of the abstract arrays in `items`.

    Args:
      directory: a step directory.
      found: the shapes that its card lists.
      items: by name, abstract arrays; an item that is not named is not read.

    Raises:
      DamagedCheckpointError: the arrays cannot be read.
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
        raise _damaged(directory, error) from error


def _structured(nested: dict[str, Any], like: PyTree) -> PyTree:
    """Undoes `_nested`."""
    leaves = flatten_dict(nested, sep="/")
    return jax.tree.unflatten(jax.tree.structure(like), [leaves[name] for name in named_leaves(like)])

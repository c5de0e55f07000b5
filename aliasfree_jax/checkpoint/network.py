"""Networks without a training state: saving and loading them; and the best one of a run, in `<run>/best/`."""

import json
import math
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import linen as nn

from aliasfree_jax.checkpoint.directory import (
    ModelCard,
    PyTree,
    contents,
    finished_steps,
    read_card,
    read_items,
    read_stored,
    set_aside,
)
from aliasfree_jax.errors import CheckpointError, ConfigError
from aliasfree_jax.files import local_path, write_json
from aliasfree_jax.foreign import build, check_unchanged
from aliasfree_jax.processes import barrier, from_first, is_first

RESULTS = "results.json"
CHOSEN_BY, CHOSEN_ON = "chosen_by", "chosen_on"  # in it: the metric, and the images, "validation" or "test"


def network_of(card: ModelCard) -> nn.Module:
    """The network that a card describes.

    Raises:
      CheckpointError: the file that makes it has changed.
      ConfigError: there is no such network, or it has no such option.
    """
    if card.file_sha256:
        check_unchanged(card.model, card.file_sha256)
    return build(card.model, card.options, card.shift_invariant)


def abstract_variables(module: nn.Module, image_size: int, channels: int) -> PyTree:
    """Shapes and dtypes of the variables of `module`, without computing them.

    Raises:
      ShapeError: the network cannot take images of this size.
    """
    image = jnp.zeros((1, image_size, image_size, channels))
    return jax.eval_shape(lambda: module.init(jax.random.key(0), image, train=False))


def save_model(directory: str | Path, card: ModelCard, variables: PyTree) -> Path:
    """Writes a network that `load_model` can read, without a training state; returns its directory.

    Raises:
      CheckpointError: `directory` exists already.
    """
    directory = local_path(directory).absolute()
    if directory.exists():
        raise CheckpointError(f"{directory} exists already: choose another directory, or remove it first.")
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as writer:
        writer.save(directory, contents(card, {"variables": variables}))
    return directory


def _model_directory(path: Path) -> Path:
    """The step directory that `path` stands for: itself, or the newest one of a run."""
    if not path.exists():
        raise CheckpointError(f"no checkpoint at {path}: there is no such file or directory.")
    if path.is_file():
        raise CheckpointError(
            f"{path} is a file, not the directory of a run or model; convert original weights (.pth) first."
        )
    if (path / "card").is_dir():
        return path
    checkpoints = path if path.name == "checkpoints" else path / "checkpoints"
    steps = finished_steps(checkpoints)
    if not steps:
        raise CheckpointError(
            f"no checkpoint in {path}: expected a run (checkpoints/<step>/) or a model directory "
            "(card/, variables/)."
        )
    return checkpoints / str(steps[-1])


def load_card(path: str | Path) -> ModelCard:
    """The card alone of what `load_model` takes.

    Raises:
      CheckpointError: nothing there, or damaged.
    """
    return read_card(_model_directory(local_path(path)))[0]


def load_model(path: str | Path) -> tuple[ModelCard, nn.Module, PyTree]:
    """Card, network and variables to evaluate (averaged ones if the run kept any).

    Args:
      path: a run's directory (its newest checkpoint), one step directory of it, or one of `save_model`.

    Raises:
      CheckpointError: nothing there, damaged, or the arrays do not fit the network that the card names.
    """
    directory = _model_directory(local_path(path))
    card, found = read_card(directory)
    try:
        module = network_of(card)
    except ConfigError as error:
        raise CheckpointError(f"the network in {directory} is none of this version: {error}") from error
    abstract = abstract_variables(module, card.image_size, card.channels)
    on_host = jax.tree.map(lambda a: np.empty(a.shape, a.dtype), abstract)
    variables = read_items(directory, found, {"variables": on_host})["variables"]
    # Not committed to a device: they may be used on a mesh of any size.
    return card, module, jax.tree.map(jnp.asarray, variables)


def load_variables(path: str | Path) -> tuple[ModelCard, PyTree]:
    """Card and variables without the network, whatever has become of the file that makes it.

    Raises:
      CheckpointError: nothing there, or damaged.
    """
    directory = _model_directory(local_path(path))
    card, found = read_card(directory)
    return card, read_stored(directory, "variables")


def newest_run(root: str | Path = "runs") -> Path:
    """The run directory under `root` that holds the newest checkpoint.

    Raises:
      CheckpointError: there is no checkpoint.
    """
    steps = [step for step in Path(root).glob("*/checkpoints/*") if step.name.isdigit()]
    if not steps:
        raise CheckpointError(
            f"no checkpoint under {Path(root)}/*/checkpoints/. Make one with: python train.py"
        )
    return max(steps, key=lambda step: step.stat().st_mtime).parent.parent


def _chosen(best: Path) -> tuple[str, str, float]:
    """By which metric, on what images and with which value the network in `<run>/best/` was chosen."""
    kept = json.loads((best / RESULTS).read_bytes())
    return kept[CHOSEN_BY], kept[CHOSEN_ON], float(kept[kept[CHOSEN_BY]])


def how_chosen(checkpoint: Path) -> str:
    """How the network in `<run>/best/` was chosen, in words; "" for any other checkpoint."""
    try:
        metric, images, _ = _chosen(checkpoint)
    except (OSError, KeyError, TypeError, ValueError):
        return ""
    warning = ", so results on them are too good" if images == "test" else ""
    return f"the best {metric} of {images} images{warning}"


def _make_way(best: Path, new: Path, old: Path, value: float, metric: str, images: str) -> bool:
    """Whether `value` is better than what is kept; clears what an earlier process left behind, if so.

    Raises:
      OSError: it cannot be read now what is kept, which says nothing of the network.
    """
    if old.exists() and not best.exists():  # it died between the two renamings of `keep_best`
        old.rename(best)
    kept = -math.inf  # also if that was chosen otherwise, or is damaged
    with suppress(FileNotFoundError, KeyError, TypeError, ValueError):
        *how, found = _chosen(best)
        kept = found if how == [metric, images] else kept
    if not value > kept:  # nor where it is not a number
        return False
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    return True


def set_best_aside(run: Path) -> list[str]:
    """Renames the best network of an earlier run that left no checkpoint: nothing says what run that was.

    To be called where a run begins; returns what to tell.
    """
    best = run / "best"
    return [f"{best} is of an earlier run; it is now {set_aside(best, 'earlier')}"] if best.exists() else []


def keep_best(
    run: str | Path,
    card: ModelCard,
    variables: PyTree,
    results: Mapping[str, float],
    metric: str,
    images: str,
) -> bool:
    """Writes the network to `<run>/best/` if none there has as large a `metric`; tells whether it did.

    Its `results.json` says by which metric and on what `images`: one chosen otherwise gives way.
    `load_model(run / "best")` reads it. The one before stays until the new one is whole on disk, also if
    the process dies in between. Of several processes the first decides and renames, all write.

    Raises:
      CheckpointError: it cannot be written, or the one before not be read.
    """
    best, new, old = (Path(run).absolute() / name for name in ("best", "best.new", "best.old"))
    try:
        better = is_first() and _make_way(best, new, old, results[metric], metric, images)
        if not from_first(better):
            return False
        save_model(new, card, variables)
        if is_first():
            write_json(new / RESULTS, {**results, CHOSEN_BY: metric, CHOSEN_ON: images}, indent=None)
            if best.exists():
                best.rename(old)
            new.rename(best)
            shutil.rmtree(old, ignore_errors=True)
        barrier("best network kept")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot keep the best network in {best}: {error}") from error
    return True

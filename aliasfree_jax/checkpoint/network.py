"""Saves and loads networks without a training state, among them the best network of a run."""

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

from aliasfree_jax.checkpoint.card import ModelCard
from aliasfree_jax.checkpoint.directory import (
    PyTree,
    contents,
    finished_steps,
    read_card,
    read_items,
    read_stored,
    set_aside,
)
from aliasfree_jax.errors import CheckpointError, ConfigError
from aliasfree_jax.files import local_path, output_file, write_json
from aliasfree_jax.foreign import build, check_unchanged
from aliasfree_jax.processes import barrier, from_first, is_first

RESULTS = "results.json"
CHOSEN_BY, CHOSEN_ON = "chosen_by", "chosen_on"  # its fields: a metric; "validation" or "test"


def network_of(card: ModelCard) -> nn.Module:
    """Makes the network that a card describes.

    Args:
      card: The card.

    Returns:
      A Flax module.

    Raises:
      CheckpointError: The file that makes the network has changed.
      ConfigError: The network or an option is unknown.
    """
    if card.file_sha256:
        check_unchanged(card.model, card.file_sha256)
    return build(card.model, card.options, card.shift_invariant)


def abstract_variables(module: nn.Module, image_size: int, channels: int) -> PyTree:
    """Returns shapes and dtypes of a network's variables without computing them.

    Args:
      module: The network.
      image_size: Side of its square input, pixels.
      channels: Channels of its input.

    Returns:
      The variables as `jax.ShapeDtypeStruct`.

    Raises:
      ShapeError: The network does not accept images of this size.
    """
    image = jax.ShapeDtypeStruct((1, image_size, image_size, channels), jnp.float32)
    return jax.eval_shape(lambda image: module.init(jax.random.key(0), image, train=False), image)


def model_directory(text: str | Path) -> Path:
    """Returns the absolute path of a new directory for `save_model`. Call it before the work for the network.

    Raises:
      CheckpointError: The directory exists already.
      ConfigError: Its parent directory cannot be made or written to.
    """
    directory = local_path(text).absolute()
    if directory.exists():
        raise CheckpointError(f"{directory} exists already. Choose another directory, or remove it first.")
    return output_file(directory, "the new directory")


def save_model(directory: str | Path, card: ModelCard, variables: PyTree) -> Path:
    """Writes a network without a training state. `load_model` reads it.

    Args:
      directory: The new directory.
      card: Card of the network.
      variables: Its variables.

    Returns:
      The absolute path of the directory.

    Raises:
      CheckpointError: The directory exists already, or cannot be written.
      ConfigError: Its parent directory cannot be made or written to.
    """
    directory = model_directory(directory)
    try:
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as writer:
            writer.save(directory, contents(card, {"variables": variables}))
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot write {directory}: {error}. Free disk space or repair the file system."
        ) from error
    return directory


def _model_directory(path: Path) -> Path:
    """The step directory of `path`: itself, or the newest step of a run."""
    if not path.exists():
        raise CheckpointError(f"no checkpoint at {path}: there is no such file or directory.")
    if path.is_file():
        raise CheckpointError(
            f"{path} is a file. Expected the directory of a run or model. Convert original weights (.pth) "
            "first."
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
    """Reads only the card of a network.

    Args:
      path: As in `load_model`.

    Returns:
      The card.

    Raises:
      CheckpointError: There is no checkpoint, or it is damaged.
    """
    return read_card(_model_directory(local_path(path)))[0]


def load_model(path: str | Path) -> tuple[ModelCard, nn.Module, PyTree]:
    """Loads a network with the variables to evaluate.

    Args:
      path: A run (its newest checkpoint is loaded), one of its step directories, or a directory of
        `save_model`.

    Returns:
      `(card, module, variables)`. The variables are the averaged ones if the run averages.

    Raises:
      CheckpointError: There is no checkpoint, it is damaged, or its arrays do not fit the network of the
        card.
    """
    directory = _model_directory(local_path(path))
    card, found = read_card(directory)
    try:
        module = network_of(card)
    except ConfigError as error:
        raise CheckpointError(f"this version cannot make the network in {directory}: {error}") from error
    abstract = abstract_variables(module, card.image_size, card.channels)
    on_host = jax.tree.map(lambda a: np.empty(a.shape, a.dtype), abstract)
    variables = read_items(directory, found, {"variables": on_host})["variables"]
    # Not committed to a device, so that a mesh of any size can use them.
    return card, module, jax.tree.map(jnp.asarray, variables)


def load_variables(path: str | Path) -> tuple[ModelCard, PyTree]:
    """Loads card and variables without making the network. The file that makes it is not needed.

    Args:
      path: As in `load_model`.

    Returns:
      `(card, variables)`.

    Raises:
      CheckpointError: There is no checkpoint, or it is damaged.
    """
    directory = _model_directory(local_path(path))
    card, found = read_card(directory)
    return card, read_stored(directory, "variables")


def newest_run(root: str | Path = "runs") -> Path:
    """Finds the run with the newest checkpoint.

    Args:
      root: The directory of all runs.

    Returns:
      The directory of the run.

    Raises:
      CheckpointError: There is no checkpoint.
    """
    steps = [step for step in Path(root).glob("*/checkpoints/*") if step.name.isdigit()]
    if not steps:
        raise CheckpointError(
            f"no checkpoint under {Path(root)}/*/checkpoints/. Make one with: python train.py"
        )
    return max(steps, key=lambda step: step.stat().st_mtime).parent.parent


def _chosen(best: Path) -> tuple[str, str, float]:
    """The metric, the images and the value that chose the network in `<run>/best/`."""
    kept = json.loads((best / RESULTS).read_bytes())
    return kept[CHOSEN_BY], kept[CHOSEN_ON], float(kept[kept[CHOSEN_BY]])


def how_chosen(checkpoint: Path) -> str:
    """Describes how the network in `<run>/best/` was chosen.

    Args:
      checkpoint: The directory of the network.

    Returns:
      A phrase such as "the best top1 of validation images". "" for any other checkpoint.
    """
    try:
        metric, images, _ = _chosen(checkpoint)
    except (OSError, KeyError, TypeError, ValueError):
        return ""
    warning = ", so results on them are too good" if images == "test" else ""
    return f"the best {metric} of {images} images{warning}"


def _make_way(best: Path, new: Path, old: Path, value: float, metric: str, images: str) -> bool:
    """Whether `value` is better than the kept network's. If so, removes leftovers of an earlier process.

    Raises:
      OSError: The kept results cannot be read now.
    """
    if old.exists() and not best.exists():  # a process died between the two renamings in `keep_best`
        old.rename(best)
    kept = -math.inf  # also if it was chosen by another metric, or is damaged
    with suppress(FileNotFoundError, KeyError, TypeError, ValueError):
        *how, found = _chosen(best)
        kept = found if how == [metric, images] else kept
    if not value > kept:  # also if it is not a number
        return False
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    return True


def set_best_aside(run: Path) -> list[str]:
    """Renames the best network of an earlier run that left no checkpoint.

    Call it when a run starts. Without a checkpoint, nothing states which run the network belongs to.

    Args:
      run: The directory of the run.

    Returns:
      Messages for the user. Empty if nothing was renamed.
    """
    best = run / "best"
    if not best.exists():
        return []
    return [f"{best} belongs to an earlier run; renamed to {set_aside(best, 'earlier')}"]


def keep_best(
    run: str | Path,
    card: ModelCard,
    variables: PyTree,
    results: Mapping[str, float],
    metric: str,
    images: str,
) -> bool:
    """Writes the network to `<run>/best/` if its result is better than the kept network's.

    `load_model(run / "best")` reads it. The previous network stays until the new one is complete on disk,
    also if the process dies. With several processes, all write, and the first one decides and renames.

    Args:
      run: The directory of the run.
      card: Card of the network.
      variables: Its variables.
      results: Its results. They are stored in `results.json`.
      metric: The result that decides. Larger is better.
      images: The measured images: "validation" or "test". A network that was chosen by another metric or on
        other images is replaced.

    Returns:
      Whether the network was written.

    Raises:
      CheckpointError: The network cannot be written, or the previous one cannot be read.
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

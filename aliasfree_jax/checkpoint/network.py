"""Networks without a training state: saving them, and loading what evaluation needs."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from flax import linen as nn

from aliasfree_jax.checkpoint.card import ModelCard, PyTree
from aliasfree_jax.checkpoint.directory import contents, finished_steps, read_card, read_items
from aliasfree_jax.errors import CheckpointError
from aliasfree_jax.files import local_path
from aliasfree_jax.models import create_model


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
        raise CheckpointError(f"no checkpoint at {path}: there is no such directory.")
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


def load_model(path: str | Path) -> tuple[ModelCard, nn.Module, PyTree]:
    """Card, network and variables to evaluate (averaged ones if the run kept any).

    Args:
      path: a run's directory (its newest checkpoint), one step directory of it, or one of `save_model`.

    Raises:
      CheckpointError: nothing there, damaged, or the arrays do not fit the network that the card names.
    """
    directory = _model_directory(local_path(path))
    card, found = read_card(directory)
    module = create_model(card.model, **card.options)
    abstract = abstract_variables(module, card.image_size, card.channels)
    on_host = jax.tree.map(lambda a: np.empty(a.shape, a.dtype), abstract)
    variables = read_items(directory, found, {"variables": on_host})["variables"]
    # Not committed to a device: they may be used on a mesh of any size.
    return card, module, jax.tree.map(jnp.asarray, variables)


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

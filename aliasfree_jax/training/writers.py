"""Metrics to TensorBoard and Weights & Biases, for runs that ask for it; `metrics.jsonl` is always there."""

import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from ml_collections import ConfigDict

from aliasfree_jax.errors import needed
from aliasfree_jax.files import write_whole

WANDB_ID = "wandb_id"  # file in the run's directory


class Writer(Protocol):
    """Where numbers of a run go besides `metrics.jsonl`."""

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Takes named numbers, such as "train/loss"."""

    def close(self) -> None:
        """Ends the run there."""


class TensorBoard:
    """Event files in `<workdir>/tensorboard`, by tensorboardX: without TensorFlow and torch."""

    def __init__(self, workdir: Path, start: int) -> None:
        """Events of steps after `start`, left by a part of the run that is done again, are dropped."""
        module = needed("tensorboardX", "log.tensorboard")
        self._writer = module.SummaryWriter(str(workdir / "tensorboard"), purge_step=start + 1)

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """One scalar each."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Flushes."""
        self._writer.close()


class WeightsAndBiases:
    """A run of the project `log.wandb`, named after the working directory; directories may share a name."""

    def __init__(self, workdir: Path, config: ConfigDict) -> None:
        """Starts or resumes the run there."""
        module = needed("wandb", "log.wandb")
        names = {"project": config.log.wandb, "name": workdir.absolute().name, "id": _wandb_id(workdir)}
        self._run = module.init(**names, dir=str(workdir), resume="allow", config=config.to_dict())

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """All of them at `step`."""
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        """Uploads the rest."""
        self._run.finish()


def _wandb_id(workdir: Path) -> str:
    """What the run is known by there, made once: no other run has it, and the run keeps it."""
    path = workdir / WANDB_ID
    if not path.exists():
        write_whole(path, uuid.uuid4().hex)
    return path.read_text().strip()


def make_writers(config: ConfigDict, workdir: Path, start: int) -> list[Writer]:
    """Those that the section `log` asks for.

    Raises:
      MissingPackageError: a package is missing.
    """
    writers: list[Writer] = []
    if config.log.tensorboard:
        writers.append(TensorBoard(workdir, start))
    if config.log.wandb:
        writers.append(WeightsAndBiases(workdir, config))
    return writers

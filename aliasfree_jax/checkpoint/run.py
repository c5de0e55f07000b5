"""The checkpoints of a run that trains."""

from pathlib import Path
from types import TracebackType
from typing import Self

import orbax.checkpoint as ocp

from aliasfree_jax.checkpoint.card import ModelCard, PyTree
from aliasfree_jax.checkpoint.directory import contents, finished_steps, read_card, read_items
from aliasfree_jax.errors import CheckpointError


class RunCheckpoints:
    """The checkpoints of one run, `<run>/checkpoints/<step>/`, the newest `keep` of them.

    Saves in the background; `close`, or leaving the `with` block, waits for the last one.
    """

    def __init__(self, run: str | Path, keep: int):
        self.directory = Path(run).absolute() / "checkpoints"
        self.directory.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep)
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def latest_step(self) -> int | None:
        """The step of the newest finished checkpoint; None if there is none."""
        steps = finished_steps(self.directory)
        return steps[-1] if steps else None

    def save(self, card: ModelCard, variables: PyTree, state: PyTree) -> None:
        """Starts writing the checkpoint of `card.step`; the arrays may be donated or changed afterwards.

        Raises:
          CheckpointError: this or the previous checkpoint cannot be written.
        """
        try:
            self._manager.save(card.step, args=contents(card, {"variables": variables, "state": state}))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"cannot write checkpoint {card.step} to {self.directory}: {error}"
            ) from error

    def restore(self, card: ModelCard, variables: PyTree, state: PyTree) -> tuple[int, PyTree, PyTree]:
        """The newest checkpoint: its step, and the arrays in the structure and shardings asked for.

        Args:
          card: of the network that is to be trained on; must name the same network.
          variables: `jax.ShapeDtypeStruct`s with shardings.
          state: likewise.

        Raises:
          CheckpointError: none there, damaged, or of another network or optimizer.
        """
        step = self.latest_step()
        if step is None:
            raise CheckpointError(f"no checkpoint in {self.directory}.")
        directory = self.directory / str(step)
        stored, found = read_card(directory)
        if stored.model != card.model:
            raise CheckpointError(
                f"checkpoint {directory} is of the model {stored.model!r}, the configuration asks for "
                f"{card.model!r}: use another --workdir, or start from its weights with --config.init_from."
            )
        items = read_items(directory, found, {"variables": variables, "state": state})
        return step, items["variables"], items["state"]

    def close(self) -> None:
        """Waits until the last checkpoint is on disk.

        Raises:
          CheckpointError: it could not be written.
        """
        try:
            self._manager.close()
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot write the checkpoint to {self.directory}: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

"""Saves and restores the checkpoints of a training run."""

import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import orbax.checkpoint as ocp

from aliasfree_jax.checkpoint.card import ModelCard
from aliasfree_jax.checkpoint.directory import (
    DamagedCheckpointError,
    PyTree,
    UnreadableCheckpointError,
    contents,
    finished_steps,
    read_card,
    read_items,
    set_aside,
)
from aliasfree_jax.errors import CheckpointError
from aliasfree_jax.processes import barrier, is_first, total


def newest_card(run: str | Path) -> ModelCard | None:
    """Reads the card of the newest checkpoint of a run whose card is not damaged.

    Args:
      run: The directory of the run.

    Returns:
      The card. None if there is none.

    Raises:
      CheckpointError: The checkpoint has another format.
    """
    checkpoints = Path(run).absolute() / "checkpoints"
    for step in finished_steps(checkpoints)[::-1]:
        with suppress(DamagedCheckpointError):
            return read_card(checkpoints / str(step))[0]
    return None


class RunCheckpoints:
    """The newest `keep` checkpoints of one run, in `<run>/checkpoints/<step>/`.

    They are saved in the background. `close` waits for the last one.

    Args:
      run: The directory of the run.
      keep: Number of checkpoints to keep.

    Attributes:
      directory: The directory of the checkpoints.
    """

    def __init__(self, run: str | Path, keep: int):
        self.directory = Path(run).absolute() / "checkpoints"
        self.directory.mkdir(parents=True, exist_ok=True)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep)
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def latest_step(self) -> int | None:
        """Returns the step of the newest finished checkpoint. None if there is none."""
        steps = finished_steps(self.directory)
        return steps[-1] if steps else None

    def save(self, card: ModelCard, variables: PyTree, state: PyTree) -> None:
        """Starts to write the checkpoint of `card.step`. The arrays may be donated or changed afterwards.

        Args:
          card: Card of the network.
          variables: The variables to evaluate.
          state: The rest of the training state.

        Raises:
          CheckpointError: This or the previous checkpoint cannot be written.
        """
        try:
            self._manager.save(card.step, args=contents(card, {"variables": variables, "state": state}))
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"cannot write checkpoint {card.step} to {self.directory}: {error}"
            ) from error

    def restore(
        self,
        card: ModelCard,
        variables: PyTree,
        state: PyTree,
        *,
        tell: Callable[[str], None] = warnings.warn,
    ) -> tuple[int, PyTree, PyTree]:
        """Restores the newest sound checkpoint.

        Newer damaged checkpoints are renamed to `<step>.damaged`, so they are kept but not read again.

        Args:
          card: Card of the network to train. The checkpoint must have the same network.
          variables: The expected variables as `jax.ShapeDtypeStruct` with shardings.
          state: The expected training state as `jax.ShapeDtypeStruct` with shardings.
          tell: Called with a message about each damaged checkpoint.

        Returns:
          `(step, variables, state)` with the expected structure and shardings.

        Raises:
          DamagedCheckpointError: All checkpoints are damaged. Nothing is renamed.
          UnreadableCheckpointError: The newest checkpoint that is not damaged cannot be read now. Nothing is
            renamed.
          CheckpointError: There is no checkpoint, or it has another network or optimizer.
        """
        damaged: list[CheckpointError] = []
        steps = finished_steps(self.directory)[::-1]
        for step in steps:
            restored, fault = None, None
            try:
                restored = self._restore_step(step, card, variables, state)
            except (DamagedCheckpointError, UnreadableCheckpointError) as error:
                fault = error
            elsewhere = f"checkpoint {self.directory / str(step)} cannot be read by another process."
            if total(int(isinstance(fault, UnreadableCheckpointError))):  # in any process
                raise fault or UnreadableCheckpointError(elsewhere)
            if total(int(fault is not None)):
                damaged.append(fault or DamagedCheckpointError(elsewhere))
            elif restored is not None:
                self._set_aside(dict(zip(steps, damaged, strict=False)), step, tell)
                return step, *restored
        raise damaged[0] if damaged else CheckpointError(f"no checkpoint in {self.directory}.")

    def _set_aside(self, damaged: dict[int, CheckpointError], good: int, tell: Callable[[str], None]) -> None:
        """Renames the damaged steps, reports each, and makes Orbax forget them."""
        if not damaged:
            return
        barrier("damaged checkpoints found")  # all processes must find them before they are renamed
        if is_first():
            for step, reason in damaged.items():
                aside = set_aside(self.directory / str(step), "damaged")
                tell(f"{reason} Renamed it to {aside}. Continuing from step {good}.")
        barrier("damaged checkpoints set aside")
        self._manager.reload()

    def _restore_step(
        self, step: int, card: ModelCard, variables: PyTree, state: PyTree
    ) -> tuple[PyTree, PyTree]:
        directory = self.directory / str(step)
        stored, found = read_card(directory)
        # Equal sums: the same file in another place.
        moved = stored.file_sha256 and stored.file_sha256 == card.file_sha256
        if stored.model != card.model and not moved:
            raise CheckpointError(
                f"checkpoint {directory} has the model {stored.model!r}, but the configuration asks for "
                f"{card.model!r}. Use another --workdir, or start from its weights with --config.init_from."
            )
        items = read_items(directory, found, {"variables": variables, "state": state})
        return items["variables"], items["state"]

    def close(self) -> None:
        """Waits until the last checkpoint is on disk.

        Raises:
          CheckpointError: The checkpoint cannot be written.
        """
        try:
            self._manager.close()
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot write the checkpoint to {self.directory}: {error}") from error

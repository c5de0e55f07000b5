"""The checkpoints of a run that trains."""

import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import orbax.checkpoint as ocp

from aliasfree_jax.checkpoint.directory import (
    DamagedCheckpointError,
    ModelCard,
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
    """The card of the newest checkpoint of a run that is sound enough to have one; None if there is none.

    Raises:
      CheckpointError: of another format.
    """
    checkpoints = Path(run).absolute() / "checkpoints"
    for step in finished_steps(checkpoints)[::-1]:
        with suppress(DamagedCheckpointError):
            return read_card(checkpoints / str(step))[0]
    return None


class RunCheckpoints:
    """The checkpoints of one run, `<run>/checkpoints/<step>/`, the newest `keep` of them.

    Saves in the background; `close` waits for the last one.
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

    def restore(
        self,
        card: ModelCard,
        variables: PyTree,
        state: PyTree,
        *,
        tell: Callable[[str], None] = warnings.warn,
    ) -> tuple[int, PyTree, PyTree]:
        """The newest sound checkpoint: its step, and the arrays in the structure and shardings asked for.

        A damaged newer one is renamed to `<step>.damaged`, so that it is out of the way and not lost.

        Args:
          card: of the network that is to be trained on; must name the same network.
          variables: `jax.ShapeDtypeStruct`s with shardings.
          state: likewise.
          tell: called with a sentence on each damaged checkpoint.

        Raises:
          DamagedCheckpointError: all are damaged; nothing is renamed.
          UnreadableCheckpointError: the newest that is not damaged cannot be read now; nothing is renamed.
          CheckpointError: none there, or of another network or optimizer.
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
        """Renames the damaged steps, tells of each, and makes Orbax forget them."""
        if not damaged:
            return
        barrier("damaged checkpoints found")  # by all, before they are gone
        if is_first():
            for step, reason in damaged.items():
                aside = set_aside(self.directory / str(step), "damaged")
                tell(f"{reason} It is now {aside}; going on from step {good}.")
        barrier("damaged checkpoints set aside")
        self._manager.reload()

    def _restore_step(
        self, step: int, card: ModelCard, variables: PyTree, state: PyTree
    ) -> tuple[PyTree, PyTree]:
        directory = self.directory / str(step)
        stored, found = read_card(directory)
        moved = stored.file_sha256 and stored.file_sha256 == card.file_sha256  # the same file elsewhere
        if stored.model != card.model and not moved:
            raise CheckpointError(
                f"checkpoint {directory} is of the model {stored.model!r}, the configuration asks for "
                f"{card.model!r}: use another --workdir, or start from its weights with --config.init_from."
            )
        items = read_items(directory, found, {"variables": variables, "state": state})
        return items["variables"], items["state"]

    def close(self) -> None:
        """Waits until the last checkpoint is on disk.

        Raises:
          CheckpointError: it could not be written.
        """
        try:
            self._manager.close()
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot write the checkpoint to {self.directory}: {error}") from error

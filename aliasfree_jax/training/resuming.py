"""Stops and resumes runs: SIGTERM, the comparison with the stored configuration, one job at a time."""

import itertools
import json
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils
from ml_collections import ConfigDict

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.files import sole_writer
from aliasfree_jax.processes import of_first
from aliasfree_jax.stored_config import (
    CONFIG,
    REMOVED,
    defaults,
    differences,
    read_accepted,
    read_config,
    read_removed,
)
from aliasfree_jax.validation import field_fault

Batch = TypeVar("Batch")
_ASKED = itertools.count(1)  # number of requests so far; equal in all processes

GONE = "(this version has no such field)"  # shown as the present value of a removed field
_ROUNDING = "from now on, numbers are rounded differently"
_MEASURED = "do not compare evaluations, or best networks, from before and after this step"
# The fields that may change when a run is resumed, by the start of their names, and the note about each ("":
# none). All other fields change the result, including fields that a later version adds.
MAY_CHANGE = {
    "checkpoint.": "",
    "eval.": "",
    "log.": "",
    "data.workers": "",
    "train.devices": "",
    "train.parameter_shards": "",
    "dry_run": "",
    "init_from": "",  # a run with checkpoints ignores it
    "train.precision": _ROUNDING,
    "train.remat": _ROUNDING,
    "data.image_backend": _ROUNDING,  # pixels are rounded; the crops are the same
    "data.corrupt": "from now on, unreadable images are treated differently",
    "data.eval_split": _MEASURED,  # eval_view and eval_crop_ratio are missing: training views use them too
    "data.eval_limit": _MEASURED,
}


def _word(field: str) -> str | None:
    """The note about a changed field; None if the field must not change."""
    return next((word for start, word in MAY_CHANGE.items() if field.startswith(start)), None)


def _shown(change: tuple[Any, Any]) -> str:
    return ", ".join(json.dumps(value) for value in change)


def check_identity(
    workdir: Path, config: ConfigDict, step: int | None, accept: Sequence[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Compares a run that has checkpoints with the configuration that resumes it.

    Args:
      workdir: the run's directory.
      config: the present configuration.
      step: step of the run's newest checkpoint; None for a new run, which is not compared.
      accept: fields that may differ although they change the result.

    Returns:
      All changes that were ever accepted, to be stored; and notes for the user.

    Raises:
      ConfigError: fields that change the result differ and are not accepted, an accepted field does not
        exist, or the stored configuration is missing or unreadable.
    """
    for fault in filter(None, (field_fault(name) for name in accept if name not in REMOVED)):
        raise ConfigError(f"--accept_changes: {fault}")
    if step is None:
        return [], []
    path = workdir / CONFIG
    try:
        before = read_config(path)
        accepted = read_accepted(path)
    except ConfigError as error:
        raise ConfigError(
            f"{error}\nThe run has checkpoints, but their configuration is unknown. Restore the file, or use "
            f"another --workdir and start from the weights with --config.init_from={workdir}."
        ) from error
    changes = {name: (value, GONE) for name, value in read_removed(path).items()}
    changes |= differences(before.to_dict(), config.to_dict(), defaults())
    faults = {name: change for name, change in changes.items() if _word(name) is None}
    refused = [name for name in faults if name not in accept]
    if refused:
        lines = "\n".join(f"  {name}: {_shown(faults[name])}" for name in refused)
        raise ConfigError(
            f"{workdir} was trained with other settings, which change the result (field: stored, now):\n"
            f"{lines}\nUse the stored settings (train.py without --config does), or another --workdir. To "
            f"continue with the new ones: --accept_changes={','.join([*accept, *refused])}"
        )
    notes = [f"{name}: {_shown(changes[name])}: {_word(name)}" for name in changes if _word(name)]
    notes += [f"accepted change of {name}: {_shown(faults[name])}" for name in faults]
    notes += [f"--accept_changes: {name} has not changed" for name in accept if name not in faults]
    new = [
        {"step": step, "field": name, "stored": stored, "now": now} for name, (stored, now) in faults.items()
    ]
    return [*accepted, *new], notes


@contextmanager
def sole_job(workdir: Path) -> Iterator[None]:
    """Creates the run's directory and locks it against other jobs.

    If there are several processes, the first one does this.

    Raises:
      OccupiedError: another live job uses the directory.
      ConfigError: the directory cannot be created or written to.
    """
    with ExitStack() as stack:

        def enter() -> None:
            try:
                workdir.mkdir(parents=True, exist_ok=True)
                stack.enter_context(sole_writer(workdir))
            except OSError as error:
                raise ConfigError(f"cannot create the run directory {workdir}: {error}") from error

        of_first(enter)
        yield


class TerminatedError(Exception):
    """SIGTERM ended the run after `step` updates. The checkpoint of this step is written."""

    def __init__(self, step: int) -> None:
        """Makes the error for a run that ended after `step` updates."""
        super().__init__(f"terminated after step {step} and saved its checkpoint")


@contextmanager
def watch_for_termination() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns whether SIGTERM has come.

    Call it after a step or between batches, and stop if it returns True. A second SIGTERM ends the process at
    once. If there are several processes, any of them may receive the signal, and all must call the function
    equally often. JAX's coordination service then handles the signal and stops all of them at the same place.
    Outside the main thread Python handles no signals, so a single process never stops there.
    """
    came = threading.Event()
    if jax.process_count() > 1:

        def agreed() -> bool:
            if not came.is_set() and multihost_utils.reached_preemption_sync_point(next(_ASKED)):
                came.set()  # the service reports it only once
            return came.is_set()

        yield agreed
        return

    if threading.current_thread() is not threading.main_thread():
        yield came.is_set
        return

    def handle(number: int, frame: FrameType | None) -> None:
        came.set()
        signal.signal(signal.SIGTERM, before)

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield came.is_set
    finally:
        signal.signal(signal.SIGTERM, before)


def until_termination(
    batches: Iterable[Batch], step: int, stop_requested: Callable[[], bool]
) -> Iterator[Batch]:
    """The batches of an evaluation after `step` updates. SIGTERM ends it between two batches.

    Raises:
      TerminatedError: SIGTERM came. The caller makes sure that the checkpoint of `step` is written.
    """
    for batch in batches:
        if stop_requested():
            raise TerminatedError(step)
        yield batch

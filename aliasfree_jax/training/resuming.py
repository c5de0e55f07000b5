"""How a run stops and goes on: SIGTERM, the comparison with its stored configuration, one job at a time."""

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

from aliasfree_jax.config import field_fault
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

Batch = TypeVar("Batch")
_ASKED = itertools.count(1)  # how often the processes have asked, equally often in all of them

GONE = "(no field of this version)"  # stands for the present value of a field that was removed
_ROUNDING = "numbers are rounded otherwise from here on"
_MEASURED = "evaluations before and after this step cannot be compared, nor can the best network"
# By the start of their names, the fields that may change while a run goes on, with what is then said ("":
# nothing). Every other field changes the result, also one that a later version adds.
MAY_CHANGE = {
    "checkpoint.": "",
    "eval.": "",
    "log.": "",
    "data.workers": "",
    "train.devices": "",
    "train.parameter_shards": "",
    "dry_run": "",
    "init_from": "",  # a run that has checkpoints starts from none
    "train.precision": _ROUNDING,
    "train.remat": _ROUNDING,
    "data.image_backend": _ROUNDING,  # of pixels; the crops are the same
    "data.corrupt": "unreadable images are treated otherwise from here on",
    "data.eval_split": _MEASURED,  # other than eval_view and eval_crop_ratio, which make training views too
    "data.eval_limit": _MEASURED,
}


def _word(field: str) -> str | None:
    """What to say when the field has changed; None if it must not."""
    return next((word for start, word in MAY_CHANGE.items() if field.startswith(start)), None)


def _shown(change: tuple[Any, Any]) -> str:
    return ", ".join(json.dumps(value) for value in change)


def check_identity(
    workdir: Path, config: ConfigDict, step: int | None, accept: Sequence[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Compares a run that has checkpoints with the configuration that it is to go on with.

    Args:
      workdir: the run's directory.
      config: the present configuration.
      step: of the run's newest checkpoint; None: a new run, which is like nothing yet.
      accept: fields that may differ although they change the result.

    Returns:
      all changes that the run went on with so far, to be stored; and what to tell.

    Raises:
      ConfigError: fields that change the result differ and are not accepted, an accepted one does not exist,
        or the stored configuration is missing or unreadable.
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
            f"{error}\nThe run has checkpoints, but nothing says what they were trained with: put the file "
            "back, or take another --workdir and start from the weights with "
            f"--config.init_from={workdir}."
        ) from error
    changes = {name: (value, GONE) for name, value in read_removed(path).items()}
    changes |= differences(before.to_dict(), config.to_dict(), defaults())
    faults = {name: change for name, change in changes.items() if _word(name) is None}
    refused = [name for name in faults if name not in accept]
    if refused:
        lines = "\n".join(f"  {name}: {_shown(faults[name])}" for name in refused)
        raise ConfigError(
            f"{workdir} was trained with other settings, which change the result (field: stored, now):\n"
            f"{lines}\nUse the stored ones (train.py takes them without --config), or another --workdir. "
            f"To go on with these all the same: --accept_changes={','.join([*accept, *refused])}"
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
    """Makes the run's directory and keeps other jobs out of it; of several processes the first does.

    Raises:
      OccupiedError: another live job is in.
      ConfigError: the directory cannot be made or written to.
    """
    with ExitStack() as stack:

        def enter() -> None:
            try:
                workdir.mkdir(parents=True, exist_ok=True)
                stack.enter_context(sole_writer(workdir))
            except OSError as error:
                raise ConfigError(f"cannot make the run directory {workdir}: {error}") from error

        of_first(enter)
        yield


class TerminatedError(Exception):
    """SIGTERM ended the run after `step` updates, whose checkpoint is written."""

    def __init__(self, step: int) -> None:
        """After `step` updates."""
        super().__init__(f"terminated after step {step}, whose checkpoint is written")


@contextmanager
def watch_for_termination() -> Iterator[Callable[[], bool]]:
    """Gives a function that tells, after a step or between batches, whether SIGTERM has come: stop there.

    A second SIGTERM ends the process at once. Of several processes any may get the signal, and all must ask
    equally often: JAX's coordination service, which handles it then, makes all stop at the same place.
    Outside the main thread, where Python handles no signals, a single process never stops.
    """
    came = threading.Event()
    if jax.process_count() > 1:

        def agreed() -> bool:
            if not came.is_set() and multihost_utils.reached_preemption_sync_point(next(_ASKED)):
                came.set()  # the service says so only once
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
    """The batches of an evaluation after `step` updates, which SIGTERM ends between two of them.

    Raises:
      TerminatedError: it came; the checkpoint of `step` is there, or to be written.
    """
    for batch in batches:
        if stop_requested():
            raise TerminatedError(step)
        yield batch

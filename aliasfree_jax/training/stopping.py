"""Ending a run early without losing a step."""

import itertools
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TypeVar

import jax
from jax.experimental import multihost_utils

Batch = TypeVar("Batch")
_ASKED = itertools.count(1)  # how often the processes have asked, equally often in all of them


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

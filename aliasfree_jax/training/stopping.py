"""Ending a run early without losing a step."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import jax
from jax.experimental import multihost_utils


class TerminatedError(Exception):
    """SIGTERM ended the run after `step` updates, whose checkpoint is written."""

    def __init__(self, step: int) -> None:
        """After `step` updates."""
        super().__init__(f"terminated after step {step}, whose checkpoint is written")


@contextmanager
def watch_for_termination() -> Iterator[Callable[[int], bool]]:
    """Gives a function that tells after a step whether to stop there because SIGTERM has come.

    A second SIGTERM ends the process at once. Of several processes any may get the signal; JAX's
    coordination service, which handles it then, makes all stop after the same step. Outside the main thread,
    where Python handles no signals, a single process never stops.
    """
    if jax.process_count() > 1:
        yield multihost_utils.reached_preemption_sync_point
        return
    came = threading.Event()

    def asked(step: int) -> bool:
        return came.is_set()

    if threading.current_thread() is not threading.main_thread():
        yield asked
        return

    def handle(number: int, frame: FrameType | None) -> None:
        came.set()
        signal.signal(signal.SIGTERM, before)

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield asked
    finally:
        signal.signal(signal.SIGTERM, before)

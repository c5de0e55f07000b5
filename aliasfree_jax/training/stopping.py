"""Ending a run early without losing a step."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


class TerminatedError(Exception):
    """SIGTERM ended the run after `step` updates, whose checkpoint is written."""

    def __init__(self, step: int) -> None:
        """After `step` updates."""
        super().__init__(f"terminated after step {step}, whose checkpoint is written")


@contextmanager
def watch_for_termination() -> Iterator[Callable[[], bool]]:
    """Gives a function that tells whether SIGTERM has come; a second one ends the process at once.

    Outside the main thread, where Python handles no signals, it never tells so.
    """
    came = threading.Event()
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

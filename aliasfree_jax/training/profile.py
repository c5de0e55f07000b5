"""A profile of some steps of a run, to be opened with xprof or TensorBoard."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax


class StepProfile:
    """Traces the steps `first` to `last` of a run that starts after `start` and ends with `total`."""

    def __init__(self, steps: Sequence[int], start: int, total: int, directory: Path) -> None:
        """`steps`: (first, last), or empty for no profile; a run that goes on behind `first` takes none."""
        first, last = steps or (0, 0)
        self._first, self._last = (first, min(last, total)) if start < first <= total else (0, 0)
        self._directory = directory

    def before(self, step: int) -> None:
        """Called before each step."""
        if step == self._first:
            jax.profiler.start_trace(self._directory)

    def after(self, step: int, result: Any) -> str:
        """Called after each step with what it computes; says where the profile is once it is there."""
        if step != self._last:
            return ""
        jax.block_until_ready(result)
        jax.profiler.stop_trace()
        return f"profile of steps {self._first} to {self._last}: {self._directory}"

"""Collects the operations of one run in rows: one row per line of code and call of a module."""

import dataclasses
import math
from collections import defaultdict
from collections.abc import Callable

import numpy as np

from aliasfree_jax.evaluation.alignment import tolerance
from aliasfree_jax.evaluation.audit.layout import Seen
from aliasfree_jax.transform.lines import Place
from aliasfree_jax.transform.lockstep import Step

DECIDABLE = 0.1  # with larger tolerances, such as bfloat16's, no decision is possible
# Operations that get separate rows. Other operations on the same line share one row.
_OWN_ROW = ("conv_general_dilated", "dot_general", "reduce_window", "depthwise_shifted_sum")


@dataclasses.dataclass
class Row:
    """Consecutive operations of one line, in one call of one module.

    Attributes:
      path: Path of the module.
      where: File and line.
      own: The operation that names the row: a convolution, a product or a known function; "": none.
      alone: Whether the row contains one of `_OWN_ROW`.
      steps: Numbers and places of the operations.
      last: Number of the last operation that was compared; -1: none.
      seen: Its comparison.
    """

    path: str
    where: str
    own: str = ""
    alone: bool = False
    steps: dict[int, Place] = dataclasses.field(default_factory=dict)
    last: int = -1
    seen: Seen = dataclasses.field(default_factory=Seen)


class Run:
    """Receives the steps of a run. Compares the last step of each row, and if it is broken, every step.

    Attributes:
      rows: The rows in the order of execution.
      output: Comparison of the output maps; None if there are none.
    """

    def __init__(self, seen: Callable[[Step], Seen], closely: bool) -> None:
        self.rows: list[Row] = []
        self.output: Seen | None = None
        self._seen, self._closely = seen, closely
        self._pending: list[Step] = []
        self._sources: dict[int, tuple[int, ...]] = {}
        self._consumers: dict[int, list[int]] = defaultdict(list)
        self._errors: dict[int, float] = {-1: 0.0}  # -1: the images themselves
        self._limits: dict[int, float] = {-1: tolerance(np.float64)}
        self._stays: dict[int, bool] = {}
        self._breaks: set[int] = set()

    def __call__(self, step: Step) -> None:
        """Adds a step to its row."""
        place = step.place
        alone = place.primitive.startswith(_OWN_ROW)
        known = place.operation not in (place.primitive, "pad")  # padding belongs to the next operation
        own = place.operation if alone or known else ""
        row = self.rows[-1] if self.rows else Row("", "")
        another = row.own and own and (own != row.own or (alone and row.alone))
        if (row.path, row.where) != (place.within, place.where) or another:
            self.close()
            row = Row(place.within, place.where)
            self.rows.append(row)
        row.own, row.alone = row.own or own, row.alone or alone
        row.steps[step.number] = place
        self._pending.append(step)
        self._sources[step.number] = step.sources
        self._limits[step.number] = max(tolerance(result.precision) for result in step.results)
        for source in step.sources:
            self._consumers[source].append(step.number)

    def close(self) -> None:
        """Compares the steps of the last row and frees their arrays."""
        row = self.rows[-1] if self.rows else None
        for step in reversed(self._pending):
            assert row is not None
            found = self._seen(step)
            self._errors[step.number] = found.error
            if row.last == -1 or math.isnan(row.seen.error):
                row.last, row.seen = step.number, found
            if not (math.isnan(row.seen.error) or (self._closely and self.broken(row.last))):
                break
        self._pending = []

    def finish(self, results: set[int]) -> None:
        """Closes the last row and finds the steps that break.

        If one module contains all others, its name is removed from their paths.

        Args:
          results: Numbers of the steps that compute the program's results.
        """
        self.close()
        paths = {row.path.partition("/")[0] for row in self.rows if row.path}
        for row in self.rows if len(paths) == 1 else ():
            row.path = row.path.partition("/")[2]
        for number in sorted(self._sources, reverse=True):
            followed = number in results or any(self._stays[c] for c in self._consumers[number])
            self._stays[number] = followed and not self.exact(number)
        tainted = {-1: False}  # whether a step is broken, or is not compared and depends on a broken step
        for number in sorted(self._sources):
            before = any(tainted[source] for source in self._sources[number])
            tainted[number] = before if math.isnan(self.error(number)) else self.broken(number)
            if self.broken(number) and self._stays[number] and not before:
                self._breaks.add(number)

    def error(self, number: int) -> float:
        """Error of the result of a step; nan if it was not compared."""
        return self._errors.get(number, math.nan)

    def limit(self, number: int) -> float:
        """Largest error of an exact step: the rounding errors of the narrowest type so far."""
        return self._limits[number]

    def broken(self, number: int) -> bool:
        """Whether the result of a step is not equivariant; False if it was not compared."""
        return self.error(number) > self._limits[number]

    def exact(self, number: int) -> bool:
        """Whether the result of a step is equivariant; False if it was not compared or cannot be decided."""
        error, limit = self.error(number), self._limits[number]
        return error <= self._limits[-1] or error <= limit < DECIDABLE

    def stays(self, number: int) -> bool:
        """Whether the error of a step reaches a result of the program without becoming exact again."""
        return self._stays[number]

    def before(self, row: Row) -> float:
        """Largest error of the inputs of a row."""
        errors = [e for e in map(self.error, self._taken(row)) if not math.isnan(e)]
        return max(errors, default=math.nan)

    def _taken(self, row: Row) -> set[int]:
        return {source for number in row.steps for source in self._sources[number]} - set(row.steps)

    def guilty(self, row: Row) -> int | None:
        """The first step of a row that causes an error that stays; None if there is none."""
        return next((number for number in row.steps if number in self._breaks), None)

    def blamed(self, row: Row) -> Row | None:
        """The first row with a broken result that is an input of this row; None if there is none."""
        taken = self._taken(row)
        sources = (other for other in self.rows if not taken.isdisjoint(other.steps))
        return next((other for other in sources if self.guilty(other) is not None), None)

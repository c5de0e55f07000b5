"""Collects a protocol's stored results by row, and compares them with the theory."""

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from experiments.matrix import Row, Run
from experiments.measuring import GRIDS
from experiments.speed import step_ratio
from experiments.stored import Store, Stored

FRACTIONAL = tuple(
    (f"worst case over multiples of 1/{n} pixel", ("adversarial_fraction", "parts", f"1/{n}")) for n in GRIDS
) + (("worst case over real-valued shifts", ("adversarial_continuous",)),)
WORST = {
    "integer": (("worst case over all integer shifts", ("adversarial_integer",)),),
    "fractional": FRACTIONAL,
}
RANDOM = {"integer": "integer", "fractional": "half_pixel"}


@dataclass(frozen=True)
class Summary:
    """A row and its stored results, one per seed.

    Attributes:
      row: The row.
      results: The results.
      step_ratio: See `speed.step_ratio`.
    """

    row: Row
    results: Sequence[Stored]
    step_ratio: float | None = None

    def values(self, *keys: str) -> list[Any]:
        """The value at these keys of the results, for every seed."""
        found = []
        for stored in self.results:
            value: Any = stored
            for key in keys:
                value = value[key]
            found.append(value)
        return found


@dataclass(frozen=True)
class Table:
    """The state of a protocol: rows with results, missing runs, and stale runs with their differences."""

    summaries: Sequence[Summary]
    missing: Sequence[Run]
    stale: Sequence[tuple[Run, Sequence[str]]]

    @property
    def results(self) -> list[Stored]:
        """All valid results."""
        return [stored for summary in self.summaries for stored in summary.results]


def summarize(store: Store) -> Table:
    """Reads all results of a protocol."""
    summaries, missing, stale = [], list[Run](), list[tuple[Run, Sequence[str]]]()
    for row in store.protocol.rows:
        found = list[Stored]()
        for seed in store.protocol.seeds:
            run = Run(row, seed)
            stored = store.read(run)
            if stored is None:
                missing.append(run)
            elif faults := store.why_stale(run, stored):
                stale.append((run, faults))
            else:
                found.append(stored)
        if found:
            summaries.append(Summary(row, found, step_ratio(store, row)))
    return Table(summaries, missing, stale)


def mean(values: Sequence[float]) -> float:
    """The mean. It is 1 only if all values are 1."""
    average = statistics.fmean(values)
    return average if average < 1 or min(values) >= 1 else 1 - 1e-9


def exceptions(summary: Summary) -> Iterator[str]:
    """Every result that contradicts the invariance of the row's network."""
    for stored in summary.results:
        results = stored["results"]
        worst = results["worst"]
        for kind in summary.row.variant.promise:
            measured = results[RANDOM[kind]]
            changed = round((1 - measured["consistency"]) * measured["pairs"])
            if measured["consistency"] != 1:
                random = f"{measured['pairs']} random {RANDOM[kind].replace('_', '-')} shifts"
                largest = f"largest change of a logit {measured['logit_change']['max']:.1e}"
                yield f"{stored['run']}: {changed} of {random} change the class ({largest})"
            for name, keys in WORST[kind]:
                found: Any = worst
                for key in keys:
                    found = found[key]
                lost = round((worst["accuracy"] - found["worst_case_accuracy"]) * worst["images"])
                if found["worst_case_accuracy"] != worst["accuracy"]:
                    yield f"{stored['run']}: {name}: {lost} of {worst['images']} images lost"

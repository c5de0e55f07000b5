"""Times a training step of every network of a protocol, in turn with one of its first network.

python -m experiments.speed --protocol=accurate --data=CIFAR.tar.xz     a quarter of an hour of one core

Trainings took place in hours of different speed, so their durations cannot be compared. Here two networks
take turns, and only the ratio of their times is used. Each result is written to
experiments/results/speed/<protocol>/<network>.json. Existing results are skipped. The pages of
`python -m experiments --page` draw accuracy against these ratios.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from aliasfree_jax.startup import begin

if __name__ == "__main__":  # before imports of optional packages
    begin()

from absl import flags

from aliasfree_jax.commands import program, refuse
from aliasfree_jax.data import Source, open_source
from aliasfree_jax.evaluation.report import circumstances
from aliasfree_jax.training.mesh import put_batch
from aliasfree_jax.training.setup import set_up
from benchmarks.timing import in_turn, machine
from experiments.matrix import GATES, Row, Run
from experiments.protocols import PROTOCOLS, Protocol, configuration
from experiments.stored import Store, settings, write_missing
from experiments.worker import commit

SECONDS, ROUNDS = 15, 9  # of both networks together; at least this many steps of each


def network_of(protocol: Protocol, row: Row) -> dict[str, Any]:
    """The name and options of a row's network, and the size of its batches."""
    config = settings(protocol, Run(row, 0))["config"]
    return {**config["model"], "batch_size": config["train"]["batch_size"]}


def path_of(store: Store, row: Row) -> Path:
    """The file of a network's time. Rows that differ in their training images have the same."""
    name = replace(row, augmentation="step").name
    return store.results / "speed" / store.protocol.name / f"{name}.json"


def step_ratio(store: Store, row: Row) -> float | None:
    """The time of a row's step, relative to the protocol's first network. None if it was not measured."""
    path, protocol = path_of(store, row), store.protocol
    if not path.exists():
        return None
    stored = json.loads(path.read_text())
    valid = stored["network"] == network_of(protocol, row)
    valid &= stored["first"] == network_of(protocol, protocol.rows[0])
    return float(stored["ratio"]) if valid else None


def step_of(protocol: Protocol, row: Row, source: Source) -> Callable[[], Any]:
    """A function that trains the row's network with one batch, always with the same."""
    setup = set_up(configuration(protocol, Run(row, 0)), sources=(source, None))
    batches = setup.batches()
    batch = put_batch(next(batches), setup.mesh)
    batches.close()
    state = setup.states.build()

    def step() -> Any:
        nonlocal state
        state, metrics = setup.network.train_step(state, batch)  # donates the state
        return metrics

    return step


def perform_missing(store: Store, data: str) -> None:
    """Measures all networks of a protocol that have no results yet, except the candidate gates."""
    protocol, first = store.protocol, store.protocol.rows[0]
    source = open_source(configuration(protocol, Run(first, 0), data).data, train=True)
    step_of_first = cache(lambda: step_of(protocol, first, source))

    def measured(row: Row) -> dict[str, Any]:
        steps = {"first": step_of_first(), "network": step_of(protocol, row, source)}
        rounds = max(ROUNDS, round(1e3 * SECONDS / sum(in_turn(steps, 1).values())))
        times, about = in_turn(steps, rounds), machine()
        return {
            "network": network_of(protocol, row),
            "first": network_of(protocol, first),
            "milliseconds": times,
            "rounds": rounds,
            "ratio": times["network"] / times["first"],
            "code": commit(),
            **circumstances(),
            "command": f"python -m experiments.speed --protocol={protocol.name} --data={Path(data).name}",
            "processor": about["device"],
            "load": about["load"],
        }

    for row in protocol.rows:
        if row.family != GATES:
            write_missing(path_of(store, row), partial(measured, row))


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_enum("protocol", "accurate", list(PROTOCOLS), "networks and batches", flag_values=values)
    flags.DEFINE_string("data", None, "CIFAR-10: a folder, tar or zip", required=True, flag_values=values)


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    refuse(arguments)
    perform_missing(Store(PROTOCOLS[values.protocol]), values.data)


if __name__ == "__main__":
    sys.exit(program(define, main, __doc__)(sys.argv[1:]))

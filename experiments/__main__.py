"""Trains and measures the networks of a protocol, and writes pages and tables from the stored results.

python -m experiments --protocol=reduced --data=CIFAR.tar.xz --jobs=2   all missing runs
python -m experiments --protocol=full --data=CIFAR --only='resnet20-*' --seeds=0
python -m experiments --protocol=reduced --list                         all runs and their status
python -m experiments --page               pages in docs/results, pictures, and tables of other pages

A restarted command skips stored runs and resumes interrupted runs. To repeat a run, delete its file in
experiments/results. The data is CIFAR-10 as class folders, <split>/<class>/*.png, in a directory, tar or zip.
"""

import fnmatch
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from aliasfree_jax.errors import ConfigError, DataError
from aliasfree_jax.startup import begin

if __name__ == "__main__":  # before imports of optional packages
    begin()

from absl import flags

from aliasfree_jax.commands import program, refuse
from aliasfree_jax.files import local_path, sole_writer
from experiments.matrix import Run
from experiments.page import write_pages
from experiments.protocols import PROTOCOLS, Protocol
from experiments.runner import Failure, cores_of, pending, perform_all, worker
from experiments.stored import Store
from experiments.tables import write_tables


def chosen_runs(protocol: Protocol, pattern: str, seeds: str) -> list[Run]:
    """The runs that match a pattern and a list of seeds.

    Args:
      protocol: The protocol.
      pattern: A shell pattern for the name of a run, with or without its seed.
      seeds: Seeds such as "0,1". "" selects all.

    Raises:
      ConfigError: The protocol has no such seed, or no run matches.
    """
    known = ",".join(map(str, protocol.seeds))
    wanted = (seeds or known).split(",")
    if not set(wanted) <= set(known.split(",")):
        raise ConfigError(f"the protocol {protocol.name} has the seeds {known}, got --seeds={seeds}.")
    found = [
        run
        for run in protocol.runs()
        if str(run.seed) in wanted
        and (fnmatch.fnmatch(run.name, pattern) or fnmatch.fnmatch(run.row.name, pattern))
    ]
    if not found:
        raise ConfigError(f"no run matches --only={pattern}. --list shows all runs; * matches any text.")
    return found


def status(store: Store, run: Run) -> str:
    """One line about the stored result of a run."""
    stored = store.read(run)
    if stored is None:
        return f"missing  {run.name}"
    if faults := store.why_stale(run, stored):
        return f"stale    {run.name}: {'; '.join(faults[:3])}{'; ...' if len(faults) > 3 else ''}"
    commit, time = str(stored["code"]["commit"])[:10], stored["machine"]["time"]
    return f"done     {run.name}: accuracy {stored['results']['accuracy']:.2%}, {time}, code {commit}"


def report(failures: Sequence[Failure]) -> None:
    """Raises an error if runs failed."""
    if failures:
        told = "\n".join(f"  {f.run.name} (exit status {f.status}): {f.log}" for f in failures)
        raise DataError(f"{len(failures)} runs failed. See the end of their logs:\n{told}")


def perform_missing(store: Store, chosen: list[Run], jobs: int, data: Path | None) -> None:
    """Performs the chosen runs that have no results yet.

    Raises:
      ConfigError: There is no training data.
      OccupiedError: Another process performs runs of the protocol.
      DataError: Runs failed.
    """
    if not data or not data.exists():
        raise ConfigError(
            f"there is no data at {str(data or '')!r}. Pass --data=PATH: CIFAR-10 as class folders."
        )
    if jobs < 1:
        raise ConfigError(f"--jobs is the number of parallel runs, at least 1, got {jobs}.")
    todo = pending(store, chosen)
    for run in todo:
        if store.read(run) is not None:
            print(status(store, run))
    print(f"{len(chosen) - len(todo)} of {len(chosen)} runs are done, {len(todo)} to do", flush=True)
    start = worker(store, str(data.absolute()), len(cores_of(0, jobs)))
    store.path(chosen[0]).parent.mkdir(parents=True, exist_ok=True)
    with sole_writer(store.path(chosen[0]).parent):
        report(perform_all(store, todo, jobs, start))


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_enum(
        "protocol", "reduced", list(PROTOCOLS), "networks and length of training", flag_values=values
    )
    flags.DEFINE_string("data", None, "CIFAR-10: a folder, tar or zip", flag_values=values)
    flags.DEFINE_string("only", "*", "pattern for names of runs: 'resnet20-*-none'", flag_values=values)
    flags.DEFINE_string(
        "seeds", "", "for example 0,1; default: all seeds of the protocol", flag_values=values
    )
    flags.DEFINE_integer("jobs", 1, "parallel runs, which share the cores", flag_values=values)
    flags.DEFINE_bool("list", False, "print the status of every run and exit", flag_values=values)
    flags.DEFINE_bool("page", False, "write the pages from the stored results and exit", flag_values=values)


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    refuse(arguments)
    if values.page:
        print("\n".join(f"wrote {path}" for path in [*write_pages(), *write_tables()]))
        return
    store = Store(PROTOCOLS[values.protocol])
    chosen = chosen_runs(store.protocol, values.only, values.seeds)
    if values.list:
        print("\n".join(status(store, run) for run in chosen))
    else:
        perform_missing(store, chosen, values.jobs, values.data and local_path(values.data))


if __name__ == "__main__":
    # Like Ctrl-C: the processes that it started end with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(program(define, main, __doc__)(sys.argv[1:]))

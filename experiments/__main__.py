"""Trains and measures the networks of a protocol, and makes docs/experiments.md of what is stored.

python -m experiments --protocol=reduced --data=CIFAR.tar.xz --jobs=2   all that is missing
python -m experiments --protocol=full --data=CIFAR --only='resnet20-*' --seeds=0
python -m experiments --protocol=reduced --list                         all runs, and what is stored
python -m experiments --page               docs/experiments.md, its pictures and the README's tables

Started again, it skips what is stored and goes on with what was interrupted; delete a file in
experiments/results to make it again. The data is CIFAR-10 as class folders, <split>/<class>/*.png, in a
directory, tar or zip.
"""

import fnmatch
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from aliasfree_jax.errors import ConfigError, DataError
from aliasfree_jax.startup import begin

if __name__ == "__main__":  # before what may be missing is imported
    begin()

from absl import flags

from aliasfree_jax.commands import program, refuse
from aliasfree_jax.files import local_path, sole_writer
from experiments.matrix import Run
from experiments.page import write_page
from experiments.protocols import PROTOCOLS, Protocol
from experiments.tables import write_tables
from experiments.runner import Failure, cores_of, pending, perform_all, worker
from experiments.stored import Store


def chosen_runs(protocol: Protocol, pattern: str, seeds: str) -> list[Run]:
    """The runs whose name, with or without its seed, fits `pattern`, of the `seeds` "0,1" ("": all).

    Raises:
      ConfigError: no such seed, or no such run.
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
        raise ConfigError(f"no run fits --only={pattern}: --list shows all; * stands for anything.")
    return found


def status(store: Store, run: Run) -> str:
    """A line on what is stored for a run."""
    stored = store.read(run)
    if stored is None:
        return f"missing  {run.name}"
    if faults := store.why_stale(run, stored):
        return f"stale    {run.name}: {'; '.join(faults[:3])}{'; ...' if len(faults) > 3 else ''}"
    commit, time = str(stored["code"]["commit"])[:10], stored["machine"]["time"]
    return f"done     {run.name}: accuracy {stored['results']['accuracy']:.2%}, {time}, code {commit}"


def report(failures: Sequence[Failure]) -> None:
    """Raises what failed, if anything did."""
    if failures:
        told = "\n".join(f"  {f.run.name} (exit status {f.status}): {f.log}" for f in failures)
        raise DataError(f"{len(failures)} runs failed; the end of their logs says why:\n{told}")


def perform_missing(store: Store, chosen: list[Run], jobs: int, data: Path | None) -> None:
    """Performs the runs of the chosen ones that have no results yet.

    Raises:
      ConfigError: no data to train on.
      OccupiedError: another process performs runs of the protocol.
      DataError: runs failed.
    """
    if not data or not data.exists():
        raise ConfigError(
            f"there is no data at {str(data or '')!r}: pass --data=PATH, CIFAR-10 as class folders."
        )
    if jobs < 1:
        raise ConfigError(f"--jobs is a number of runs at once, at least 1, got {jobs}.")
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
    """The command's flags."""
    flags.DEFINE_enum("protocol", "reduced", list(PROTOCOLS), "what is trained, how long", flag_values=values)
    flags.DEFINE_string("data", None, "CIFAR-10: a folder, tar or zip", flag_values=values)
    flags.DEFINE_string("only", "*", "names of runs: 'resnet20-*-none'", flag_values=values)
    flags.DEFINE_string("seeds", "", "e.g. 0,1; default: all of the protocol", flag_values=values)
    flags.DEFINE_integer("jobs", 1, "runs at once, which share the cores", flag_values=values)
    flags.DEFINE_bool("list", False, "tell of every run what is stored, and end", flag_values=values)
    flags.DEFINE_bool("page", False, "make the page from what is stored, and end", flag_values=values)


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    refuse(arguments)
    if values.page:
        print("\n".join(f"wrote {path}" for path in [*write_page(), *write_tables()]))
        return
    store = Store(PROTOCOLS[values.protocol])
    chosen = chosen_runs(store.protocol, values.only, values.seeds)
    if values.list:
        print("\n".join(status(store, run) for run in chosen))
    else:
        perform_missing(store, chosen, values.jobs, values.data and local_path(values.data))


if __name__ == "__main__":
    # As Ctrl-C: processes that it started are ended with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(program(define, main, __doc__)(sys.argv[1:]))

"""Trains and measures the networks of a protocol, and makes docs/experiments.md of what is stored.

python -m experiments --protocol=reduced --data=CIFAR.tar.xz --jobs=2   all that is missing
python -m experiments --protocol=full --data=CIFAR --only='resnet20-*' --seeds=0
python -m experiments --protocol=reduced --list                         all runs, and what is stored
python -m experiments --page               docs/experiments.md, its pictures and the README's tables

Started again, it skips what is stored and goes on with what was interrupted; delete a file in
experiments/results to make it again. The data is CIFAR-10 as class folders, <split>/<class>/*.png, in a
directory, tar or zip.
"""

import argparse
import fnmatch
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from aliasfree_jax.errors import ConfigError, DataError, command, excepthook

if __name__ == "__main__":  # before what may be missing is imported
    sys.excepthook = excepthook

from aliasfree_jax.files import local_path, sole_writer
from experiments.matrix import Run
from experiments.page import write_page
from experiments.protocols import PROTOCOLS, Protocol
from experiments.readme import write_readme
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


@command
def main(arguments: list[str]) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--protocol", choices=PROTOCOLS, default="reduced")
    parser.add_argument("--data", type=local_path, help="CIFAR-10: a folder, tar or zip")
    parser.add_argument("--only", default="*", metavar="PATTERN", help="names of runs: 'resnet20-*-none'")
    parser.add_argument("--seeds", default="", help="e.g. 0,1; default: all of the protocol")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once, which share the cores")
    parser.add_argument("--list", action="store_true", help="tell of every run what is stored, and end")
    parser.add_argument("--page", action="store_true", help="make the page from what is stored, and end")
    options = parser.parse_args(arguments)
    if options.page:
        print("\n".join(f"wrote {path}" for path in [*write_page(), write_readme()]))
        return
    store = Store(PROTOCOLS[options.protocol])
    chosen = chosen_runs(store.protocol, options.only, options.seeds)
    if options.list:
        print("\n".join(status(store, run) for run in chosen))
    else:
        perform_missing(store, chosen, options.jobs, options.data)


if __name__ == "__main__":
    # As Ctrl-C: processes that it started are ended with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main(sys.argv[1:]))

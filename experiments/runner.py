"""Runs what is missing, each run in a process of its own on cores of its own.

What is stored is skipped, what was interrupted goes on, what fails is told at the end.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from experiments.matrix import Run
from experiments.stored import ROOT, Store

POLL = 0.5  # seconds between looks at the running processes
LOG = "log.txt"  # in a run's directory: all that its processes printed

# (run, file to print to) -> the process that trains and measures it
Start = Callable[[Run, Path], subprocess.Popen[bytes]]


@dataclass(frozen=True)
class Failure:
    """A run whose process failed."""

    run: Run
    status: int
    log: Path


def cores_of(job: int, jobs: int) -> set[int]:
    """The cores of the `job`-th of `jobs` that run at once; all of them where they cannot be chosen."""
    if not hasattr(os, "sched_getaffinity"):
        return set()
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // jobs)
    return {cores[(job * share + i) % len(cores)] for i in range(share)}


def worker(store: Store, data: str, cores: int) -> Start:
    """Starts `experiments.worker`; processes with equally many cores share compiled programs."""
    environment = {
        **os.environ,
        # Programs are compiled for a number of cores.
        "JAX_COMPILATION_CACHE_DIR": str(store.trainings / f"compiled-for-{cores}-cores"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]),
    }

    def start(run: Run, log: Path) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "experiments.worker", f"--protocol={store.protocol.name}"]
        with log.open("ab") as output:
            return subprocess.Popen(
                [*command, f"--run={run.name}", f"--data={data}"],
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    return start


def pending(store: Store, chosen: Sequence[Run]) -> list[Run]:
    """The runs without results of their settings."""
    return [run for run in chosen if store.done(run) is None]


def perform_all(store: Store, chosen: Sequence[Run], jobs: int, start: Start) -> list[Failure]:
    """Performs the runs in their order, `jobs` at once; returns those that failed.

    Whatever ends it, its processes are asked to end too; trainings then save where they are.
    """
    waiting, failures = list(chosen), list[Failure]()
    running: dict[int, tuple[Run, subprocess.Popen[bytes]]] = {}  # by job
    # A terminal redraws one line; in a log file every refresh is a new line, so make them rare.
    interval = 1.0 if sys.stderr.isatty() else 30.0
    bar = tqdm(
        total=len(waiting),
        desc=store.protocol.name,
        unit="run",
        mininterval=interval,
        miniters=0,
        smoothing=0,
    )
    try:
        with bar:
            while waiting or running:
                for job in range(jobs):
                    if job not in running and waiting:
                        run = waiting.pop(0)
                        running[job] = run, _started(store, run, start, cores_of(job, jobs))
                for job, (run, process) in list(running.items()):
                    if process.poll() is None:
                        continue
                    del running[job]
                    if process.returncode or store.done(run) is None:
                        failures.append(Failure(run, process.returncode, store.workdir(run) / LOG))
                    bar.update()
                names = ", ".join(run.name for run, _ in running.values())
                told = f"{len(failures)} failed, now {names}" if failures else f"now {names}"
                bar.set_postfix_str(told, refresh=False)
                bar.update(0)
                if running:
                    time.sleep(POLL)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.wait()
    return failures


def _started(store: Store, run: Run, start: Start, cores: set[int]) -> subprocess.Popen[bytes]:
    workdir = store.workdir(run)
    workdir.mkdir(parents=True, exist_ok=True)
    process = start(run, workdir / LOG)
    if cores:
        try:
            os.sched_setaffinity(process.pid, cores)  # before it makes threads
        except ProcessLookupError:  # it has ended already
            pass
    return process

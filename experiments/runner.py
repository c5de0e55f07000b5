"""Performs missing runs, each in a separate process with its own cores.

Stored runs are skipped, interrupted runs are resumed, and failures are reported at the end.
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

POLL = 0.5  # seconds between checks of the running processes
LOG = "log.txt"  # in a run's directory: the output of its processes

# (run, log file) -> the process that trains and measures the run
Start = Callable[[Run, Path], subprocess.Popen[bytes]]


@dataclass(frozen=True)
class Failure:
    """A run whose process failed."""

    run: Run
    status: int
    log: Path


def cores_of(job: int, jobs: int) -> set[int]:
    """The cores of job number `job` of `jobs` parallel jobs. Empty if cores cannot be chosen here."""
    if not hasattr(os, "sched_getaffinity"):
        return set()
    cores = sorted(os.sched_getaffinity(0))
    share = max(1, len(cores) // jobs)
    return {cores[(job * share + i) % len(cores)] for i in range(share)}


def worker(store: Store, data: str, cores: int) -> Start:
    """A function that starts `experiments.worker`. Workers with equal core counts share compiled programs."""
    environment = {
        **os.environ,
        # Compiled programs depend on the number of cores.
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
    """The runs without valid results."""
    return [run for run in chosen if store.done(run) is None]


def perform_all(store: Store, chosen: Sequence[Run], jobs: int, start: Start) -> list[Failure]:
    """Performs the runs in order, `jobs` in parallel, and returns those that failed.

    When it ends for any reason, it terminates its processes. Trainings then save a checkpoint.
    """
    waiting, failures = list(chosen), list[Failure]()
    running: dict[int, tuple[Run, subprocess.Popen[bytes]]] = {}  # by job
    # A terminal redraws one line. In a log file every refresh adds a line, so refreshes are rare.
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
            os.sched_setaffinity(process.pid, cores)  # before it starts threads
        except ProcessLookupError:  # it has already ended
            pass
    return process

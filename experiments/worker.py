"""Trains and measures one run in a separate process. `experiments.runner` starts it.

python -m experiments.worker --protocol=reduced --run=resnet18-aps3-none-seed0 --data=CIFAR.tar.xz
"""

import math
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from statistics import fmean
from typing import Any

from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.startup import begin

if __name__ == "__main__":  # before imports of optional packages
    begin()

import jax
from absl import flags, logging
from ml_collections import ConfigDict

from aliasfree_jax.commands import program, refuse
from aliasfree_jax.evaluation.evaluator import evaluate
from aliasfree_jax.evaluation.report import circumstances
from aliasfree_jax.files import write_whole
from aliasfree_jax.training.loop import run as train
from aliasfree_jax.training.progress import read_events
from aliasfree_jax.training.setup import TEST
from benchmarks.timing import machine
from experiments.matrix import Run
from experiments.measuring import measure, parameter_count
from experiments.protocols import PROTOCOLS, Protocol, configuration
from experiments.stored import ROOT, Store, Stored, settings


def commit() -> dict[str, Any]:
    """The git commit, and whether the code has uncommitted changes. Results and pages do not count."""

    def git(*arguments: str) -> str:
        process = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True)
        return process.stdout.strip()

    code = ("aliasfree_jax", "configs", "experiments", ":!experiments/results")
    changed = git("status", "--porcelain", "--", *code)
    return {"commit": git("rev-parse", "HEAD") or None, "dirty": bool(changed)}


def curve(events: list[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Training loss, training accuracy and test accuracy: means of the logged values of each epoch."""
    found: dict[str, dict[int, list[dict[str, Any]]]] = {"train": defaultdict(list), TEST: defaultdict(list)}
    for event in events:
        found[event["split"]][math.ceil(event["epoch"])].append(event)
    curves = {}
    for split, key, names in (("train", "train", ("loss", "accuracy")), (TEST, "eval", ("accuracy",))):
        epochs = sorted(found[split].items())
        curves[key] = {"epoch": [float(epoch) for epoch, _ in epochs]}
        for name in names:
            curves[key][name] = [fmean(event[name] for event in of_epoch) for _, of_epoch in epochs]
    return curves


def training_seconds(events: list[dict[str, Any]], batch: int) -> float:
    """The time of all updates, computed from the throughput, without interruptions and compilation."""
    seconds, last = 0.0, 0
    for event in events:
        if event["split"] == "train":
            if "images_per_second" in event:
                seconds += (event["step"] - last) * batch / event["images_per_second"]
            last = event["step"]
    return seconds


def again(protocol: Protocol, run: Run, data: str) -> str:
    """The command that repeats one run."""
    return (
        f"python -m experiments --protocol={protocol.name} --data={Path(data).name} "
        f"--only={run.row.name} --seeds={run.seed}"
    )


def readers() -> int:
    """Processes that read images. On a GPU, one thread would be slower than the training."""
    return 0 if jax.default_backend() == "cpu" else 2


def began_on(workdir: Path) -> str:
    """The processor or accelerator on which a run began. It is noted in the run's directory."""
    noted = workdir / "processor.txt"
    if not noted.exists():
        workdir.mkdir(parents=True, exist_ok=True)
        write_whole(noted, machine()["device"])
    return noted.read_text()


def perform(store: Store, run: Run, data: str) -> Stored:
    """Trains or resumes a run, measures it, and returns the result to store."""
    protocol = store.protocol
    config: ConfigDict = configuration(protocol, run, data)
    workdir = store.workdir(run)
    code, trained_on = commit(), began_on(workdir)
    origin = f"experiments, {protocol.name}: {run.name}"
    config.data.workers = readers()
    # The path of the data may change: it is not a setting.
    summary = train(config, workdir, evaluate=evaluate, origin=origin, accept_changes=("data.path",))
    events = read_events(workdir)
    began = time.perf_counter()
    results = measure(summary.module, summary.variables, config, protocol.measuring)
    evaluation = time.perf_counter() - began
    where, about = circumstances(), machine()
    del where["command"]  # that of this worker; the stored command is the one that users type
    used = settings(protocol, run)
    used["config"]["data"]["path"] = Path(data).name  # without directories of this machine
    return {
        "protocol": protocol.name,
        "run": run.name,
        "network": {"family": run.row.family, "variant": run.row.variant.name, "model": config.model.name},
        "augmentation": run.row.augmentation,
        "seed": run.seed,
        "code": code,
        "command": again(protocol, run, data),
        "trained_on": trained_on,
        "machine": {**where, "processor": about["device"], "load": about["load"]},
        "parameters": parameter_count(summary.variables),
        "seconds": {
            "training": training_seconds(events, config.train.batch_size),
            "evaluation": evaluation,
        },
        "results": results,
        "curve": curve(events),
        "settings": used,
    }


def find(protocol: Protocol, name: str) -> Run:
    """The run with this name.

    Raises:
      ConfigError: There is no such run.
    """
    known = {run.name: run for run in protocol.runs()}
    if name not in known:
        raise ConfigError(unknown("run", name, known))
    return known[name]


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_enum(
        "protocol", None, list(PROTOCOLS), "protocol of the run", required=True, flag_values=values
    )
    flags.DEFINE_string("run", None, "name of the run, with the seed", required=True, flag_values=values)
    flags.DEFINE_string("data", None, "CIFAR-10: a folder, tar or zip", required=True, flag_values=values)


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    refuse(arguments)
    logging.set_verbosity(logging.WARNING)  # Orbax logs a lot at level INFO
    store = Store(PROTOCOLS[values.protocol])
    run = find(store.protocol, values.run)
    print(f"wrote {store.write(run, perform(store, run, values.data))}")


if __name__ == "__main__":
    sys.exit(program(define, main, __doc__)(sys.argv[1:]))

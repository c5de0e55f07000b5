"""Trains U-Nets with different samplers for segmentation and denoising, and measures the effect of shifts.

python -m experiments.dense --task=segmentation                       two seeds of each; no download
python -m experiments.dense --task=denoising --data=CIFAR.tar.xz
python -m experiments.dense --task=segmentation --only=lps --seeds=1  one of them

Each run calls train.py with the recipe's configuration, then eval.py. Its results are written to
experiments/results/dense/<task>-<variant>-<seed>.json. Existing results are skipped. Several commands may run
in parallel. `python -m experiments --page` writes the tables of docs/dense.md from these files.
"""

import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from aliasfree_jax.startup import begin

if __name__ == "__main__":  # before imports of optional packages
    begin()

from absl import flags

from aliasfree_jax.commands import program, refuse
from aliasfree_jax.errors import DataError
from aliasfree_jax.evaluation.report import Rows
from aliasfree_jax.evaluation.report.columns import percent
from benchmarks.timing import machine
from experiments.stored import ROOT, write_missing

RESULTS = ROOT / "experiments" / "results" / "dense"
TRAININGS = ROOT / "runs" / "dense"
NAMES = {
    "circular": "plain, circular padding",
    "blur": "BlurPool",
    "aps": "APS",
    "lps": "LPS (LPD with LPU)",
    "afc": "alias-free",
}


@dataclass(frozen=True)
class Task:
    """A task, and the networks that are trained for it with one recipe.

    Attributes:
      config: The configuration file. The variant follows after a colon.
      variants: The variants of the network.
      seeds: The seeds of each variant.
      overrides: Overrides of configuration fields, for training and evaluation.
      measured: Flags of eval.py.
      columns: Columns of the table: heading, and the keys of the result, which is a share or a value in dB.
    """

    config: str
    variants: tuple[str, ...]
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]
    measured: tuple[str, ...]
    columns: tuple[tuple[str, tuple[str, ...]], ...]


TASKS: Mapping[str, Task] = {
    "segmentation": Task(
        config="configs/segment_digits.py",
        variants=("circular", "blur", "lps", "afc"),
        seeds=(0, 1),
        overrides=(),
        measured=(
            *("--fractional_shifts", "--presets=lps_massc", "--paper"),
            *("--adversarial=integer", "--config.eval.worst_case_radius=2"),
        ),
        columns=(
            ("mean IoU, %", ("mean_iou",)),
            ("mASSC circular, %", ("published", "lps_massc", "circular")),
            ("mASSC linear, %", ("published", "lps_massc", "linear")),
            ("same class, fractional shifts, %", ("fractional", "consistency")),
            ("lowest over all shifts up to 2 pixels, %", ("adversarial_integer", "worst_consistency")),
        ),
    ),
    "denoising": Task(
        config="configs/unet_denoise.py",
        variants=("circular", "aps", "afc"),
        seeds=(0,),
        overrides=(
            *("--config.data.train_limit=10000", "--config.data.eval_limit=1000"),
            "--config.train.total_epochs=3",
        ),
        measured=("--integer_shifts", "--fractional_shifts"),
        columns=(
            ("PSNR, dB", ("psnr",)),
            ("equivariance error, integer shifts, dB", ("integer", "equivariance_db")),
            ("... fractional, dB", ("fractional", "equivariance_db")),
        ),
    ),
}


def path_of(task: str, variant: str, seed: int) -> Path:
    """The file of a run's results."""
    return RESULTS / f"{task}-{variant}-{seed}.json"


def perform(task: str, variant: str, seed: int, data: str) -> dict[str, Any]:
    """Runs train.py and eval.py, and returns the contents of eval.json.

    Raises:
      DataError: One of the programs failed.
    """
    how = TASKS[task]
    workdir = TRAININGS / path_of(task, variant, seed).stem
    common = [f"--workdir={workdir}", *how.overrides, *([f"--config.data.path={data}"] if data else [])]
    began = time.perf_counter()
    config = [f"--config={how.config}:{variant}", f"--config.seed={seed}"]
    seconds = 0.0
    for command in (["train.py", *config, *common], ["eval.py", *common, *how.measured]):
        status = subprocess.run([sys.executable, *command], cwd=ROOT).returncode
        if status:
            raise DataError(f"python {' '.join(command)} failed with status {status}.")
        seconds = seconds or time.perf_counter() - began
    results: dict[str, Any] = json.loads((workdir / "eval.json").read_text())
    # The path of the data is not a setting.
    results["data"]["path"], results["checkpoint"] = "", workdir.name
    made_by = f"python -m experiments.dense --task={task} --only={variant} --seeds={seed}"
    return results | {"command": made_by, "train_seconds": seconds, "processor": machine()}


def _found(results: Any, keys: Sequence[str]) -> float:
    for key in keys:
        results = results[key]
    return float(results)


def table(task: str) -> Rows:
    """The stored results of a task as a table of means over seeds. Variants without results are left out.

    Raises:
      DataError: There are no results.
    """
    how = TASKS[task]
    rows: Rows = [["sampling", *(heading for heading, _ in how.columns)]]
    for variant in how.variants:
        paths = [path for seed in how.seeds if (path := path_of(task, variant, seed)).exists()]
        runs = [json.loads(path.read_text()) for path in paths]
        if not runs:
            continue
        cells = []
        for heading, keys in how.columns:
            mean = fmean(_found(run, keys) for run in runs)
            # The papers' metrics are in percent.
            share = mean / 100 if keys[0] == "published" else mean
            cells.append(percent(share).rstrip("%") if heading.endswith("%") else f"{mean:.1f}")
        rows.append([NAMES[variant], *cells])
    if not rows[1:]:
        raise DataError(f"{RESULTS} has no results of {task}. Run python -m experiments.dense.")
    return rows


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_enum("task", None, list(TASKS), "task to train for", required=True, flag_values=values)
    flags.DEFINE_string("data", "", "images to denoise: a folder, tar or zip", flag_values=values)
    flags.DEFINE_list("only", [], "variants; default: all", flag_values=values)
    flags.DEFINE_list("seeds", [], "seeds; default: all", flag_values=values)


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    refuse(arguments)
    how = TASKS[values.task]
    for seed in map(int, values.seeds or how.seeds):
        for variant in values.only or how.variants:
            todo = partial(perform, values.task, variant, seed, values.data)
            write_missing(path_of(values.task, variant, seed), todo)


if __name__ == "__main__":
    sys.exit(program(define, main, __doc__)(sys.argv[1:]))

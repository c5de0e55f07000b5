"""Makes the trained plain ResNet-20 shift-invariant and fine-tunes it for a tenth of its training.

python -m experiments.tuning --data=CIFAR.tar.xz                a quarter of an hour of two cores
python -m experiments.tuning --data=CIFAR.tar.xz --way=ideal    one way

The network is `load_pretrained("resnet20_cifar")`, from the protocol `accurate`. Fine-tuning has that
protocol's recipe with a tenth of its epochs and learning rate. The results are written to
experiments/results/tuning/<way>.json. Existing results are skipped. `python -m experiments --page`
writes the table of README.md from them.
"""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from aliasfree_jax.startup import begin

if __name__ == "__main__":  # before imports of optional packages
    begin()

import jax
from absl import flags, logging
from ml_collections import ConfigDict

from aliasfree_jax import load_pretrained, shift_invariant
from aliasfree_jax.commands import program, refuse
from aliasfree_jax.data import eval_batches, open_source
from aliasfree_jax.errors import DataError
from aliasfree_jax.evaluation.evaluator import Results, evaluate
from aliasfree_jax.evaluation.report import Rows, circumstances
from aliasfree_jax.evaluation.report.columns import percent
from aliasfree_jax.training.adopting import Pretrained
from aliasfree_jax.training.loop import run as train
from aliasfree_jax.training.progress import read_events
from benchmarks.timing import machine
from experiments.measuring import random_shifts
from experiments.protocols import ACCURATE, configuration
from experiments.stored import ROOT, Store, write_missing
from experiments.worker import commit, training_seconds

RESULTS = ROOT / "experiments" / "results" / "tuning"
TRAININGS = ROOT / "runs" / "tuning"
WEIGHTS = "resnet20_cifar"
SHARE = 0.1  # of the epochs and of the learning rate
# The options of `shift_invariant`, and the row of the protocol `accurate` that is the same network.
WAYS: Mapping[str, tuple[dict[str, Any], str]] = {
    "polyphase": (
        {"sampler": {"name": "polyphase", "inner": {"name": "blur", "kernel_size": 3}}},
        "resnet20-aps3-crops",
    ),
    "ideal": ({"sampler": "ideal"}, ""),
}


def config_of(way: str, data: str) -> ConfigDict:
    """The configuration of the fine-tuning."""
    plain = next(run for run in ACCURATE.runs() if run.row.variant.key == "plain")
    config = configuration(ACCURATE, plain, data)
    config.init_from = WEIGHTS
    config.model.shift_invariant.update(WAYS[way][0])
    config.train.total_epochs *= SHARE
    config.optimizer.learning_rate *= SHARE
    config.optimizer.warmup_epochs *= SHARE
    return config


def measured(predict: Callable[[Any], Any], config: ConfigDict) -> Results:
    """Accuracy on all test images, and consistency under one random shift of each kind per image."""
    how = replace(ACCURATE.measuring, draws=1)
    integer, half_pixel, _ = random_shifts(config.data.image_size, how)
    source = open_source(config.data, train=False)
    batches = eval_batches(source, config.data, batch_size=config.eval.batch_size)
    return evaluate(predict, batches, [integer, half_pixel])


def perform(way: str, data: str) -> dict[str, Any]:
    """Measures the transformed network, fine-tunes it, and measures it again."""
    config, workdir, code = config_of(way, data), TRAININGS / way, commit()
    card, network, variables = load_pretrained(WEIGHTS)
    transformed = jax.jit(shift_invariant(network.apply, argnums=1, **WAYS[way][0]))
    before = measured(partial(transformed, variables), config)
    start = Pretrained(card, variables)
    summary = train(config, workdir, pretrained=start, accept_changes=("data.path",))
    tuned = partial(jax.jit(summary.module.apply), summary.variables)
    about = machine()
    return {
        "options": WAYS[way][0],
        "transformed": before,
        "tuned": measured(tuned, config),
        "seconds": training_seconds(read_events(workdir), config.train.batch_size),
        "code": code,
        **circumstances() | {"command": f"python -m experiments.tuning --data={Path(data).name} --way={way}"},
        **{"processor": about["device"], "load": about["load"]},
    }


def path_of(way: str) -> Path:
    """The file of a result."""
    return RESULTS / f"{way}.json"


def _row(name: str, epochs: str, found: Mapping[str, Any]) -> list[str]:
    shares = found["accuracy"], found["integer"]["consistency"], found["half_pixel"]["consistency"]
    return [name, epochs, *(percent(share).rstrip("%") for share in shares)]


def table() -> Rows:
    """The trained network, the transformed ones, the fine-tuned ones, and those trained from scratch.

    Raises:
      DataError: There are no results.
    """
    epochs = configuration(ACCURATE, ACCURATE.runs()[0]).train.total_epochs
    store = Store(ACCURATE)
    scratch = {run.row.name: store.done(run) for run in ACCURATE.runs()}
    plain = scratch["resnet20-plain-crops"]
    found = {way: json.loads(path_of(way).read_text()) for way in WAYS if path_of(way).exists()}
    if plain is None or not found:
        raise DataError(f"{RESULTS} or the protocol accurate has no results. Run python -m {__name__}.")
    rows = [_row("ResNet-20 as trained", f"{epochs:g}", plain["results"])]
    for way, results in found.items():
        rows.append(_row(f"transformed, {way}", "0", results["transformed"]))
        rows.append(_row(f"transformed, {way}, fine-tuned", f"+ {epochs * SHARE:g}", results["tuned"]))
        if same := scratch.get(WAYS[way][1]):
            rows.append(_row(f"{way} from scratch", f"{epochs:g}", same["results"]))
    heading = ["network", "epochs", "accuracy, %", "consistency, %: integer shifts", "half-pixel"]
    return [heading, *rows]


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string("data", None, "CIFAR-10: a folder, tar or zip", required=True, flag_values=values)
    flags.DEFINE_multi_enum("way", list(WAYS), list(WAYS), "how to transform it", flag_values=values)


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    refuse(arguments)
    logging.set_verbosity(logging.WARNING)  # Orbax logs a lot at level INFO
    for way in values.way:
        write_missing(path_of(way), partial(perform, way, values.data))


if __name__ == "__main__":
    sys.exit(program(define, main, __doc__)(sys.argv[1:]))

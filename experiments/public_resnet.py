"""Measures public ResNets for CIFAR-10, before and after `shift_invariant`, without any training.

python -m experiments.public_resnet --weights=resnet20-12fca82f.th --data=CIFAR.tar.xz
python -m experiments.public_resnet --weights=resnet56-4bfd9763.th --data=CIFAR.tar.xz --images=2000 ...

The weights are those of github.com/akamaster/pytorch_resnet_cifar10. The data is CIFAR-10 as for
`python -m experiments`. The results are written to experiments/results/public_resnet.json, one entry per
network. `python -m experiments --page` writes the tables of docs from them.
"""

import functools
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aliasfree_jax.startup import begin

if __name__ == "__main__":  # before imports of optional packages
    begin()

import jax
import numpy as np
from absl import flags
from ml_collections import ConfigDict

from aliasfree_jax import load_pretrained, shift_invariant
from aliasfree_jax.commands import program, refuse
from aliasfree_jax.config import base_config
from aliasfree_jax.data import Source, eval_batches, limit, open_source
from aliasfree_jax.data.sources import Subset
from aliasfree_jax.errors import DataError
from aliasfree_jax.evaluation.adversarial import adversarial_integer
from aliasfree_jax.evaluation.evaluator import Measurement, evaluate
from aliasfree_jax.evaluation.report import Rows, circumstances
from aliasfree_jax.evaluation.report.columns import percent
from aliasfree_jax.evaluation.shift_sets import Grid, random_fraction, random_integer
from aliasfree_jax.files import local_path, write_json
from benchmarks.timing import machine
from experiments.stored import ROOT, rounded

RESULTS = ROOT / "experiments" / "results" / "public_resnet.json"
SIDE, BATCH = 32, 500
# The options of `shift_invariant`. None: the network is not transformed.
WAYS: Mapping[str, dict[str, Any] | None] = {
    "as trained": None,
    "circular padding": {"sampler": "subsample"},
    "BlurPool-3": {"sampler": {"name": "blur", "kernel_size": 3}},
    "polyphase": {"sampler": "polyphase"},
    "ideal": {"sampler": "ideal"},
    "ideal, polynomials": {"sampler": "ideal", "activations": "polynomial"},
}
# The rolls (rows, columns) for which predictions were compared with PyTorch's, and the number of images.
ROLLS, ROLLED = ((1, 0), (0, 1), (3, 5), (-2, 7)), 2000


def measurements(draws: int) -> list[Measurement]:
    """Random circular shifts of every image by whole and by half pixels. They are equal for all ways."""
    whole, half = jax.random.split(jax.random.key(0))
    return [
        Measurement("integer", random_integer(draws, SIDE - 1, whole)),
        Measurement("half_pixel", random_fraction(draws, SIDE - 1, 2, half)),
    ]


def against_pytorch(predict: Callable[[Any], Any], source: Source, data: ConfigDict) -> dict[str, Any]:
    """Accuracy on all images, and the share of unchanged predictions after each of `ROLLS`."""
    chosen = Subset(source, np.sort(np.random.default_rng(0).permutation(len(source))[:ROLLED]))
    rolls = [Measurement(str(roll), Grid(np.array([roll]))) for roll in ROLLS]
    rolled = evaluate(predict, eval_batches(chosen, data, batch_size=BATCH), rolls)
    return {
        **evaluate(predict, eval_batches(source, data, batch_size=BATCH)),
        "rolls": {roll.name: rolled[roll.name]["consistency"] for roll in rolls},
    }


def measure(values: flags.FlagValues) -> dict[str, Any]:
    """The network's results: those to compare with PyTorch's, and those of every way."""
    card, network, variables = load_pretrained(values.weights)
    data = base_config().data
    data.update(card.preparation())
    data.source, data.path = "folder", values.data
    every = open_source(data, train=False)
    source = limit(every, values.images)
    searched = limit(source, values.worst_images)
    plain = functools.partial(jax.jit(network.apply), variables)
    found: dict[str, Any] = {
        "model": card.model,
        "all images": against_pytorch(plain, every, data),
        "ways": {},
    }
    print(json.dumps(found["all images"]), flush=True)
    for name in values.way:
        options = WAYS[name]
        function = network.apply if options is None else shift_invariant(network.apply, argnums=1, **options)
        predict = functools.partial(jax.jit(function), variables)
        began = time.perf_counter()
        found["ways"][name] = {
            "options": options,
            **evaluate(predict, eval_batches(source, data, batch_size=BATCH), measurements(values.draws)),
            "worst": evaluate(
                predict,
                eval_batches(searched, data, batch_size=BATCH),
                [adversarial_integer(SIDE, SIDE // 2)],
            ),
            "seconds": time.perf_counter() - began,
        }
        print(" | ".join(row(name, found["ways"][name])), flush=True)
    return found


def row(name: str, found: Mapping[str, Any]) -> list[str]:
    """One row of `table`: the name of a way and its results in percent."""
    shares = (
        *(found["accuracy"], found["integer"]["consistency"], found["half_pixel"]["consistency"]),
        *(found["worst"]["accuracy"], found["worst"]["adversarial_integer"]["worst_case_accuracy"]),
    )
    return [name, *(percent(share).rstrip("%") for share in shares)]


def stored() -> dict[str, Any]:
    """The stored results by network. Empty if there is no file."""
    return dict(json.loads(RESULTS.read_text())) if RESULTS.exists() else {}


def table(network: str) -> Rows:
    """The table of stored results of a network, such as "ResNet-20".

    Raises:
      DataError: There are no results.
    """
    try:
        found = stored()[network]["ways"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{RESULTS} has no results ({error!r}). Run python -m {__name__}.") from error
    heading = [
        *(network, "accuracy, %", "same class under integer shifts, %", "half-pixel"),
        *("accuracy of 100 images, %", "under their worst integer shifts, %"),
    ]
    return [heading, *(row(name, of_way) for name, of_way in found.items())]


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "weights", None, "for example resnet20-12fca82f.th", required=True, flag_values=values
    )
    flags.DEFINE_string("data", None, "CIFAR-10: a folder, tar or zip", required=True, flag_values=values)
    flags.DEFINE_multi_enum("way", list(WAYS), list(WAYS), "how to transform it", flag_values=values)
    flags.DEFINE_integer("images", 0, "test images, evenly spread; 0: all", 0, flag_values=values)
    flags.DEFINE_integer("draws", 1, "random shifts per image, of each kind", 1, flag_values=values)
    flags.DEFINE_integer("worst_images", 100, "images tried under every shift", 1, flag_values=values)
    flags.DEFINE_string("output", str(RESULTS), "file to write", flag_values=values)


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    refuse(arguments)
    found = measure(values)
    about, where = machine(), circumstances()
    sizes = " ".join(f"--{name}={values[name].value}" for name in ("images", "draws", "worst_images"))
    files = f"--weights={Path(values.weights).name} --data={Path(values.data).name}"
    ways = "".join(f" --way='{way}'" for way in values.way) if values["way"].present else ""
    described = {
        **where | {"command": f"python -m experiments.public_resnet {files} {sizes}{ways}"},
        **{"processor": about["device"], "load": about["load"]},
    }
    output = local_path(values.output)
    others = json.loads(output.read_text()) if output.exists() else {}
    name = found["model"].removesuffix("_cifar").replace("resnet", "ResNet-")
    write_json(output, others | {name: rounded(described | found)}, indent=1)
    print(f"wrote {output}")


if __name__ == "__main__":
    sys.exit(program(define, main, __doc__)(sys.argv[1:]))

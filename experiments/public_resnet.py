"""A ResNet-20 that others trained on CIFAR-10, as it is and made shift-invariant without training.

python -m experiments.public_resnet --weights=resnet20-12fca82f.th --data=CIFAR.tar.xz

The weights are those of github.com/akamaster/pytorch_resnet_cifar10. The data is CIFAR-10 as for
`python -m experiments`. The results go to experiments/results/public_resnet.json, and from there into the
README's table by `python -m experiments --page`.
"""

import functools
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aliasfree_jax.startup import begin

if __name__ == "__main__":  # before what may be missing is imported
    begin()

import jax
import jax.numpy as jnp
from absl import flags

from aliasfree_jax import shift_invariant
from aliasfree_jax.commands import program, refuse
from aliasfree_jax.config import base_config
from aliasfree_jax.conversion.weight_files import read_state_dict
from aliasfree_jax.data import eval_batches, limit, open_source
from aliasfree_jax.errors import DataError
from aliasfree_jax.evaluation.evaluator import Measurement, evaluate
from aliasfree_jax.evaluation.measurements import adversarial_integer
from aliasfree_jax.evaluation.report import Rows, circumstances, percent
from aliasfree_jax.evaluation.shift_sets import random_fraction, random_integer
from aliasfree_jax.files import local_path, write_json
from benchmarks.timing import machine
from experiments.resnet20 import ResNet20, variables_of
from experiments.stored import ROOT, rounded

RESULTS = ROOT / "experiments" / "results" / "public_resnet.json"
SIDE, BATCH = 32, 500
# What is done to the network: options of `shift_invariant`; None for nothing.
WAYS: Mapping[str, dict[str, Any] | None] = {
    "as trained": None,
    "circular padding": {"sampler": "subsample"},
    "BlurPool-3": {"sampler": {"name": "blur", "kernel_size": 3}},
    "polyphase": {"sampler": "polyphase"},
    "ideal": {"sampler": "ideal"},
    "ideal, polynomials": {"sampler": "ideal", "activations": "polynomial"},
}


def measurements(draws: int) -> list[Measurement]:
    """Random circular shifts of every image, the same for all ways: by whole pixels, and by half ones."""
    whole, half = jax.random.split(jax.random.key(0))
    return [
        Measurement("integer", random_integer(draws, SIDE - 1, whole)),
        Measurement("half_pixel", random_fraction(draws, SIDE - 1, 2, half)),
    ]


def measure(values: flags.FlagValues, variables: Any) -> dict[str, Any]:
    """The results of every way, by its name."""
    data = base_config().data  # its normalisation is ImageNet's, with which these weights were trained
    data.source, data.path, data.image_size, data.eval_crop_ratio = "folder", values.data, SIDE, 1.0
    source = limit(open_source(data, train=False), values.images)
    searched = limit(source, values.worst_images)
    results = {}
    for name, options in WAYS.items():
        apply: Callable[..., Any] = ResNet20().apply
        function = apply if options is None else shift_invariant(apply, argnums=1, **options)
        predict = functools.partial(jax.jit(function), variables)
        began = time.perf_counter()
        results[name] = {
            "options": options,
            **evaluate(predict, eval_batches(source, data, batch_size=BATCH), measurements(values.draws)),
            "worst": evaluate(
                predict,
                eval_batches(searched, data, batch_size=BATCH),
                [adversarial_integer(SIDE, SIDE // 2)],
            ),
            "seconds": time.perf_counter() - began,
        }
        print(" | ".join(row(name, results[name])), flush=True)
    return results


def row(name: str, found: Mapping[str, Any]) -> list[str]:
    """The name of a way and its results in percent; see `table`."""
    shares = (
        *(found["accuracy"], found["integer"]["consistency"], found["half_pixel"]["consistency"]),
        *(found["worst"]["accuracy"], found["worst"]["adversarial_integer"]["worst_case_accuracy"]),
    )
    return [name, *(percent(share).rstrip("%") for share in shares)]


def table() -> Rows:
    """The stored results, for the README.

    Raises:
      DataError: there are none.
    """
    try:
        found = json.loads(RESULTS.read_text())["results"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{RESULTS} has no results ({error!r}): {__name__} makes them.") from error
    heading = [
        *("ResNet-20", "accuracy, %", "same class under integer shifts, %", "half-pixel"),
        *("accuracy of the searched images, %", "its worst case over all integer shifts"),
    ]
    return [heading, *(row(name, of_way) for name, of_way in found.items())]


def define(values: flags.FlagValues) -> None:
    """The command's flags."""
    flags.DEFINE_string("weights", None, "resnet20-12fca82f.th", required=True, flag_values=values)
    flags.DEFINE_string("data", None, "CIFAR-10: a folder, tar or zip", required=True, flag_values=values)
    flags.DEFINE_integer("images", 0, "test images, evenly spread; 0: all", 0, flag_values=values)
    flags.DEFINE_integer("draws", 1, "random shifts of each kind an image", 1, flag_values=values)
    flags.DEFINE_integer("worst_images", 100, "of them, tried under every shift", 1, flag_values=values)
    flags.DEFINE_string("output", str(RESULTS), "the file to write", flag_values=values)


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    refuse(arguments)
    variables = jax.tree.map(jnp.asarray, variables_of(read_state_dict(values.weights)))
    results = measure(values, variables)
    about, where = machine(), circumstances()
    sizes = " ".join(f"--{name}={values[name].value}" for name in ("images", "draws", "worst_images"))
    files = f"--weights={Path(values.weights).name} --data={Path(values.data).name}"
    stored = {
        **where | {"command": f"python -m experiments.public_resnet {files} {sizes}"},
        **{"processor": about["device"], "load": about["load"]},
        "results": results,
    }
    write_json(local_path(values.output), rounded(stored), indent=1)
    print(f"wrote {values.output}")


if __name__ == "__main__":
    sys.exit(program(define, main, __doc__)(sys.argv[1:]))

"""Exports networks and compares the files with JAX: differences, and milliseconds per image.

python -m benchmarks.exported convnext_afc_micro:32 convnext_tiny:224

Every argument is NAME:SIDE. The weights are random. The output is the table of docs/export.md, with
one line per format. Without jax2onnx (pip install 'aliasfree_jax[onnx]') the ONNX lines are left out.
"""

import importlib.util
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from aliasfree_jax import create_model
from aliasfree_jax.checkpoint import ModelCard
from aliasfree_jax.commands import program
from aliasfree_jax.conversion.exporting import FORMATS, export
from aliasfree_jax.conversion.stablehlo import ExportError
from aliasfree_jax.errors import ConfigError

REPEATS = 5


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_integer("batch", 2, "images per call", lower_bound=1, flag_values=values)


def _seconds(run: Callable[[Any], Any], images: np.ndarray) -> float:
    """The shortest of several times, per image."""
    jax.block_until_ready(run(images))
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        jax.block_until_ready(run(images))
        times.append(time.perf_counter() - start)
    return min(times) / len(images)


def _measure(name: str, side: int, batch: int) -> None:
    module = create_model(name)
    variables = jax.jit(module.init)(jax.random.key(0), jnp.zeros((1, side, side, 3)))
    card = ModelCard(name, {}, (), side, 3, (0.5,) * 3, (0.25,) * 3, 0.875, 0, "random weights")
    images = np.random.default_rng(0).standard_normal((batch, side, side, 3), np.float32)
    network = jax.jit(module.apply)
    own = _seconds(lambda x: network(variables, x), images)
    for ending, form in FORMATS.items():
        if ending == ".onnx" and not importlib.util.find_spec("jax2onnx"):
            continue
        with tempfile.TemporaryDirectory() as directory:
            for count in (None, batch):
                try:
                    path = Path(directory, f"{name}{ending}")
                    written = export(path, card, module, variables, platforms=("cpu",), batch=count)
                except ExportError as error:
                    print(f"{name} {ending} {count}: {str(error)[:300]}", file=sys.stderr)
                    continue
                _, run = next(form.programs(written.path))
                figures = [f"{written.difference / written.largest:.0e}", f"{written.size / 1e6:.1f} MB"]
                figures += [f"{1000 * seconds:.1f} ms" for seconds in (_seconds(run, images), own)]
                sizes = "any" if count is None else "fixed"
                print(f"| {name}, {side} | {ending} | {sizes} | {' | '.join(figures)} |", flush=True)
                break


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    print("| network, side | format | batch | difference | file | an image | an image in jax |")
    print("|---|---|---|---|---|---|---|")
    for argument in arguments:
        name, _, side = argument.partition(":")
        if not side.isdecimal():
            raise ConfigError(f"{argument!r} should be NAME:SIDE, e.g. convnext_afc_micro:32.")
        _measure(name, int(side), values.batch)


if __name__ == "__main__":
    sys.exit(program(define, main, __doc__)(sys.argv[1:]))

"""Runs all benchmarks on this machine and writes one file: `python -m benchmarks` (`--quick`: a minute).

It compares whole networks (also with PyTorch, if installed), transformed and native networks, single
operations by every method, memory, compile time, precision and reading of images. `python -m benchmarks.page`
writes the pages from the files.
"""

import importlib.util
import json
import re
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from aliasfree_jax.startup import begin

if __name__ == "__main__":  # before imports of optional packages
    begin()

import jax
from absl import flags

from aliasfree_jax.commands import program, refuse
from aliasfree_jax.config import PRECISIONS
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.files import local_path, output_file, write_json
from benchmarks import input_pipeline, memory, networks, operations, precision, transformed
from benchmarks.timing import machine

RESULTS = Path(__file__).parent / "results"
SECTIONS = (
    *("networks", "resnets", "cifar", "xcit-nano", "xcit-small", "transform"),
    *("operations", "memory", "compile", "precision", "input"),
)


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_bool(
        "quick", False, "small shapes and few repetitions; the results are not stored", flag_values=values
    )
    flags.DEFINE_integer(
        "batch", None, "images per step; default 4 on a CPU, 256 elsewhere", flag_values=values
    )
    flags.DEFINE_integer("repetitions", None, "default 7; with --quick 3", flag_values=values)
    precision = "precision of the networks; default float32, on GPUs bfloat16"
    flags.DEFINE_enum("precision", None, list(PRECISIONS), precision, flag_values=values)
    only = "section to measure; may be repeated; default: all"
    flags.DEFINE_multi_enum("only", list(SECTIONS), SECTIONS, only, flag_values=values)
    photographs = "folder or tar of images for the section input; default: a sample of ImageNet"
    flags.DEFINE_string("photographs", None, photographs, flag_values=values)
    output = "JSON file to write; default benchmarks/results/<machine>.json"
    flags.DEFINE_string("output", None, output, flag_values=values)


def file_of(described: dict[str, Any]) -> Path:
    """The result file of a kind of machine: benchmarks/results/<backend>-<device>.json."""
    words = re.findall(r"[a-z0-9]+", f"{described['backend']} {described['device']}".lower())
    return RESULTS / ("-".join(words) + ".json")


def sections(values: flags.FlagValues, accelerator: bool) -> dict[str, Any]:
    """The measurement of each section, as a function without arguments."""
    batch = values.batch or (256 if accelerator else 4)
    repetitions = values.repetitions or (3 if values.quick else 7)
    mode = values.precision or ("bfloat16" if accelerator else "float32")
    shape = (batch, 32, "micro") if values.quick else (batch, 224, "tiny")

    def whole() -> Any:
        tasks = networks.tasks(*shape, mode, values.quick, accelerator)
        return networks.measure(tasks, repetitions, accelerator)

    def resnets() -> Any:
        return networks.measure(networks.resnet_tasks(batch, mode), repetitions, accelerator)

    def cifar() -> Any:
        return networks.measure(networks.cifar_tasks(mode), repetitions, accelerator)

    def xcit(size: str) -> Any:
        return networks.measure(networks.xcit_tasks(size, batch, mode), repetitions, accelerator)

    def transform() -> Any:
        return transformed.measure(batch, 224, repetitions, mode)

    long = {"resnets": resnets, "cifar": cifar, "transform": transform}
    long |= {f"xcit-{size}": partial(xcit, f"{size}_12_p16") for size in ("nano", "small")}
    photographs = values.photographs and local_path(values.photographs)

    def read() -> Any:
        return input_pipeline.measure(values.quick, repetitions, photographs)

    return {
        "networks": whole,
        **({} if values.quick else long),
        "operations": lambda: operations.measure(values.quick, batch, repetitions, mode),
        "memory": lambda: memory.measure(values.quick, batch, repetitions),
        "compile": lambda: memory.scanned(values.quick, batch, repetitions),
        "precision": lambda: precision.measure(values.quick),
        **({"input": read} if importlib.util.find_spec("cykooz_resizer") else {}),  # needs the extra `fast`
    }


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Measures sections, prints their results and stores them. Other sections keep their stored results.

    Raises:
      ConfigError: A section of --only cannot run.
    """
    refuse(arguments)
    described = machine()
    path = output_file(values.output or file_of(described), "--output")
    stored = json.loads(path.read_text()) if path.exists() and not values.quick else {}
    known = sections(values, described["backend"] != "cpu")
    if values["only"].present and (unknown := [name for name in values.only if name not in known]):
        raise ConfigError(
            f"--only={unknown[0]} cannot run: --quick has no section of large networks, and the section "
            "input needs the extra `fast`."
        )
    for name, measure in known.items():
        if name not in values.only:
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        start = time.perf_counter()
        typed = " ".join(["python -m benchmarks", *sys.argv[1:]])
        stored[name] = {"command": typed, "date": time.strftime("%Y-%m-%d"), "machine": machine()}
        stored[name]["rows"] = measure()
        print(json.dumps({name: stored[name]["rows"]}, indent=1))
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        jax.clear_caches()
        if not values.quick or values.output:
            write_json(path, stored, indent=1)


if __name__ == "__main__":
    sys.exit(program(define, main, __doc__)(sys.argv[1:]))

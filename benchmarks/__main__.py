"""Measures everything on this machine and writes one file: `python -m benchmarks` (`--quick`: a minute).

Whole networks side by side (and PyTorch's, where it is installed), single operations by every method,
memory, compile time, precision and the input. `python -m benchmarks.page` makes docs/benchmarks.md of the
files.
"""

import argparse
import importlib.util
import json
import re
import sys
import time
from pathlib import Path
from typing import Any

from aliasfree_jax.errors import command, excepthook

if __name__ == "__main__":  # before what may be missing is imported
    sys.excepthook = excepthook

import jax

from aliasfree_jax.files import local_path, write_json
from benchmarks import input_pipeline, memory, networks, operations, precision
from benchmarks.timing import machine

RESULTS = Path(__file__).parent / "results"
SECTIONS = ("networks", "resnets", "operations", "memory", "compile", "precision", "input")


def parsed(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small shapes, few repetitions; not stored")
    parser.add_argument("--batch", type=int, help="images a step; default 4 on a CPU, 256 elsewhere")
    parser.add_argument("--repetitions", type=int, help="default 7; with --quick 3")
    parser.add_argument(
        "--precision", default=None, help="of the networks; default float32, bfloat16 on GPUs"
    )
    parser.add_argument("--only", nargs="*", choices=SECTIONS, default=SECTIONS, help="sections to measure")
    parser.add_argument(
        "--photographs",
        type=local_path,
        help="folder or tar for the section input; default: the sample of ImageNet",
    )
    parser.add_argument(
        "--out", type=local_path, help="the JSON file; default benchmarks/results/<machine>.json"
    )
    return parser.parse_args(arguments)


def file_of(described: dict[str, Any]) -> Path:
    """benchmarks/results/<backend>-<device>.json: one file a kind of machine."""
    words = re.findall(r"[a-z0-9]+", f"{described['backend']} {described['device']}".lower())
    return RESULTS / ("-".join(words) + ".json")


def sections(options: argparse.Namespace, accelerator: bool) -> dict[str, Any]:
    """What each section measures, as a function without parameters."""
    batch = options.batch or (256 if accelerator else 4)
    repetitions = options.repetitions or (3 if options.quick else 7)
    mode = options.precision or ("bfloat16" if accelerator else "float32")
    shape = (batch, 32, "micro") if options.quick else (batch, 224, "tiny")

    def whole() -> Any:
        tasks = networks.tasks(*shape, mode, options.quick, accelerator)
        return networks.measure(tasks, repetitions, accelerator)

    def resnets() -> Any:
        return networks.measure(networks.resnet_tasks(batch, mode), repetitions, accelerator)

    def read() -> Any:
        return input_pipeline.measure(options.quick, repetitions, options.photographs)

    return {
        "networks": whole,
        **({} if options.quick else {"resnets": resnets}),
        "operations": lambda: operations.measure(options.quick, batch, repetitions, mode),
        "memory": lambda: memory.measure(options.quick, batch, repetitions),
        "compile": lambda: memory.scanned(options.quick, batch, repetitions),
        "precision": lambda: precision.measure(options.quick),
        **({"input": read} if importlib.util.find_spec("cykooz_resizer") else {}),  # of the extra `fast`
    }


@command
def main(arguments: list[str]) -> None:
    """Measures, prints and stores; sections that are not measured keep their stored values."""
    options = parsed(arguments)
    described = machine()
    path = options.out or file_of(described)
    stored = json.loads(path.read_text()) if path.exists() and not options.quick else {}
    for name, measure in sections(options, described["backend"] != "cpu").items():
        if name not in options.only:
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        start = time.perf_counter()
        typed = " ".join(["python -m benchmarks", *arguments])
        stored[name] = {"command": typed, "date": time.strftime("%Y-%m-%d"), "machine": machine()}
        stored[name]["rows"] = measure()
        print(json.dumps({name: stored[name]["rows"]}, indent=1))
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        jax.clear_caches()
        if not options.quick or options.out:
            path.parent.mkdir(exist_ok=True)
            write_json(path, stored, indent=1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Trains ResNet-18 on CIFAR-10 with four samplers and tabulates accuracy and consistency under shifts.

python docs/cifar_samplers.py --data=/data/cifar10.tar.xz
python docs/cifar_samplers.py --data=... --images=4000 --epochs=5 --batch_size=64 --test_images=1000
                                                                       (what two cores do in an hour)

The recipe is configs/cifar10_resnet.py; --epochs scales its step schedule along. Circular shifts are
rolls by -3 to 3 pixels; crop shifts move the zero-padded image by as much, so that new border comes in.
Writes docs/results/cifar_samplers.json after each network and prints the table; started again with the
same settings, it goes on with the networks that are not in there.
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from aliasfree_jax.data import eval_batches, open_source  # noqa: E402
from aliasfree_jax.evaluation.evaluator import Measurement, evaluate  # noqa: E402
from aliasfree_jax.evaluation.placement import predictor  # noqa: E402
from aliasfree_jax.evaluation.reductions import CONSISTENCY  # noqa: E402
from aliasfree_jax.evaluation.shift_sets import random_integer  # noqa: E402
from aliasfree_jax.evaluation.shifting import Circular, ZeroFilled  # noqa: E402
from aliasfree_jax.training.loop import run  # noqa: E402
from configs import cifar10_resnet  # noqa: E402

LARGEST = 3  # pixels
OUTPUT = ROOT / "docs" / "results" / "cifar_samplers.json"


def recipe(sampling: str, options: argparse.Namespace) -> ConfigDict:
    """The configuration, shortened as the command line says."""
    config = cifar10_resnet.get_config(sampling)
    share = options.epochs / config.train.total_epochs
    config.data.path, config.seed = options.data, options.seed
    config.data.train_limit, config.data.eval_limit = options.images, options.test_images
    config.train.total_epochs = float(options.epochs)
    config.train.batch_size = options.batch_size
    config.optimizer.learning_rate *= options.batch_size / 256
    config.optimizer.step_epochs = tuple(share * epoch for epoch in config.optimizer.step_epochs)
    config.optimizer.warmup_epochs = options.epochs / 20
    config.train.temperature.every_epochs *= share
    config.eval.batch_size = min(config.eval.batch_size, options.test_images or config.eval.batch_size)
    config.eval.every_epochs = config.checkpoint.every_epochs = 0.0
    if options.network:
        config.model.name = config.model.name.replace("resnet18", options.network)
    return config


def measure(module: Any, variables: Any, config: ConfigDict, draws: int) -> dict[str, Any]:
    """Accuracy, and consistency under circular and crop shifts: `draws` of each an image, the same ones."""
    shifts = random_integer(draws, LARGEST, jax.random.key(0))
    ways = {"circular": Circular(), "crop": ZeroFilled()}
    measurements = [Measurement(name, shifts, way, (CONSISTENCY,)) for name, way in ways.items()]
    source = open_source(config.data, train=False)
    batches = eval_batches(source, config.data, batch_size=config.eval.batch_size)
    results = evaluate(predictor(module, variables), batches, measurements)
    return {"accuracy": results["accuracy"]} | {
        f"{name}_consistency": results[name]["consistency"] for name in ways
    }


def table(stored: dict[str, Any]) -> str:
    """The results as Markdown."""
    lines = ["| sampler | accuracy | circular shifts: same class | crop shifts: same class | training |"]
    lines += ["|---|---|---|---|---|"]
    for sampling, row in stored["samplers"].items():
        shares = (row["accuracy"], row["circular_consistency"], row["crop_consistency"])
        cells = [f"{row['model']} ({sampling})", *(f"{100 * share:.2f} %" for share in shares)]
        lines.append("| " + " | ".join([*cells, f"{row['training_seconds'] / 60:.0f} min"]) + " |")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10: folder, tar or zip with train/ and val/")
    parser.add_argument("--images", type=int, default=0, help="training images; 0: all")
    parser.add_argument("--test_images", type=int, default=0, help="test images; 0: all")
    parser.add_argument("--epochs", type=float, default=250.0)
    parser.add_argument("--batch_size", type=int, default=256)
    parser.add_argument("--draws", type=int, default=4, help="shifts an image")
    parser.add_argument("--network", default="", help="another size, e.g. resnet20")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUTPUT)
    return parser.parse_args()


def begin(options: argparse.Namespace) -> dict[str, Any]:
    """What the output file holds, if it is of these settings; or what it holds before the first network."""
    settings = {key: value for key, value in vars(options).items() if key not in ("data", "out")}
    if options.out.exists():
        stored: dict[str, Any] = json.loads(options.out.read_text())
        if stored["settings"] == settings:
            return stored
    command = ["python", "docs/cifar_samplers.py", *sys.argv[1:]]
    return {
        # Without this machine's directories.
        "command": " ".join(command).replace(options.data, Path(options.data).name),
        "settings": settings,
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs, device {jax.devices()[0].device_kind}",
        "versions": {"python": platform.python_version(), "jax": jax.__version__},
        "samplers": {},
    }


def main() -> None:
    """Trains and measures one network after the other; what is measured is stored at once."""
    options = arguments()
    root = ROOT / "runs" / f"cifar_samplers-{time.strftime('%Y%m%d-%H%M%S')}"
    stored = begin(options)
    for sampling in cifar10_resnet.NETWORKS:
        if sampling in stored["samplers"]:
            continue
        config = recipe(sampling, options)
        began = time.perf_counter()
        summary = run(config, root / sampling)
        seconds = time.perf_counter() - began
        results = measure(summary.module, summary.variables, config, options.draws)
        stored["samplers"][sampling] = {"model": config.model.name, "training_seconds": seconds, **results}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(stored, indent=1) + "\n")
    print(table(stored))


if __name__ == "__main__":
    main()

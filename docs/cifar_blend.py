"""Trains a small plain ConvNeXt on CIFAR-10 and makes it alias-free in two ways: at once, and blended.

python docs/cifar_blend.py --data=/data/cifar10.tar.xz
python docs/cifar_blend.py --data=... --images=4000 --epochs=8 --test_images=1000       (minutes on two cores)

Three runs of equally many epochs by the recipe of configs/cifar10_afc.py, without averages: plain; from its
weights to alias-free, blended over the first --blend of the epochs; and the same within one update.
Writes docs/results/cifar_blend.json and prints the accuracies.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from aliasfree_jax.checkpoint import load_model  # noqa: E402
from aliasfree_jax.commands import program, refuse  # noqa: E402
from aliasfree_jax.data import eval_batches, open_source  # noqa: E402
from aliasfree_jax.evaluation.evaluator import evaluate, predictor, shift_report  # noqa: E402
from aliasfree_jax.evaluation.measurements import fractional_shifts, integer_shifts  # noqa: E402
from aliasfree_jax.evaluation.report import circumstances  # noqa: E402
from aliasfree_jax.training.loop import run  # noqa: E402
from aliasfree_jax.training.progress import read_events  # noqa: E402
from aliasfree_jax.training.state import Pretrained  # noqa: E402
from configs.cifar10_afc import recipe  # noqa: E402
from configs.convnext_afc_from_plain import blended  # noqa: E402

OUTPUT = ROOT / "docs" / "results" / "cifar_blend.json"


def shortened(model: str, values: flags.FlagValues) -> ConfigDict:
    """The recipe as the command line says."""
    config = recipe(model)
    config.data.path, config.seed = values.data, values.seed
    config.data.train_limit, config.data.eval_limit = values.images, values.test_images
    config.data.validation, config.checkpoint.best = 0.0, ""  # the last network is measured
    config.train.total_epochs, config.train.batch_size = values.epochs, values.batch_size
    config.train.ema_decay = 0.0
    config.optimizer.warmup_epochs = values.epochs / 16
    config.eval.batch_size = min(config.eval.batch_size, values.test_images or config.eval.batch_size)
    config.eval.every_epochs = config.checkpoint.every_epochs = values.epochs / 8
    config.eval.shifts = values.shifts
    return config


def measured(config: ConfigDict, workdir: Path, initial: Pretrained | None) -> dict[str, Any]:
    """Trains, and measures the network that is left: accuracy as it went, consistency under shifts."""
    began = time.perf_counter()
    summary = run(config, workdir, pretrained=initial, evaluate=evaluate)
    seconds = time.perf_counter() - began
    events = read_events(workdir)
    source = open_source(config.data, train=False)
    draws = {"shifts": config.eval.shifts, "max_shift": config.eval.max_shift, "seed": config.seed}
    report = shift_report(
        predictor(summary.module, summary.variables),
        eval_batches(source, config.data, batch_size=config.eval.batch_size),
        [kind(summary.card.image_size, **draws) for kind in (integer_shifts, fractional_shifts)],
        images=len(source),
    )
    evaluations = [
        {k: e[k] for k in ("epoch", "accuracy", "share") if k in e} for e in events if e["split"] == "test"
    ]
    return {"model": config.model.name, "training_seconds": seconds, "evaluations": evaluations, **report}


def define(values: flags.FlagValues) -> None:
    """The flags."""
    data = "CIFAR-10: folder, tar or zip with train/ and val/"
    flags.DEFINE_string("data", None, data, required=True, flag_values=values)
    flags.DEFINE_integer("images", 0, "training images; 0: all", flag_values=values)
    flags.DEFINE_integer("test_images", 0, "test images; 0: all", flag_values=values)
    flags.DEFINE_float("epochs", 30.0, "of each run", flag_values=values)
    flags.DEFINE_float("blend", 0.5, "share of them in which layers blend", flag_values=values)
    flags.DEFINE_integer("batch_size", 64, "images an update", flag_values=values)
    flags.DEFINE_integer("shifts", 4, "of each kind an image", flag_values=values)
    flags.DEFINE_string("size", "micro", "of the networks", flag_values=values)
    flags.DEFINE_integer("seed", 0, "of all that is drawn", flag_values=values)
    flags.DEFINE_string("out", str(OUTPUT), "the JSON file", flag_values=values)


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Three runs; what is measured is stored at once."""
    refuse(arguments)
    out = Path(values.out)
    root = ROOT / "runs" / f"cifar_blend-{time.strftime('%Y%m%d-%H%M%S')}"
    about = circumstances()
    # Without this machine's directories.
    about["command"] = about["command"].replace(values.data, Path(values.data).name)
    stored: dict[str, Any] = {**about, "runs": {}}
    plain, alias_free = (f"convnext_{family}{values.size}" for family in ("", "afc_"))
    soft, hard = (
        blended(shortened(alias_free, values), epochs) for epochs in (values.blend * values.epochs, 1e-6)
    )
    configs = {"plain": shortened(plain, values), "blended": soft, "at once": hard}
    initial: Pretrained | None = None
    for name, config in configs.items():
        stored["runs"][name] = measured(config, root / name.replace(" ", "_"), initial)
        if initial is None:
            card, _, variables = load_model(root / name)
            initial = Pretrained(card, variables)
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(stored, indent=1) + "\n")
    for name, results in stored["runs"].items():
        print(
            name, [(e["epoch"], e.get("share", 1), round(e["accuracy"], 4)) for e in results["evaluations"]]
        )


if __name__ == "__main__":
    sys.exit(program(define, main, __doc__)(sys.argv[1:]))

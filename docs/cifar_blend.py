"""Trains a small plain ConvNeXt on CIFAR-10 and makes it alias-free in two ways: at once, and blended.

python docs/cifar_blend.py --data=/data/cifar10.tar.xz
python docs/cifar_blend.py --data=... --images=4000 --epochs=8 --test_images=1000       (minutes on two cores)

Three runs of equally many epochs by the recipe of configs/cifar10_afc.py, without averages: plain; from its
weights to alias-free, blended over the first --blend of the epochs; and the same within one update.
Writes docs/results/cifar_blend.json and prints the accuracies.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from aliasfree_jax.checkpoint import load_model  # noqa: E402
from aliasfree_jax.data import eval_batches, open_source  # noqa: E402
from aliasfree_jax.evaluation.evaluator import evaluate  # noqa: E402
from aliasfree_jax.evaluation.measurements import fractional_shifts, integer_shifts  # noqa: E402
from aliasfree_jax.evaluation.placement import predictor  # noqa: E402
from aliasfree_jax.evaluation.report import circumstances, shift_report  # noqa: E402
from aliasfree_jax.training.loop import run  # noqa: E402
from aliasfree_jax.training.progress import read_events  # noqa: E402
from aliasfree_jax.training.state import Pretrained  # noqa: E402
from configs.cifar10_afc import recipe  # noqa: E402
from configs.convnext_afc_from_plain import blended  # noqa: E402

OUTPUT = ROOT / "docs" / "results" / "cifar_blend.json"


def shortened(model: str, options: argparse.Namespace) -> ConfigDict:
    """The recipe as the command line says."""
    config = recipe(model)
    config.data.path, config.seed = options.data, options.seed
    config.data.train_limit, config.data.eval_limit = options.images, options.test_images
    config.data.validation, config.checkpoint.best = 0.0, ""  # the last network is measured
    config.train.total_epochs, config.train.batch_size = options.epochs, options.batch_size
    config.train.ema_decay = 0.0
    config.optimizer.warmup_epochs = options.epochs / 16
    config.eval.batch_size = min(config.eval.batch_size, options.test_images or config.eval.batch_size)
    config.eval.every_epochs = config.checkpoint.every_epochs = options.epochs / 8
    config.eval.shifts = options.shifts
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


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10: folder, tar or zip with train/ and val/")
    parser.add_argument("--images", type=int, default=0, help="training images; 0: all")
    parser.add_argument("--test_images", type=int, default=0, help="test images; 0: all")
    parser.add_argument("--epochs", type=float, default=30.0, help="of each run")
    parser.add_argument("--blend", type=float, default=0.5, help="share of them in which layers blend")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--shifts", type=int, default=4, help="of each kind an image")
    parser.add_argument("--size", default="micro")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUTPUT)
    return parser.parse_args()


def main() -> None:
    """Three runs; what is measured is stored at once."""
    options = arguments()
    root = ROOT / "runs" / f"cifar_blend-{time.strftime('%Y%m%d-%H%M%S')}"
    about = circumstances()
    # Without this machine's directories.
    about["command"] = about["command"].replace(options.data, Path(options.data).name)
    stored: dict[str, Any] = {**about, "runs": {}}
    plain, alias_free = (f"convnext_{family}{options.size}" for family in ("", "afc_"))
    soft, hard = (
        blended(shortened(alias_free, options), epochs) for epochs in (options.blend * options.epochs, 1e-6)
    )
    configs = {"plain": shortened(plain, options), "blended": soft, "at once": hard}
    initial: Pretrained | None = None
    for name, config in configs.items():
        stored["runs"][name] = measured(config, root / name.replace(" ", "_"), initial)
        if initial is None:
            card, _, variables = load_model(root / name)
            initial = Pretrained(card, variables)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(stored, indent=1) + "\n")
    for name, results in stored["runs"].items():
        print(
            name, [(e["epoch"], e.get("share", 1), round(e["accuracy"], 4)) for e in results["evaluations"]]
        )


if __name__ == "__main__":
    main()

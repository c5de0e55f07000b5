"""Trains a network, then reports its accuracy and how shifts of the image change its predictions.

python train.py                                              the quickstart: digits, minutes on a CPU
python train.py --config=configs/convnext_afc.py --config.data.path=/data/imagenet
python train.py --workdir=runs/mine                          a new run there, or goes on with that one
srun python train.py --config=...                            one process a task (Open MPI: mpirun)

Any field can be overridden: --config.train.batch_size=32, or --config.init_from=PATH (run or .pth).
--config.dry_run=true runs a recipe in miniature first, in minutes: data, network, evaluation, checkpoints.
"""

import json
import sys
import time
from pathlib import Path

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from aliasfree_jax import cli
from aliasfree_jax.checkpoint import finished_steps, load_model
from aliasfree_jax.conversion import load_pth
from aliasfree_jax.data import open_source
from aliasfree_jax.errors import AliasFreeError
from aliasfree_jax.evaluation.evaluator import evaluate
from aliasfree_jax.evaluation.measurements import fractional_shifts, integer_shifts
from aliasfree_jax.evaluation.placement import predictor
from aliasfree_jax.evaluation.report import format_table, shift_report
from aliasfree_jax.processes import from_first, is_first
from aliasfree_jax.training import loop
from aliasfree_jax.training.curves import CURVES, draw_curves
from aliasfree_jax.training.dry_run import shortened
from aliasfree_jax.training.mesh import make_mesh, own_eval_batches
from aliasfree_jax.training.stopping import TerminatedError
from configs import quickstart

_WORKDIR = flags.DEFINE_string("workdir", "", "directory of the run; default: runs/<configuration>-<time>")
INTERRUPTED = 130  # exit status of a program ended by Ctrl-C
TERMINATED = 143  # ... by SIGTERM: the run is to be started again


def default_config() -> ConfigDict:
    """The configuration where none is passed: that of the run to go on with, else the quickstart."""
    stored = Path(_WORKDIR.value) / "config.json"
    return cli.read_config(stored) if _WORKDIR.value and stored.is_file() else quickstart.get_config()


def config_file() -> str:
    """The file passed as --config, or the quickstart's."""
    passed = config_flags.get_config_filename(flags.FLAGS["config"])  # no string without --config
    return passed if isinstance(passed, str) else "configs/quickstart.py"


def initial_weights(config: ConfigDict, workdir: Path) -> loop.Initial | None:
    """Card and variables to start from; None for scratch, and for a run that has checkpoints of its own."""
    path = Path(config.init_from)
    if not config.init_from or finished_steps(workdir / "checkpoints"):
        return None
    card, _, variables = load_pth(path) if path.is_file() else load_model(path)
    return card, variables


def train_and_report(config: ConfigDict, workdir: Path) -> None:
    """Trains, prints the table and writes results.json."""
    initial = initial_weights(config, workdir)
    summary = loop.run(config, workdir, initial=initial, evaluate=evaluate, origin=config_file())
    source = open_source(config.data, train=False)
    draws = {"shifts": config.eval.shifts, "max_shift": config.eval.max_shift, "seed": config.seed}
    results = shift_report(
        predictor(summary.module, summary.variables, config.train.devices),
        own_eval_batches(source, config.data, config.eval.batch_size),
        [kind(summary.card.image_size, **draws) for kind in (integer_shifts, fractional_shifts)],
        images=len(source),
        devices=config.train.devices,
    )
    print(f"\n{format_table(results)}\n")
    if not is_first():
        return
    try:
        draw_curves([workdir], workdir / CURVES)
        print(f"curves         {workdir / CURVES}")
    except AliasFreeError as error:  # no matplotlib: a picture less is no reason to fail
        print(error)
    output = workdir / "results.json"
    output.write_text(json.dumps({"card": summary.card.to_json()} | results, indent=2) + "\n")
    print(f"results        {output}\nevaluate again python eval.py --workdir={workdir}")


def main(config: ConfigDict) -> None:
    """Trains in the run directory; Ctrl-C and SIGTERM end the program with a word on how to go on."""
    logging.set_verbosity(logging.WARNING)  # Orbax tells all it does at the level INFO
    started = time.strftime("%Y%m%d-%H%M%S", time.localtime(from_first(time.time())))
    default = Path("runs") / f"{Path(config_file().split(':')[0]).stem}-{started}"
    workdir = Path(_WORKDIR.value) if _WORKDIR.value else default
    print(f"run            {workdir}", flush=True)
    if config.dry_run:
        config = shortened(config, make_mesh(config.train.devices, config.train.parameter_shards).size)
    try:
        train_and_report(config, workdir)
    except KeyboardInterrupt:
        steps = finished_steps(workdir / "checkpoints")
        left = f"The checkpoint of step {steps[-1]} is kept" if steps else "There is no checkpoint yet"
        print(f"\ninterrupted. {left}; go on with: python train.py --workdir={workdir}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except TerminatedError as ended:
        print(f"\n{ended}; go on with: python train.py --workdir={workdir}", file=sys.stderr)
        sys.exit(TERMINATED)


if __name__ == "__main__":
    cli.run(main, default=default_config)

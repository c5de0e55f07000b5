"""Trains a network, then reports its accuracy and how shifts of the image change its predictions.

python train.py                                              the quick start: digits, minutes on a CPU
python train.py --config=configs/convnext_afc.py --config.data.path=/data/imagenet
python train.py --workdir=runs/mine                          starts or resumes the run in this directory
python train.py --workdir=runs/mine --config.seed=1 --accept_changes=seed     resumes with a changed field
srun python train.py --config=...                            one process per task (Open MPI: mpirun)

Any field can be overridden: --config.train.batch_size=32, or --config.init_from=PATH (run or .pth).
To train your network: --config.model.name=my_file.py:make_network (docs/training.md).
--config.dry_run=true tests a recipe in minutes: data, network, evaluation and checkpoints, with few images.
It writes to the separate directory <workdir>-dry-run.
"""

import sys
import time
from contextlib import suppress
from pathlib import Path

from aliasfree_jax.errors import EXIT_INTERRUPTED, AliasFreeError, ConfigError
from aliasfree_jax.startup import begin

if __name__ == "__main__":  # before imports that may fail
    begin()

from absl import flags, logging
from ml_collections import ConfigDict, config_flags

from aliasfree_jax import cli
from aliasfree_jax.checkpoint import finished_steps, load_variables
from aliasfree_jax.conversion import is_checkpoint, load_for_command
from aliasfree_jax.data import open_source
from aliasfree_jax.data.class_names import fit_classes
from aliasfree_jax.evaluation.evaluator import predictor, shift_report
from aliasfree_jax.evaluation.measurements import fractional_shifts, integer_shifts
from aliasfree_jax.evaluation.report import circumstances, format_table
from aliasfree_jax.evaluation.selection import evaluation_while_training
from aliasfree_jax.evaluation.tasks import comparison
from aliasfree_jax.files import new_directory, write_json
from aliasfree_jax.processes import is_first, of_first
from aliasfree_jax.stored_config import CONFIG, read_config
from aliasfree_jax.training import loop
from aliasfree_jax.training.adopting import Pretrained
from aliasfree_jax.training.curves import CURVES, draw_curves
from aliasfree_jax.training.dry_run import shortened
from aliasfree_jax.training.mesh import make_mesh, own_eval_batches
from aliasfree_jax.training.resuming import TerminatedError, until_termination, watch_for_termination
from configs import quickstart

_WORKDIR = flags.DEFINE(
    cli.LocalPath(), "workdir", "", "directory of the run; default: runs/<configuration>-<time>"
)
_ACCEPT = flags.DEFINE_list(
    "accept_changes", [], "fields that may differ from the resumed run's, e.g. data.path,seed"
)
TERMINATED = 143  # exit status after SIGTERM: the run can be resumed


def default_config() -> ConfigDict:
    """Default configuration: that of the run to resume, otherwise the quick start."""
    stored = Path(_WORKDIR.value) / CONFIG
    return read_config(stored) if _WORKDIR.value and stored.is_file() else quickstart.get_config()


def config_file() -> str:
    """File passed as --config, or that of the quick start."""
    passed = config_flags.get_config_filename(flags.FLAGS["config"])  # not a string without --config
    return passed if isinstance(passed, str) else "configs/quickstart.py"


def pretrained_weights(config: ConfigDict, workdir: Path) -> Pretrained | None:
    """Weights to start from; None: random weights, or the run already has checkpoints."""
    if not config.init_from or finished_steps(workdir / "checkpoints"):
        return None
    if is_checkpoint(config.init_from):
        return Pretrained(*load_variables(config.init_from))  # the code of their network may no longer exist
    card, _, variables = load_for_command(config.init_from, "--config.init_from")
    return Pretrained(card, variables)


def fresh_directory(path: Path) -> Path:
    """Makes `path`, or `path-2` and so on if it exists. The first of several processes makes it for all.

    Raises:
      ConfigError: The directory cannot be made.
    """

    def make() -> str:
        try:
            return str(new_directory(path))
        except OSError as error:
            raise ConfigError(f"cannot make the run directory {path}: {error}") from error

    return Path(of_first(make))


def train_and_report(config: ConfigDict, workdir: Path) -> None:
    """Trains, prints the table and writes results.json."""
    accept = cli.ACCEPT_CLASS_NAMES.value
    summary = loop.run(
        config,
        workdir,
        pretrained=pretrained_weights(config, workdir),
        evaluate=evaluation_while_training(config),
        origin=config_file(),
        accept_changes=_ACCEPT.value,
        accept_class_names=accept,
    )
    with watch_for_termination() as stop_requested:
        source = open_source(config.data, train=False, task=config.task)
        # The run has already printed these messages.
        source = fit_classes(source, summary.card.outputs(), tell=lambda _: None, subset=True, accept=accept)
        draws = {"shifts": config.eval.shifts, "max_shift": config.eval.max_shift, "seed": config.seed}
        batches = own_eval_batches(source, config.data, config.eval.batch_size)
        results = shift_report(
            predictor(summary.module, summary.variables, config.train.devices),
            until_termination(batches, summary.card.step, stop_requested),
            [kind(summary.card.image_size, **draws) for kind in (integer_shifts, fractional_shifts)],
            compare=comparison(config, source.class_names),
            images=len(source),
            devices=config.train.devices,
        )
    print(f"\n{format_table(results)}\n")
    if not is_first():
        return
    output = workdir / "results.json"
    about = {"card": summary.card.to_json(), "seed": config.seed}
    about |= {section: config[section].to_dict() for section in ("data", "eval")}
    write_json(output, about | circumstances() | results)
    try:
        draw_curves([workdir], workdir / CURVES)
        print(f"curves         {workdir / CURVES}")
    except AliasFreeError as error:  # without matplotlib there is no picture, but training has succeeded
        print(error)
    print(f"results        {output}\nevaluate again python eval.py --workdir={workdir}")


def perform(config: ConfigDict, workdir: Path) -> None:
    """Trains in the directory. After Ctrl-C or SIGTERM it prints the command that resumes the run."""
    print(f"run            {workdir}", flush=True)
    try:
        train_and_report(config, workdir)
    except KeyboardInterrupt:
        steps = finished_steps(workdir / "checkpoints")
        left = f"The checkpoint of step {steps[-1]} is kept" if steps else "There is no checkpoint yet"
        print(f"\ninterrupted. {left}; go on with: python train.py --workdir={workdir}", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except TerminatedError as ended:
        print(f"\n{ended}; go on with: python train.py --workdir={workdir}", file=sys.stderr)
        sys.exit(TERMINATED)


def main(config: ConfigDict) -> None:
    """Trains, or tests the recipe if the configuration is a dry run."""
    logging.set_verbosity(logging.WARNING)  # Orbax logs each of its steps at the level INFO
    named = Path(f"{Path(config_file().split(':')[0]).stem}-{time.strftime('%Y%m%d-%H%M%S')}")
    workdir = Path(_WORKDIR.value or Path("runs") / named)
    fresh = not _WORKDIR.value
    if config.dry_run:  # a separate directory: its weights must never be mixed up with those of the run
        config = shortened(config, make_mesh(config.train.devices, config.train.parameter_shards).size)
        workdir, fresh = Path(f"{workdir.resolve()}-dry-run"), True
    if fresh:
        workdir = fresh_directory(workdir)
    try:
        perform(config, workdir)
    except AliasFreeError:
        if fresh and is_first():
            with suppress(OSError):  # a directory with files is kept
                workdir.rmdir()
        raise


if __name__ == "__main__":
    cli.run(main, default=default_config)

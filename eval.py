"""Evaluates a network: its accuracy, and how circular shifts of the image change its predictions.

python eval.py --integer_shifts --fractional_shifts                   the newest run under runs/
python eval.py --workdir=runs/afc --fractional_shifts                 a certain run
python eval.py --checkpoint=model.pth --config=configs/....py         converted or original weights

What to evaluate on comes from the run's own configuration, or from --config (its sections data and
eval); any field can be overridden: --config.data.path=..., --config.eval.shifts=16.
"""

import json
from pathlib import Path

import jax
from absl import flags
from ml_collections import ConfigDict

from aliasfree_jax import __version__, cli
from aliasfree_jax.checkpoint import ModelCard, load_model, newest_run
from aliasfree_jax.config import validate
from aliasfree_jax.conversion import load_pth
from aliasfree_jax.data import eval_batches, open_source
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.evaluation.report import format_table, shift_report
from aliasfree_jax.processes import is_first
from aliasfree_jax.training.mesh import even_batch_size, own_share

_INTEGER = flags.DEFINE_bool("integer_shifts", False, "measure random shifts by whole pixels")
_FRACTIONAL = flags.DEFINE_bool("fractional_shifts", False, "measure random shifts by fractions of a pixel")
_WORKDIR = flags.DEFINE_string("workdir", "", "run to evaluate; default: the newest one under runs/")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "", "run, checkpoint directory, converted directory or original .pth file"
)
_OUTPUT = flags.DEFINE_string("output", "", "JSON file of the results; default: eval.json in the run")


def checkpoint_path() -> Path:
    """What the flags ask to evaluate."""
    if _WORKDIR.value and _CHECKPOINT.value:
        raise ConfigError("pass either --workdir or --checkpoint, not both.")
    return Path(_CHECKPOINT.value or _WORKDIR.value or newest_run("runs"))


def output_path(checkpoint: Path) -> Path:
    """Where the results go; its directory is made now, so that no evaluation is lost for a typing error."""
    run = cli.run_directory(checkpoint)
    beside = run / "eval.json" if run else checkpoint.with_name(f"{checkpoint.stem}.eval.json")
    output = Path(_OUTPUT.value) if _OUTPUT.value else beside
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the directory of --output={output}: {error}") from error
    return output


def check_fits(config: ConfigDict, card: ModelCard, classes: int) -> None:
    """Raises `ConfigError` if the network cannot classify these images."""
    if len(config.data.mean) != card.channels:
        raise ConfigError(
            f"the network takes {card.channels} channels, but data.mean has {len(config.data.mean)}: "
            "pass the configuration of the network's own data."
        )
    known = card.options.get("num_classes", len(card.class_names))
    if classes != known:
        raise ConfigError(f"the network knows {known} classes, but the data has {classes}.")


def main(config: ConfigDict) -> None:
    """Evaluates, prints the table and writes the JSON file."""
    validate(config)
    path = checkpoint_path()
    output = output_path(path)
    card, module, variables = load_pth(path) if path.is_file() else load_model(path)
    print(f"checkpoint     {path}, step {card.step}\nnetwork        {card.model} {card.options}")
    source = open_source(config.data, train=False)
    check_fits(config, card, len(source.class_names))
    config.data.mean, config.data.std = card.mean, card.std  # belong to the weights, not to the data
    size, count = even_batch_size(config.eval.batch_size), len(source)
    where = " ".join(filter(None, (config.data.source, config.data.name, config.data.path)))
    print(f"data           {where}, {count} images", flush=True)
    results = shift_report(
        module,
        variables,
        eval_batches(source, config.data, batch_size=size, share=own_share()),
        integer=_INTEGER.value,
        fractional=_FRACTIONAL.value,
        shifts=config.eval.shifts,
        max_shift=config.eval.max_shift,
        seed=config.seed,
        batch_count=-(-count // size),
    )
    print("\n" + format_table(results))
    about = {"checkpoint": str(path), "card": card.to_json(), "data": config.data.to_dict()}
    versions = {"aliasfree_jax": __version__, "jax": jax.__version__, "device": jax.devices()[0].device_kind}
    if is_first():
        output.write_text(json.dumps(about | versions | results, indent=2) + "\n")
    print(f"\nresults        {output}")


if __name__ == "__main__":
    cli.run(main, default=lambda: cli.stored_config(checkpoint_path()))

"""Evaluates a network: its accuracy, and how shifts of the image change its predictions.

python eval.py --integer_shifts --fractional_shifts                   the newest run under runs/
python eval.py --workdir=runs/afc --adversarial=integer,half,continuous
python eval.py --checkpoint=model.pth --config=configs/....py --crop_shifts --imagenet_c=DIR
python eval.py --integer_shifts --pictures                            eval.html: maps, curves, an animation
python eval.py --presets=afc_fraction,aps_consistency --paper         the papers' metrics to the letter

What to evaluate on comes from the run's own configuration, or from --config (its sections data and
eval); any field can be overridden: --config.data.path=..., --config.eval.shifts=16. How images are prepared
belongs to the weights, whatever --config has: size, view, crop ratio, interpolation, normalisation, EXIF.
Only an override by name changes it, e.g. --config.data.image_size=256; the table says so.
"""

from functools import partial
from pathlib import Path

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.startup import begin

if __name__ == "__main__":  # before what may be missing is imported
    begin()

from absl import flags
from ml_collections import ConfigDict
from tqdm import tqdm

from aliasfree_jax import cli
from aliasfree_jax.checkpoint import ModelCard, how_chosen, newest_run, weights_sha256
from aliasfree_jax.config import validate
from aliasfree_jax.conversion import load_for_command
from aliasfree_jax.data import Source, open_source
from aliasfree_jax.data.augment import Preprocessing
from aliasfree_jax.data.class_names import fit_classes
from aliasfree_jax.evaluation.comparison import Comparison
from aliasfree_jax.evaluation.evaluator import Results, predictor, shift_report
from aliasfree_jax.evaluation.imagenet_c import corruptions_in, evaluate_corruptions
from aliasfree_jax.evaluation.preparation import check_channels, prepare
from aliasfree_jax.evaluation.report import circumstances, format_markdown, format_table, in_words
from aliasfree_jax.evaluation.report.page import write_report
from aliasfree_jax.evaluation.report.pictured import IMAGE, Evaluated, image_results, run_name
from aliasfree_jax.evaluation.selection import ADVERSARIAL, PRESETS, Selection, check_task, select
from aliasfree_jax.evaluation.stored import results_path
from aliasfree_jax.evaluation.tasks import comparison
from aliasfree_jax.evaluation.trial import Predict
from aliasfree_jax.files import write_json, write_whole
from aliasfree_jax.processes import is_first
from aliasfree_jax.training.curves import figure_class
from aliasfree_jax.training.mesh import own_eval_batches

_RANDOM = {
    "integer": flags.DEFINE_bool("integer_shifts", False, "random circular shifts by whole pixels"),
    "fractional": flags.DEFINE_bool(
        "fractional_shifts", False, "random circular shifts by fractions of a pixel"
    ),
    "zero_filled": flags.DEFINE_bool("zero_filled_shifts", False, "random shifts with zeros at the border"),
    "crop": flags.DEFINE_bool("crop_shifts", False, "random windows of a larger image"),
    "bilinear": flags.DEFINE_bool("bilinear_shifts", False, "random windows at real-valued places, bilinear"),
}
_ADVERSARIAL = flags.DEFINE_list(
    "adversarial", [], f"worst cases over circular shifts: {', '.join(ADVERSARIAL)}"
)
_SPATIAL = flags.DEFINE_bool("spatial_attack", False, "worst case over rotations, translations, scalings")
_IMAGENET_C = flags.DEFINE(
    cli.LocalPath(), "imagenet_c", "", "directory of ImageNet-C: [blur/]<corruption>/<severity>/<class>/"
)
_PRESETS = flags.DEFINE_list("presets", [], f"metrics of the papers: {', '.join(PRESETS)}")
_PAPER = flags.DEFINE_bool("paper", False, "presets to the letter: shared shifts, ranges, names and units")
_PICTURES = flags.DEFINE_bool(
    "pictures", False, "all that pictures need, drawn in one HTML page beside the JSON file"
)
_WORKDIR = flags.DEFINE(
    cli.LocalPath(), "workdir", "", "run to evaluate; default: the newest one under runs/"
)
_CHECKPOINT = flags.DEFINE(
    cli.Weights(), "checkpoint", "", "run, directory, file of weights, hf://owner/name, or a published name"
)
_OUTPUT = flags.DEFINE(
    cli.LocalPath(), "output", "", "JSON file of the results, .md beside it; default: eval.json in the run"
)


def checkpoint() -> str:
    """What the flags ask to evaluate, a reference for `load_pretrained`."""
    if _WORKDIR.value and _CHECKPOINT.value:
        raise ConfigError("pass either --workdir or --checkpoint, not both.")
    return str(_CHECKPOINT.value or _WORKDIR.value or newest_run("runs"))


def output_path(reference: str) -> Path:
    """Where the results go; its directory is made now, so that no evaluation is lost for a typing error."""
    output = Path(_OUTPUT.value) if _OUTPUT.value else results_path(reference)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"cannot make the directory of --output={output}: {error}") from error
    return output


def check_fits(card: ModelCard, source: Source) -> Source:
    """The images with labels that number the network's outputs.

    Raises:
      AliasFreeError: they are no images, or labels, for the network.
    """
    check_channels(source, card)
    accept = cli.ACCEPT_CLASS_NAMES.value
    return fit_classes(source, card.outputs(), tell=print, subset=True, accept=accept)


def measured(
    config: ConfigDict, predict: Predict, source: Source, chosen: Selection, compare: Comparison
) -> Results:
    """Results of all measurements: a pass over the images in each of their views."""
    views = [(view.data(config), measurements) for view, measurements in chosen.views.items()]
    results: Results = {}
    for data, measurements in views:
        batches = own_eval_batches(source, data, config.eval.batch_size)
        # The first pass is that of the usual view, whose accuracy is the network's.
        how = {"compare": compare, "images": len(source), "devices": config.train.devices}
        report = shift_report(predict, batches, measurements, **how)
        results = report | results
    published = chosen.published(results)
    return results | ({"published": published} if published else {})


def corrupted(config: ConfigDict, predict: Predict, clean: Source) -> Results:
    """ImageNet-C, every severity with the random circular shifts that are asked for."""
    kinds = [kind for kind in ("integer", "fractional") if _RANDOM[kind].value]
    chosen = select(config, Preprocessing.from_config(config.data, config.task).input_size, random=kinds)
    (measurements,) = chosen.views.values()  # of the usual view
    data = ConfigDict(config.data)
    data.eval_crop_ratio = 1.0  # its images have been cropped already

    def measure(source: Source) -> Results:
        batches = own_eval_batches(source, data, config.eval.batch_size)
        devices = config.train.devices
        return shift_report(
            predict, batches, measurements, images=len(source), devices=devices, progress=False
        )

    bar = partial(tqdm, desc="ImageNet-C", unit=" sets", disable=not is_first())
    how = {"accept_class_names": cli.ACCEPT_CLASS_NAMES.value, "note": tqdm.write}
    return evaluate_corruptions(_IMAGENET_C.value, clean, measure, bar, **how)


def write(output: Path, results: Results) -> list[Path]:
    """Writes the results, their tables and, if asked for, the page with pictures; returns the files."""
    written = [output, output.with_suffix(".md")]
    write_json(output, results)
    write_whole(written[1], f"# {results['checkpoint']}\n\n{format_markdown(results)}\n")
    if _PICTURES.value:
        written.append(output.with_suffix(".html"))
        write_report([Evaluated(run_name(output), results)], written[-1])
    return written


def main(config: ConfigDict) -> None:
    """Evaluates, prints the table and writes the JSON file."""
    validate(config)
    if others := sorted(field for field in cli.overridden() if field.startswith("model.")):
        raise ConfigError(
            f"{', '.join(others)}: the network that is evaluated is the checkpoint's, as it was trained. "
            "Another one can start from its weights: python train.py --config.init_from=CHECKPOINT"
        )
    reference = checkpoint()
    output = output_path(reference)
    card, module, variables = load_for_command(reference, "--checkpoint")
    config.task = card.task
    print(f"checkpoint     {reference}, step {card.step}\nnetwork        {card.in_words()}")
    preparation = prepare(config.data, card, cli.overridden())
    choice = how_chosen(Path(reference))
    if choice:
        print(f"chosen as      {choice}")
    source = check_fits(card, open_source(config.data, train=False, task=card.task))
    chosen = select(
        config,
        Preprocessing.from_config(config.data, config.task).input_size,
        random=[kind for kind, flag in _RANDOM.items() if flag.value],
        adversarial=_ADVERSARIAL.value,
        spatial=_SPATIAL.value,
        pictures=_PICTURES.value,
        presets=_PRESETS.value,
        paper=_PAPER.value,
        overridden=cli.overridden(),
    )
    preparation["presets"] = dict(chosen.resized)
    # Before anything is measured:
    if _IMAGENET_C.value:
        check_task(card.task, ["--imagenet_c"])
        corruptions_in(_IMAGENET_C.value)
    if _PICTURES.value:
        figure_class()
    where = " ".join(filter(None, (config.data.source, config.data.name, config.data.path)))
    print(f"data           {where}, {len(source)} images\n{in_words(preparation)}", flush=True)
    predict = predictor(module, variables, config.train.devices)
    # First, as it fails soonest.
    pictured = image_results(module, variables, predict, source, config) if _PICTURES.value else None
    results = measured(config, predict, source, chosen, comparison(config, source.class_names))
    if _IMAGENET_C.value:
        results["imagenet_c"] = corrupted(config, predict, source)
    results["preparation"] = preparation
    print("\n" + format_table(results))
    about = {"checkpoint": reference, "card": card.to_json(), "seed": config.seed}
    about |= {"weights": weights_sha256(variables)}
    about |= {"chosen_as": choice} if choice else {}
    about |= {section: config[section].to_dict() for section in ("data", "eval")}
    if is_first():
        written = write(output, about | circumstances() | results | ({IMAGE: pictured} if pictured else {}))
        print(f"\nresults        {', '.join(map(str, written))}")


if __name__ == "__main__":
    cli.run(main, default=lambda: cli.stored_config(checkpoint()))

"""Evaluates a network: its accuracy, and how shifts of the image change its predictions.

python eval.py --integer_shifts --fractional_shifts                   the newest run under runs/
python eval.py --workdir=runs/afc --adversarial=integer,half,continuous
python eval.py --checkpoint=model.pth --config=configs/....py --crop_shifts --imagenet_c=DIR
python eval.py --checkpoint=resnet20_cifar --checkpoint=resnet20_cifar_aps --config=... --integer_shifts
python eval.py --integer_shifts --pictures                            eval.html: maps, curves, an animation
python eval.py --presets=afc_fraction,aps_consistency --paper         the papers' metrics, exactly as there

The data and the settings come from the run's configuration, or from the sections data and eval of --config.
Any field can be overridden: --config.data.path=..., --config.eval.shifts=16. The preparation of images
belongs to the weights, not to --config: size, view, crop ratio, interpolation, normalisation, EXIF. Only an
override of the field changes it, e.g. --config.data.image_size=256. The output then lists the override.
"""

from functools import partial
from pathlib import Path

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.startup import begin

if __name__ == "__main__":  # before imports that may fail
    begin()

from absl import flags
from ml_collections import ConfigDict
from tqdm import tqdm

from aliasfree_jax import cli
from aliasfree_jax.checkpoint import ModelCard, how_chosen, newest_run, weights_sha256
from aliasfree_jax.conversion import load_for_command
from aliasfree_jax.conversion.pretrained import Loaded
from aliasfree_jax.data import Source, open_source
from aliasfree_jax.data.augment import Preprocessing
from aliasfree_jax.data.class_names import fit_classes
from aliasfree_jax.data.sources import limit
from aliasfree_jax.evaluation.comparison import Comparison
from aliasfree_jax.evaluation.evaluator import Results, predictor, shift_report
from aliasfree_jax.evaluation.imagenet_c import corruptions_in, evaluate_corruptions
from aliasfree_jax.evaluation.preparation import check_channels, prepare
from aliasfree_jax.evaluation.report import (
    align,
    circumstances,
    compared,
    format_markdown,
    format_table,
    in_words,
)
from aliasfree_jax.evaluation.report.page import write_report
from aliasfree_jax.evaluation.report.pictured import IMAGE, Evaluated, image_results, run_name
from aliasfree_jax.evaluation.selection import ADVERSARIAL, PRESETS, Selection, check_task, select
from aliasfree_jax.evaluation.stored import results_path
from aliasfree_jax.evaluation.tasks import comparison
from aliasfree_jax.evaluation.trial import Predict
from aliasfree_jax.files import output_file, write_json, write_whole
from aliasfree_jax.processes import is_first
from aliasfree_jax.training.curves import figure_class
from aliasfree_jax.training.mesh import own_eval_batches
from aliasfree_jax.validation import validate

_RANDOM = {
    "integer": flags.DEFINE_bool("integer_shifts", False, "random circular shifts by whole pixels"),
    "fractional": flags.DEFINE_bool(
        "fractional_shifts", False, "random circular shifts by fractions of a pixel"
    ),
    "zero_filled": flags.DEFINE_bool("zero_filled_shifts", False, "random shifts with zeros at the border"),
    "crop": flags.DEFINE_bool("crop_shifts", False, "random windows of a larger image"),
    "bilinear": flags.DEFINE_bool(
        "bilinear_shifts", False, "random windows at real-valued positions, bilinear interpolation"
    ),
}
_ADVERSARIAL = flags.DEFINE_list(
    "adversarial", [], f"worst cases over circular shifts: {', '.join(ADVERSARIAL)}"
)
_SPATIAL = flags.DEFINE_bool("spatial_attack", False, "worst case over rotations, translations and scalings")
_IMAGENET_C = flags.DEFINE(
    cli.LocalPath(), "imagenet_c", "", "directory of ImageNet-C: [blur/]<corruption>/<severity>/<class>/"
)
_PRESETS = flags.DEFINE_list("presets", [], f"metrics of the papers: {', '.join(PRESETS)}")
_PAPER = flags.DEFINE_bool(
    "paper", False, "presets exactly as in the papers' programs: their shifts, ranges, names and units"
)
_PICTURES = flags.DEFINE_bool(
    "pictures", False, "measure the data of the pictures, and draw them in an HTML page next to the JSON file"
)
_WORKDIR = flags.DEFINE(
    cli.LocalPath(), "workdir", "", "run to evaluate; default: the newest one under runs/"
)
_CHECKPOINTS = flags.DEFINE_multi(
    cli.Weights(),
    flags.ArgumentSerializer(),
    "checkpoint",
    [],
    "run, directory, file of weights, hf://owner/name, or a name of weights; several flags: several networks",
)
_OUTPUT = flags.DEFINE(
    cli.LocalPath(),
    "output",
    "",
    "JSON file for the results, or a directory for them (an existing one, or for several checkpoints); also "
    "writes the same as .md; default: eval.json in the run",
)


def checkpoints() -> list[str]:
    """The checkpoints to evaluate: references for `load_pretrained`."""
    if _WORKDIR.value and _CHECKPOINTS.value:
        raise ConfigError("pass either --workdir or --checkpoint, not both.")
    # Flags may be parsed twice, so a checkpoint may occur twice in the list.
    return list(dict.fromkeys(_CHECKPOINTS.value)) or [str(_WORKDIR.value or newest_run("runs"))]


def output_paths(references: list[str]) -> list[Path]:
    """Output files. Their directories are made now, so that a typing error loses no finished evaluation."""
    outputs = [results_path(reference) for reference in references]
    if _OUTPUT.value:
        place = Path(_OUTPUT.value)
        directory = len(references) > 1 or place.is_dir()
        outputs = [place / f"{run_name(path)}.eval.json" for path in outputs] if directory else [place]
    if len(set(outputs)) < len(outputs):
        raise ConfigError(
            f"several checkpoints would write to one file: {', '.join(map(str, outputs))}. Leave "
            "out --output."
        )
    return [output_file(output, "the file of the results", (".md", ".html")) for output in outputs]


def check_fits(card: ModelCard, source: Source) -> Source:
    """Maps the labels of the images to the network's outputs.

    Raises:
      AliasFreeError: The images or labels do not fit the network.
    """
    check_channels(source, card)
    accept = cli.ACCEPT_CLASS_NAMES.value
    return fit_classes(source, card.outputs(), tell=print, subset=True, accept=accept)


def measured(
    config: ConfigDict, predict: Predict, source: Source, chosen: Selection, compare: Comparison
) -> Results:
    """Results of all measurements, with one pass over the images per view."""
    views = [(view.data(config), measurements) for view, measurements in chosen.views.items()]
    results: Results = {}
    for data, measurements in views:
        batches = own_eval_batches(source, data, config.eval.batch_size)
        # The first pass uses the network's usual view, so its accuracy is reported.
        how = {"compare": compare, "images": len(source), "devices": config.train.devices}
        report = shift_report(predict, batches, measurements, **how)
        results = report | results
    published = chosen.published(results)
    return results | ({"published": published} if published else {})


def corrupted(config: ConfigDict, predict: Predict, clean: Source) -> Results:
    """Results of ImageNet-C; every severity is measured with the selected random circular shifts."""
    kinds = [kind for kind in ("integer", "fractional") if _RANDOM[kind].value]
    chosen = select(config, Preprocessing.from_config(config.data, config.task).input_size, random=kinds)
    (measurements,) = chosen.views.values()  # only the usual view
    data = ConfigDict(config.data)
    data.eval_crop_ratio = 1.0  # the images of ImageNet-C are already cropped

    def measure(source: Source) -> Results:
        source = limit(source, config.data.eval_limit)
        batches = own_eval_batches(source, data, config.eval.batch_size)
        devices = config.train.devices
        return shift_report(
            predict, batches, measurements, images=len(source), devices=devices, progress=False
        )

    bar = partial(tqdm, desc="ImageNet-C", unit=" sets", disable=not is_first())
    how = {"accept_class_names": cli.ACCEPT_CLASS_NAMES.value, "note": tqdm.write}
    return evaluate_corruptions(_IMAGENET_C.value, clean, measure, bar, **how)


def write(output: Path, results: Results) -> list[Path]:
    """Writes the results, their tables and, with --pictures, the page; returns the written files."""
    written = [output, output.with_suffix(".md")]
    write_json(output, results)
    write_whole(written[1], f"# {results['checkpoint']}\n\n{format_markdown(results)}\n")
    if _PICTURES.value:
        written.append(output.with_suffix(".html"))
        write_report([Evaluated(run_name(output), results)], written[-1])
    return written


def evaluated(reference: str, loaded: Loaded, config: ConfigDict, output: Path) -> Results:
    """Evaluates a checkpoint, prints its table, writes its JSON file and returns the results."""
    card, module, variables = loaded
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
    # Report missing corruptions and packages before measuring.
    if _IMAGENET_C.value:
        check_task(card.task, ["--imagenet_c"])
        corruptions_in(_IMAGENET_C.value)
    if _PICTURES.value:
        figure_class()
    where = " ".join(filter(None, (config.data.source, config.data.name, config.data.path)))
    print(f"data           {where}, {len(source)} images\n{in_words(preparation)}", flush=True)
    predict = predictor(module, variables, config.train.devices)
    # Pictures are measured first, because they are the most likely to fail.
    pictured = image_results(module, variables, predict, source, config) if _PICTURES.value else None
    results = measured(config, predict, source, chosen, comparison(config, source.class_names))
    results["preparation"] = preparation
    about = {"checkpoint": reference, "card": card.to_json(), "seed": config.seed}
    about |= {"weights": weights_sha256(variables)}
    about |= {"chosen_as": choice} if choice else {}
    about |= {section: config[section].to_dict() for section in ("data", "eval")}
    about |= {IMAGE: pictured} if pictured else {}
    if _IMAGENET_C.value:
        if is_first():  # an unreadable image in the last of 95 sets must not lose these results
            write(output, about | circumstances() | results)
        results["imagenet_c"] = corrupted(config, predict, source)
    print("\n" + format_table(results))
    if is_first():
        written = write(output, about | circumstances() | results)
        print(f"\nresults        {', '.join(map(str, written))}")
    return results


def main(config: ConfigDict) -> None:
    """Evaluates all checkpoints and compares several of them in a table."""
    validate(config)
    if others := sorted(field for field in cli.overridden() if field.startswith("model.")):
        raise ConfigError(
            f"{', '.join(others)}: the network of a checkpoint cannot be changed by overrides. To train "
            "another network from its weights: python train.py --config.init_from=CHECKPOINT"
        )
    references = checkpoints()
    outputs = output_paths(references)
    networks = [load_for_command(reference, "--checkpoint") for reference in references]
    results = {
        reference: evaluated(reference, loaded, config.copy_and_resolve_references(), output)
        for reference, loaded, output in zip(references, networks, outputs, strict=True)
    }
    if len(results) > 1:
        print("\n" + "\n".join(align(compared(results))))


if __name__ == "__main__":
    cli.run(main, default=lambda: cli.stored_config(checkpoints()[0]))

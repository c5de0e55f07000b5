"""From the configuration and the names on a command line to what is measured, and on which images."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ml_collections import ConfigDict

from aliasfree_jax.config import RESULTS
from aliasfree_jax.data.augment import Preprocessing
from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.evaluation import measurements as make
from aliasfree_jax.evaluation.evaluator import Batch, Measurement, evaluate
from aliasfree_jax.evaluation.preparation import View
from aliasfree_jax.evaluation.presets import Preset, PresetConfig, consistency, maps, worst_cases
from aliasfree_jax.evaluation.shifting import Fill
from aliasfree_jax.evaluation.tasks import comparison
from aliasfree_jax.evaluation.trial import Predict

T = TypeVar("T")
# Random shifts by their names, from the section eval, the side of the input, and what all of them take.
RANDOM: dict[str, Callable[[ConfigDict, int, Mapping[str, int]], Measurement]] = {
    "integer": lambda e, side, draw: make.integer_shifts(side, max_shift=e.max_shift, **draw),
    "fractional": lambda e, side, draw: make.fractional_shifts(side, max_shift=e.max_shift, **draw),
    "zero_filled": lambda e, side, draw: make.zero_filled_shifts(
        max_shift=make.largest_shift(e.crop_margin, side), **draw
    ),
    "crop": lambda e, side, draw: make.crop_shifts(margin=e.crop_margin, **draw),
    "bilinear": lambda e, side, draw: make.bilinear_shifts(margin=e.crop_margin, **draw),
}
# Worst cases by their names, from the section eval and the side of the input.
ADVERSARIAL: dict[str, Callable[[ConfigDict, int], Measurement]] = {
    "integer": lambda e, side: make.adversarial_integer(side, e.worst_case_radius),
    "half": lambda e, side: make.adversarial_half(side, e.worst_case_radius),
    "fraction": lambda e, side: make.adversarial_fraction(e.finest_fraction),
    "continuous": lambda e, side: make.adversarial_continuous(min(e.worst_case_radius, side / 2)),
}
# The presets of each task, and what can be asked besides of networks whose outputs are maps.
PRESETS_OF = {
    "classification": consistency.PRESETS | worst_cases.PRESETS,
    "segmentation": maps.OF_SEGMENTATION,
    "regression": maps.OF_REGRESSION,
}
PRESETS = {name: make for of_task in PRESETS_OF.values() for name, make in of_task.items()}
OF_MAPS = (
    *(f"--{kind}_shifts" for kind in ("integer", "fractional", "zero_filled", "crop")),
    *(f"--adversarial={kind}" for kind in ("integer", "half", "fraction")),
    "--pictures",
)


def _known(what: str, name: str, table: Mapping[str, T]) -> T:
    if name not in table:
        raise ConfigError(unknown(what, name, table))
    return table[name]


def preset(name: str, config: PresetConfig, *, paper: bool = False) -> Preset:
    """The metric of a paper, by its name in `PRESETS`.

    Raises:
      ConfigError: there is none.
    """
    found = _known("preset", name, PRESETS)(config, paper)
    return found if paper else Preset(found.measurements)


def check_task(task: str, asked: Iterable[str]) -> None:
    """Raises `ConfigError` if a network of this task cannot be asked something.

    Args:
      task: of the network.
      asked: as on the command line: "--spatial_attack", "--presets=aps_consistency".
    """
    own = [f"--presets={name}" for name in PRESETS_OF[task]]
    of_others = {f"--presets={name}" for name in PRESETS}.difference(own)
    possible = [*OF_MAPS, *own]
    dense = task != "classification"
    refused = [name for name in asked if name in of_others or (dense and name not in possible)]
    if refused:
        instead = ", ".join(possible if dense else own)
        raise ConfigError(
            f"{', '.join(refused)}: not for a network of {task}. What can be measured: {instead}."
        )


@dataclass(frozen=True)
class Selection:
    """What one run measures.

    Attributes:
      views: the measurements on each; the first is resized as is usual for the network, if only to have
        its accuracy.
      presets: by name, for their published figures; their measurements are among the others.
      resized: how the images of presets are resized that take another way than the network's.
    """

    views: Mapping[View, list[Measurement]]
    presets: Mapping[str, Preset]
    resized: Mapping[str, str]

    def published(self, results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        """The presets' figures in the names and units of the papers' programs."""
        figures = {name: chosen.published(results) for name, chosen in self.presets.items()}
        return {name: found for name, found in figures.items() if found}


def black(mean: Sequence[float], std: Sequence[float]) -> Fill:
    """What a black pixel is after normalisation."""
    return tuple(-m / s for m, s in zip(mean, std, strict=True))


def random_shifts(kind: str, config: ConfigDict, side: int) -> Measurement:
    """Random shifts of one of the kinds in `RANDOM`, as `config.eval` says, for inputs of this side."""
    draw = {"shifts": config.eval.shifts, "seed": config.seed}
    return _known("kind of random shifts", kind, RANDOM)(config.eval, side, draw)


def select(
    config: ConfigDict,
    side: int,
    *,
    random: Sequence[str] = (),
    adversarial: Sequence[str] = (),
    spatial: bool = False,
    pictures: bool = False,
    presets: Sequence[str] = (),
    paper: bool = False,
    overridden: Collection[str] = (),
) -> Selection:
    """The measurements of these names, as `config.eval` says.

    Args:
      config: the whole configuration; its task, seed, section eval, and the normalisation in data.
      side: of the network's input.
      random: of `RANDOM`.
      adversarial: of `ADVERSARIAL`.
      spatial: measure the spatial attack.
      pictures: measure what the pictures of the shift plane need.
      presets: names of `PRESETS`.
      paper: presets as the papers' programs compute them, of images resized as there.
      overridden: fields that the user named; "data.interpolation" among them holds for presets too.

    Raises:
      ConfigError: an unknown name, two that measure the same, or one that is not for the task.
    """
    dense = config.task != "classification"
    chosen = [random_shifts(kind, config, side) for kind in random]
    chosen += [_known("--adversarial", kind, ADVERSARIAL)(config.eval, side) for kind in adversarial]
    asked = [f"--{kind}_shifts" for kind in random] + [f"--adversarial={kind}" for kind in adversarial]
    asked += ["--spatial_attack"] * spatial + [f"--presets={name}" for name in presets if name in PRESETS]
    check_task(config.task, asked)
    if dense:
        chosen = [replace(m, reductions=()) for m in chosen]  # no image is wrong as a whole
    attack, outside = config.eval.attack, black(config.data.mean, config.data.std)
    if spatial:
        space = {"rotation": attack.rotation, "enlargement": attack.enlargement}
        chosen.append(make.spatial_attack(outside, translation=attack.translation * side, **space))
    if pictures and not dense:
        chosen.append(make.shift_plane(side, config.eval.worst_case_radius))
    of_presets = PresetConfig(
        side,
        config.seed,
        config.eval.crop_margin,
        config.eval.finest_fraction,
        config.eval.worst_case_radius,
        attack.rotation,
        outside,
    )
    by_name = {name: preset(name, of_presets, paper=paper) for name in presets}
    own, resized = config.data.interpolation, {}
    plain, wide = View(0, own), View(config.eval.crop_margin, own)
    views: dict[View, list[Measurement]] = {
        plain: [m for m in chosen if not m.shifting.margin],
        wide: [m for m in chosen if m.shifting.margin],
    }
    for name, found in by_name.items():
        how = own if "data.interpolation" in overridden else found.interpolation or own
        if how != own or found.enlarged:
            resized[name] = how + (", enlarged" if found.enlarged else "")
        # The rolls of LPS's metric are of the larger images.
        view = View(max(m.shifting.margin for m in found.measurements), how, found.enlarged)
        target = views.setdefault(view, [])
        target += [m for m in found.measurements if m.name not in {other.name for other in target}]
    used = {view: found for view, found in views.items() if found or (view == plain and not views[wide])}
    return Selection(used, by_name, resized)


def evaluation_while_training(config: ConfigDict) -> Callable[[Predict, Iterable[Batch]], dict[str, float]]:
    """The function (predict, batches) -> results that `training.loop.run` takes as `evaluate`.

    The results are flat: "images" and those that `config.RESULTS` names for the task, of the shifts for each
    kind in `eval.during`, with `eval.shifts` random shifts an image, the same ones every time.

    Raises:
      ConfigError: the configuration's own fault.
    """
    kinds = tuple(config.eval.during)
    side = Preprocessing.from_config(config.data, config.task).input_size
    measurements, compare = [random_shifts(kind, config, side) for kind in kinds], comparison(config)
    metrics, of_shifts = RESULTS[config.task]
    figure = of_shifts.removeprefix("{}_")

    def results(predict: Predict, batches: Iterable[Batch]) -> dict[str, float]:
        found = evaluate(predict, batches, measurements, compare=compare)
        flat = {of_shifts.format(kind): found[kind][figure] for kind in kinds}
        return {name: found[name] for name in ("images", *metrics)} | flat

    return results

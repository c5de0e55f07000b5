"""Selects measurements by the configuration and the command line, and the images for each of them."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ml_collections import ConfigDict

from aliasfree_jax.config import RESULTS
from aliasfree_jax.data.augment import Preprocessing
from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.evaluation import measurements as make
from aliasfree_jax.evaluation.adversarial import (
    adversarial_continuous,
    adversarial_fraction,
    adversarial_half,
    adversarial_integer,
    spatial_attack,
)
from aliasfree_jax.evaluation.evaluator import Batch, Measurement, evaluate
from aliasfree_jax.evaluation.preparation import View
from aliasfree_jax.evaluation.presets import Preset, PresetConfig, consistency, maps, worst_cases
from aliasfree_jax.evaluation.shifting import Fill
from aliasfree_jax.evaluation.tasks import comparison
from aliasfree_jax.evaluation.trial import Predict

T = TypeVar("T")
# Random shifts by name. Arguments: section eval, side of the input, arguments shared by all.
RANDOM: dict[str, Callable[[ConfigDict, int, Mapping[str, int]], Measurement]] = {
    "integer": lambda e, side, draw: make.integer_shifts(side, max_shift=e.max_shift, **draw),
    "fractional": lambda e, side, draw: make.fractional_shifts(side, max_shift=e.max_shift, **draw),
    "zero_filled": lambda e, side, draw: make.zero_filled_shifts(
        max_shift=make.largest_shift(e.crop_margin, side), **draw
    ),
    "crop": lambda e, side, draw: make.crop_shifts(margin=e.crop_margin, **draw),
    "bilinear": lambda e, side, draw: make.bilinear_shifts(margin=e.crop_margin, **draw),
}
# Worst cases by name. Arguments: section eval, side of the input.
ADVERSARIAL: dict[str, Callable[[ConfigDict, int], Measurement]] = {
    "integer": lambda e, side: adversarial_integer(side, e.worst_case_radius),
    "half": lambda e, side: adversarial_half(side, e.worst_case_radius),
    "fraction": lambda e, side: adversarial_fraction(e.finest_fraction),
    "continuous": lambda e, side: adversarial_continuous(min(e.worst_case_radius, side / 2)),
}
# The presets of each task, and the other flags that support networks whose outputs are maps.
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
    """Returns a metric of a paper.

    Args:
      name: A key of `PRESETS`.
      config: Settings of the preset.
      paper: True: exactly as in the paper's program. False: the improved variant, see `presets`.

    Raises:
      ConfigError: The name is unknown.
    """
    found = _known("preset", name, PRESETS)(config, paper)
    return found if paper else Preset(found.measurements)


def check_task(task: str, asked: Iterable[str]) -> None:
    """Raises `ConfigError` if a measurement does not support the network's task.

    Args:
      task: Task of the network.
      asked: Measurements as on the command line: "--spatial_attack", "--presets=aps_consistency".
    """
    own = [f"--presets={name}" for name in PRESETS_OF[task]]
    of_others = {f"--presets={name}" for name in PRESETS}.difference(own)
    possible = [*OF_MAPS, *own]
    dense = task != "classification"
    refused = [name for name in asked if name in of_others or (dense and name not in possible)]
    if refused:
        instead = ", ".join(possible if dense else own)
        raise ConfigError(f"{', '.join(refused)}: not available for task = {task!r}. Available: {instead}.")


@dataclass(frozen=True)
class Selection:
    """The measurements of one run.

    Attributes:
      views: The measurements of each view of the images. The first view has the network's usual resizing,
        because its accuracy is reported.
      presets: The presets by name. `views` contains their measurements.
      resized: The resizing of presets that do not resize like the network.
    """

    views: Mapping[View, list[Measurement]]
    presets: Mapping[str, Preset]
    resized: Mapping[str, str]

    def published(self, results: Mapping[str, Any]) -> dict[str, dict[str, float]]:
        """Figures of the presets, with the names and units of the papers' programs."""
        figures = {name: chosen.published(results) for name, chosen in self.presets.items()}
        return {name: found for name, found in figures.items() if found}


def black(mean: Sequence[float], std: Sequence[float]) -> Fill:
    """Value of a black pixel after normalisation."""
    return tuple(-m / s for m, s in zip(mean, std, strict=True))


def random_shifts(kind: str, config: ConfigDict, side: int) -> Measurement:
    """Returns a measurement with random shifts.

    Args:
      kind: A key of `RANDOM`.
      config: The whole configuration; its seed and section eval are used.
      side: Side of the network's input in pixels.

    Raises:
      ConfigError: The kind is unknown.
    """
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
    """Selects measurements by name, with the settings of `config.eval`.

    Args:
      config: The whole configuration. Its task, seed, section eval, and the normalisation in data are used.
      side: Side of the network's input in pixels.
      random: Keys of `RANDOM`.
      adversarial: Keys of `ADVERSARIAL`.
      spatial: Whether to measure the spatial attack.
      pictures: Whether to measure the values of the shift plane, for pictures.
      presets: Keys of `PRESETS`.
      paper: Whether to compute presets exactly as the papers' programs, with their resizing.
      overridden: Fields set by the user. If "data.interpolation" is one, presets use it too.

    Returns:
      The measurements, grouped by the images that they need.

    Raises:
      ConfigError: A name is unknown, or a measurement does not support the task.
    """
    dense = config.task != "classification"
    chosen = [random_shifts(kind, config, side) for kind in random]
    chosen += [_known("--adversarial", kind, ADVERSARIAL)(config.eval, side) for kind in adversarial]
    asked = [f"--{kind}_shifts" for kind in random] + [f"--adversarial={kind}" for kind in adversarial]
    asked += ["--spatial_attack"] * spatial + [f"--presets={name}" for name in presets if name in PRESETS]
    check_task(config.task, asked)
    if dense:
        # Worst cases need correct or wrong images; maps are only partly correct.
        chosen = [replace(m, reductions=()) for m in chosen]
    attack, outside = config.eval.attack, black(config.data.mean, config.data.std)
    if spatial:
        space = {"rotation": attack.rotation, "enlargement": attack.enlargement}
        chosen.append(spatial_attack(outside, translation=attack.translation * side, **space))
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
        # LPS's metric rolls the larger images.
        view = View(max(m.shifting.margin for m in found.measurements), how, found.enlarged)
        target = views.setdefault(view, [])
        target += [m for m in found.measurements if m.name not in {other.name for other in target}]
    used = {view: found for view, found in views.items() if found or (view == plain and not views[wide])}
    return Selection(used, by_name, resized)


def evaluation_while_training(config: ConfigDict) -> Callable[[Predict, Iterable[Batch]], dict[str, float]]:
    """Makes the function (predict, batches) -> results for the argument `evaluate` of `training.loop.run`.

    The results are a flat dictionary: "images", and the results that `config.RESULTS` lists for the task.
    Each kind of shifts in `eval.during` uses `eval.shifts` random shifts per image, the same in every
    evaluation.

    Raises:
      ConfigError: The configuration is wrong.
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

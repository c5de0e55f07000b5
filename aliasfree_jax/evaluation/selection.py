"""From the configuration and the names on a command line to what is measured, and on which images."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from ml_collections import ConfigDict

from aliasfree_jax.checkpoint import ModelCard
from aliasfree_jax.data.augment import Preprocessing
from aliasfree_jax.data.sources import Source
from aliasfree_jax.data.views import described
from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.evaluation import measurements as make
from aliasfree_jax.evaluation.evaluator import Batch, Measurement, evaluate
from aliasfree_jax.evaluation.presets import Preset, PresetConfig, consistency, worst_cases
from aliasfree_jax.evaluation.shifting import Fill
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
PRESETS = consistency.PRESETS | worst_cases.PRESETS


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


class View(NamedTuple):
    """How images are prepared that measurements share.

    Attributes:
      margin: pixels by which they are wider on each side than the network's input.
      interpolation: as in `config.data`.
      enlarged: with a margin: the image is enlarged for it; else more of it is seen, at the usual scale.
    """

    margin: int
    interpolation: str
    enlarged: bool = False

    def data(self, config: ConfigDict) -> ConfigDict:
        """The section data of these images.

        Raises:
          ConfigError: images resized as usual do not reach so far, or inputs have a border of zeros.
        """
        data = ConfigDict(config.data)
        data.interpolation = self.interpolation
        if not self.margin:
            return data
        if data.zero_pad:
            raise ConfigError(
                f"windows are cut from images, not from inputs with a border of zeros (data.zero_pad = "
                f"{data.zero_pad}): measure circular or zero-filled shifts, or set data.zero_pad = 0."
            )
        side, wanted = data.image_size, data.image_size + 2 * self.margin
        shorter = wanted if self.enlarged else int(side / data.eval_crop_ratio)
        if wanted > shorter:
            raise ConfigError(
                f"windows need images of {wanted} pixels (input {side}, eval.crop_margin = {self.margin} "
                f"each way), but they are resized to {shorter} (data.eval_crop_ratio = "
                f"{data.eval_crop_ratio:g}): the margin is at most {(shorter - side) // 2} then. Or use "
                "--zero_filled_shifts."
            )
        # Half a pixel more than the shorter side, whose fraction is cut off: rounding cannot lose a pixel.
        data.image_size, data.eval_crop_ratio = wanted, wanted / (shorter + 0.5)
        data.eval_view = "crop"  # also where the usual view squeezes the image: that has no surroundings
        return data


def prepare(data: ConfigDict, card: ModelCard, overridden: Collection[str] = ()) -> dict[str, Any]:
    """Sets the fields of `data` that belong to the weights, and tells what came from where.

    Args:
      data: the section `config.data`; changed in place.
      card: of the network.
      overridden: fields that stay as they are, e.g. "data.image_size": those that the user named.

    Returns:
      {"images": the preparation in words, "overridden": {field: {"used": ..., "network": ...}}}, for
      `results["preparation"]`.

    Raises:
      ConfigError: another number of means or deviations than the network has channels.
    """
    network = card.preparation()
    named = [field for field in network if f"data.{field}" in overridden]
    data.update({field: value for field, value in network.items() if field not in named})
    for field in ("mean", "std"):
        if len(data[field]) != card.channels:
            raise ConfigError(
                f"data.{field} has {len(data[field])} numbers, but the network takes {card.channels} "
                "channels: give one number a channel, or leave the field out for the network's."
            )
    found = {field: {"used": data[field], "network": network[field]} for field in named}
    return {"images": described(data), "overridden": found}


def check_channels(source: Source, card: ModelCard) -> None:
    """Raises `ConfigError` if the network takes images of another number of channels."""
    image = source[0].image
    channels = 3 if isinstance(image, bytes) else image.shape[-1]  # decoded files are RGB
    if channels != card.channels:
        raise ConfigError(
            f"the network takes {card.channels} channels, but the images have {channels}: evaluate it on "
            "images like those that it was trained on (data.source, data.path)."
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
      config: the whole configuration; its seed, section eval, and the normalisation in data.
      side: of the network's input.
      random: of `RANDOM`.
      adversarial: of `ADVERSARIAL`.
      spatial: measure the spatial attack.
      pictures: measure what the pictures of the shift plane need.
      presets: names of `PRESETS`.
      paper: presets as the papers' programs compute them, of images resized as there.
      overridden: fields that the user named; "data.interpolation" among them holds for presets too.

    Raises:
      ConfigError: an unknown name, or two that measure the same.
    """
    chosen = [random_shifts(kind, config, side) for kind in random]
    chosen += [_known("--adversarial", kind, ADVERSARIAL)(config.eval, side) for kind in adversarial]
    attack, outside = config.eval.attack, black(config.data.mean, config.data.std)
    if spatial:
        space = {"rotation": attack.rotation, "enlargement": attack.enlargement}
        chosen.append(make.spatial_attack(outside, translation=attack.translation * side, **space))
    if pictures:
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

    The results are flat: "images", "accuracy", and "<kind>_consistency" for each kind in `eval.during`, with
    `eval.shifts` random shifts an image, the same ones every time.

    Raises:
      ConfigError: the configuration's own fault.
    """
    kinds = tuple(config.eval.during)
    side = Preprocessing.from_config(config.data).input_size
    measurements = [random_shifts(kind, config, side) for kind in kinds]

    def results(predict: Predict, batches: Iterable[Batch]) -> dict[str, float]:
        found = evaluate(predict, batches, measurements)
        flat = {f"{kind}_consistency": found[kind]["consistency"] for kind in kinds}
        return {"images": found["images"], "accuracy": found["accuracy"]} | flat

    return results

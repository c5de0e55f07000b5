"""From names, as a command line has them, to measurements; and the larger images that some of them need."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.evaluation import measurements as make
from aliasfree_jax.evaluation.evaluator import Measurement
from aliasfree_jax.evaluation.presets import Preset, Setting, preset
from aliasfree_jax.evaluation.shifting import Fill
from aliasfree_jax.evaluation.spatial import Space

RANDOM = ("integer", "fractional", "zero_filled", "crop", "bilinear")
ADVERSARIAL = ("integer", "half", "fraction", "continuous")


class View(NamedTuple):
    """How images are prepared that measurements share.

    Attributes:
      wide: larger by the margin on each side; else of the network's input size.
      interpolation: as in `config.data`.
    """

    wide: bool
    interpolation: str

    def data(self, config: ConfigDict) -> ConfigDict:
        """The section data of these images; raises as `wide_view`."""
        data = ConfigDict(config.data)
        data.interpolation = self.interpolation
        return wide_view(data, data.image_size, config.eval.crop_margin) if self.wide else data


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
    settings = {"shifts": config.eval.shifts, "seed": config.seed}
    match kind:
        case "integer":
            return make.integer_shifts(side, max_shift=config.eval.max_shift, **settings)
        case "fractional":
            return make.fractional_shifts(side, max_shift=config.eval.max_shift, **settings)
        case "zero_filled":
            largest = make.largest_shift(config.eval.crop_margin, side)
            return make.zero_filled_shifts(max_shift=largest, **settings)
        case "crop":
            return make.crop_shifts(margin=config.eval.crop_margin, **settings)
        case "bilinear":
            return make.bilinear_shifts(margin=config.eval.crop_margin, **settings)
        case _:
            raise ConfigError(unknown("kind of random shifts", kind, RANDOM))


def _adversarial(kind: str, config: ConfigDict, side: int) -> Measurement:
    radius = config.eval.worst_case_radius
    match kind:
        case "integer":
            return make.adversarial_integer(side, radius)
        case "half":
            return make.adversarial_half(side, radius)
        case "fraction":
            return make.adversarial_fraction(config.eval.finest_fraction)
        case "continuous":
            return make.adversarial_continuous(min(radius, side / 2))
        case _:
            raise ConfigError(unknown("--adversarial", kind, ADVERSARIAL))


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
      presets: names of `presets.PRESETS`.
      paper: presets as the papers' programs compute them, of images resized as there.
      overridden: fields that the user named; "data.interpolation" among them holds for presets too.

    Raises:
      ConfigError: an unknown name, or two that measure the same.
    """
    chosen = [random_shifts(kind, config, side) for kind in random]
    chosen += [_adversarial(kind, config, side) for kind in adversarial]
    attack, outside = config.eval.attack, black(config.data.mean, config.data.std)
    if spatial:
        space = Space(attack.translation * side, attack.rotation, math.log(attack.enlargement))
        chosen.append(make.spatial_attack(space, outside))
    if pictures:
        chosen.append(make.shift_plane(side, config.eval.worst_case_radius))
    setting = Setting(
        side,
        config.seed,
        config.eval.crop_margin,
        config.eval.finest_fraction,
        config.eval.worst_case_radius,
        attack.rotation,
        outside,
    )
    by_name = {name: preset(name, setting, paper=paper) for name in presets}
    own, resized = config.data.interpolation, {}
    plain, wide = View(False, own), View(True, own)
    views: dict[View, list[Measurement]] = {
        plain: [m for m in chosen if not m.shifting.margin],
        wide: [m for m in chosen if m.shifting.margin],
    }
    for name, found in by_name.items():
        how = found.interpolation or own
        if how != own and "data.interpolation" not in overridden:
            resized[name] = how
        # The rolls of LPS's metric are of the larger images.
        view = View(any(m.shifting.margin for m in found.measurements), resized.get(name, own))
        target = views.setdefault(view, [])
        target += [m for m in found.measurements if m.name not in {other.name for other in target}]
    used = {view: found for view, found in views.items() if found or (view == plain and not views[wide])}
    return Selection(used, by_name, resized)


def wide_view(data: ConfigDict, side: int, margin: int) -> ConfigDict:
    """The section data for images that are larger by `margin` on each side, resized to the same scale.

    Raises:
      ConfigError: images resized as usual do not reach so far, or inputs have a border of zeros.
    """
    if data.zero_pad:
        raise ConfigError(
            f"windows are cut from images, not from inputs with a border of zeros (data.zero_pad = "
            f"{data.zero_pad}): measure circular or zero-filled shifts, or set data.zero_pad = 0."
        )
    shorter, wanted = int(side / data.eval_crop_ratio), side + 2 * margin
    if wanted > shorter:
        raise ConfigError(
            f"windows need images of {wanted} pixels (input {side}, eval.crop_margin = {margin} each way), "
            f"but they are resized to {shorter} (data.eval_crop_ratio = {data.eval_crop_ratio:g}): the "
            f"margin is at most {(shorter - side) // 2} then. Or use --zero_filled_shifts."
        )
    wide = ConfigDict(data)
    # Half a pixel more than the shorter side, whose fraction is cut off: rounding cannot lose a pixel.
    wide.image_size, wide.eval_crop_ratio = wanted, wanted / (shorter + 0.5)
    wide.eval_view = "crop"  # also where the usual view squeezes all of the image: that has no surroundings
    return wide

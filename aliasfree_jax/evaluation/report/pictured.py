"""What the pictures show: measured, kept in eval.json, and read back, where no network is needed."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from aliasfree_jax.checkpoint import PyTree
from aliasfree_jax.data import Source, eval_batches
from aliasfree_jax.data.augment import denormalize
from aliasfree_jax.data.sources import Subset
from aliasfree_jax.errors import ConfigError, DataError, unknown
from aliasfree_jax.evaluation.alignment import candidates
from aliasfree_jax.evaluation.evaluator import Results, shift_report
from aliasfree_jax.evaluation.measurements import slide
from aliasfree_jax.evaluation.report.columns import task_of
from aliasfree_jax.evaluation.report.pictured_maps import encoded, map_results
from aliasfree_jax.evaluation.trial import Predict
from aliasfree_jax.ops.shift import fractional_shift
from aliasfree_jax.training.mesh import own_eval_batches

IMAGE = "pictured_image"  # key of `image_results` among all results
SMALLEST_MAP = 8  # pixels; in a smaller one there is nothing to see
SHIFT = (1, 1)  # of the image whose map is shown; pixels
DIGITS = 5  # of the numbers that are kept of a map


def _maps(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """The first output [N, h, w, C] of every layer that has one, in the order of the calls."""
    found: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= _maps(value, (*path, name))
        else:
            maps = [leaf for leaf in jax.tree.leaves(value) if leaf.ndim == 4]
            found |= {"/".join(path): np.asarray(maps[0], np.float32)} if maps else {}
    return found


def feature_maps(module: nn.Module, variables: PyTree, images: jax.Array) -> dict[str, np.ndarray]:
    """The output [N, h, w, C] of every layer of a network, by its path, in the order of the calls."""
    _, state = module.apply(variables, images, capture_intermediates=True, mutable=["intermediates"])
    return _maps(state["intermediates"])


def _layer(maps: Mapping[str, np.ndarray], wanted: str) -> str:
    if wanted:
        if wanted not in maps:
            raise ConfigError(unknown("layer with a feature map (eval.pictured_layer)", wanted, maps))
        return wanted
    large = [path for path, found in maps.items() if min(found.shape[1:3]) >= SMALLEST_MAP]
    if not large:
        raise ConfigError(
            f"no layer of the network has a map of {SMALLEST_MAP} x {SMALLEST_MAP} pixels or more: name one "
            "by --config.eval.pictured_layer."
        )
    return large[-1]


def moved_back(still: np.ndarray, moved: np.ndarray, image: tuple[int, ...]) -> np.ndarray:
    """The map [1, h, w, C] of an image moved by `SHIFT`, moved back: the way that comes closest to `still`.

    A map moves in proportion, or as adaptive samplers choose their grid.
    """
    ways = [
        np.asarray(fractional_shift(jnp.asarray(moved), -by)) for by in candidates(still, moved, SHIFT, image)
    ]
    return min(ways, key=lambda back: float(np.abs(back - still).max()))


def feature_results(module: nn.Module, variables: PyTree, image: np.ndarray, layer: str = "") -> Results:
    """One channel of a layer's map of an image [H, W, C], and of the shifted image, moved back.

    The channel is the one that differs most: `still`, and `difference`, what the way there and back changed.
    `error` is the largest difference over all channels, relative to the largest value.

    Args:
      module: a Flax module whose `apply(variables, images)` runs its evaluation mode.
      variables: its own.
      image: normalised, floating-point.
      layer: path of a layer; "": the last one with a map of 8 x 8 pixels or more.

    Raises:
      ConfigError: there is no such layer.
    """
    images = jnp.asarray(image)[None]
    maps = feature_maps(module, variables, images)
    path = _layer(maps, layer)
    moved = feature_maps(module, variables, jnp.roll(images, SHIFT, axis=(1, 2)))[path]
    still, back = maps[path], moved_back(maps[path], moved, images.shape)
    difference = back - still  # kept by itself: that of two rounded maps would be rounding
    largest = np.abs(difference).max(axis=(0, 1, 2))
    channel = int(largest.argmax())
    scale = max(float(np.abs(still).max()), np.finfo(np.float32).tiny)
    return {
        "layer": path,
        "channel": channel,
        "shift": list(SHIFT),
        "error": float(largest.max() / scale),
        "still": _rounded(still[0, ..., channel]),
        "difference": _rounded(difference[0, ..., channel]),
    }


def _rounded(array: np.ndarray) -> list[list[float]]:
    return [[float(f"{value:.{DIGITS}g}") for value in row] for row in array.tolist()]


def image_results(
    module: nn.Module, variables: PyTree, predict: Predict, source: Source, config: ConfigDict
) -> Results:
    """The image `config.eval.pictured_image`, its slide over the radius of the worst case, and a map of it.

    Of networks whose outputs are maps, what `map_results` gives.

    Raises:
      ConfigError: the data set has no such image, the network no such layer.
    """
    index = config.eval.pictured_image
    if index >= len(source):
        raise ConfigError(
            f"eval.pictured_image = {index}, but there are {len(source)} images: 0 to {len(source) - 1}."
        )
    alone = Subset(source, np.array([index]))
    (batch,) = eval_batches(alone, config.data, batch_size=1)
    image, label = np.asarray(batch["image"])[0], np.asarray(batch["label"])[0]
    about = {"index": index, "png": encoded(denormalize(image, config.data.mean, config.data.std))}
    if config.task != "classification":
        return about | {"maps": map_results(predict, image, label, config)}
    measurement = slide(config.eval.worst_case_radius)
    # As all other measurements: every device takes part, and every process has the result.
    batches = own_eval_batches(alone, config.data, 1)
    devices = config.train.devices
    results = shift_report(predict, batches, [measurement], images=1, devices=devices, progress=False)
    sliding = results[measurement.name]
    return about | {
        "label": source.class_names[int(label)],
        measurement.name: {"about": sliding["about"]} | sliding["per_shift"],
        "features": feature_results(module, variables, image, config.eval.pictured_layer),
    }


@dataclass(frozen=True)
class Evaluated:
    """The results of one network.

    Attributes:
      name: what it is called in pictures and tables.
      results: see `evaluator.evaluate`; with the circumstances where they are known.
    """

    name: str
    results: Mapping[str, Any]

    def part(self, *keys: str) -> Any:
        """What lies under these keys.

        Raises:
          DataError: it was not measured.
        """
        found: Any = self.results
        for depth, key in enumerate(keys, 1):
            if not isinstance(found, Mapping) or key not in found:
                raise DataError(
                    f"the results of {self.name} have no {'/'.join(keys[:depth])}: evaluate it with "
                    "eval.py --pictures."
                )
            found = found[key]
        return found


def read_results(path: Path, name: str = "") -> Evaluated:
    """The results in a file that eval.py wrote, under a name or that of the run.

    Raises:
      DataError: unreadable, or no results.
    """
    try:
        results = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read results from {path}: {error}.") from error
    if not isinstance(results, dict) or "images" not in results or not task_of(results):
        raise DataError(f"{path} has no results of eval.py: expected at least images and accuracy.")
    return Evaluated(name or run_name(path), results)


def run_name(path: Path) -> str:
    """The run's name for runs/<name>/eval.json, else that of the file."""
    return path.resolve().parent.name if path.stem == "eval" else path.stem.removesuffix(".eval")


@dataclass(frozen=True)
class Plane:
    """A number for every shift: `values` [len(down), len(right)]."""

    down: np.ndarray
    right: np.ndarray
    values: np.ndarray


def shift_plane(network: Evaluated, column: str) -> Plane:
    """The column "accuracy" or "consistency" over the plane of all shifts, no shift among them.

    Raises:
      DataError: it was not measured, or not on a full grid.
    """
    shifts = np.asarray(network.part("shift_plane", "per_shift", "shifts"), float)
    measured = np.asarray(network.part("shift_plane", "per_shift", column), float)
    centre = {"accuracy": network.part("accuracy"), "consistency": 1.0}[column]
    shifts, measured = np.vstack([shifts, [0, 0]]), np.append(measured, centre)
    down, right = np.unique(shifts[:, 0]), np.unique(shifts[:, 1])
    values = np.full((len(down), len(right)), np.nan)
    values[np.searchsorted(down, shifts[:, 0]), np.searchsorted(right, shifts[:, 1])] = measured
    if np.isnan(values).any():
        raise DataError(f"the shifts of {network.name} are no full grid: a map needs those of `square`.")
    return Plane(down, right, values)


def worst_by_radius(network: Evaluated) -> np.ndarray:
    """Worst-case accuracy for the radii 0, 1, 2, ... pixels.

    Raises:
      DataError: it was not measured.
    """
    # The same shifts: whichever of the two was asked for.
    measured = "adversarial_integer" if "adversarial_integer" in network.results else "shift_plane"
    return np.asarray(network.part(measured, "worst_case_by_radius"), float)

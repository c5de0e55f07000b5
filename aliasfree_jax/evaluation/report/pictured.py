"""Data of the pictures: measures them, stores them in eval.json, and reads them without the network."""

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

IMAGE = "pictured_image"  # key of `image_results` in the results
SMALLEST_MAP = 8  # pixels; smaller maps are not worth showing
SHIFT = (1, 1)  # shift in pixels of the image whose feature map is shown
DIGITS = 5  # digits of the stored values of a map


def _maps(tree: Mapping[str, Any], path: tuple[str, ...] = ()) -> dict[str, np.ndarray]:
    """The first output `[N, h, w, C]` of every layer that has one, in the order of the calls."""
    found: dict[str, np.ndarray] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= _maps(value, (*path, name))
        else:
            maps = [leaf for leaf in jax.tree.leaves(value) if leaf.ndim == 4]
            found |= {"/".join(path): np.asarray(maps[0], np.float32)} if maps else {}
    return found


def feature_maps(module: nn.Module, variables: PyTree, images: jax.Array) -> dict[str, np.ndarray]:
    """Returns the feature map of every layer of a network.

    Args:
      module: The network.
      variables: Its variables.
      images: `[N, H, W, C]`.

    Returns:
      The maps `[N, h, w, C]` by path of the layer, in the order of the calls.
    """
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
            f"no layer of the network has a map of {SMALLEST_MAP} x {SMALLEST_MAP} pixels or more: choose a "
            "layer with --config.eval.pictured_layer."
        )
    return large[-1]


def moved_back(still: np.ndarray, moved: np.ndarray, image: tuple[int, ...]) -> np.ndarray:
    """Moves the map of an image shifted by `SHIFT` back.

    The shift of the map is proportional to that of the image, or it depends on the grid chosen by adaptive
    samplers. The displacement with the smallest difference from `still` is used.

    Args:
      still: Map of the unshifted image, `[1, h, w, C]`.
      moved: Map of the shifted image, `[1, h, w, C]`.
      image: Shape of the image, `[1, H, W, C]`.
    """
    ways = [
        np.asarray(fractional_shift(jnp.asarray(moved), -by)) for by in candidates(still, moved, SHIFT, image)
    ]
    return min(ways, key=lambda back: float(np.abs(back - still).max()))


def feature_results(module: nn.Module, variables: PyTree, image: np.ndarray, layer: str = "") -> Results:
    """Feature map of a layer for an image, compared with the map for the shifted image, moved back.

    Args:
      module: Flax module whose `apply(variables, images)` runs its evaluation mode.
      variables: Its variables.
      image: Normalised image `[H, W, C]`, floating-point.
      layer: Path of the layer; "": the last one with a map of at least 8 x 8 pixels.

    Returns:
      A dictionary with the channel that has the largest difference: "still" is its map, and "difference" is
      its change. "error" is the largest difference of all channels, relative to the largest value.

    Raises:
      ConfigError: There is no such layer.
    """
    images = jnp.asarray(image)[None]
    maps = feature_maps(module, variables, images)
    path = _layer(maps, layer)
    moved = feature_maps(module, variables, jnp.roll(images, SHIFT, axis=(1, 2)))[path]
    still, back = maps[path], moved_back(maps[path], moved, images.shape)
    difference = back - still  # stored separately: the difference of two rounded maps would be rounding
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
    """Measures the data of the pictures for the image `config.eval.pictured_image`.

    For classification: the probabilities while the image slides by `eval.worst_case_radius` pixels, and a
    feature map. For networks whose outputs are maps: see `map_results`.

    Args:
      module: The network.
      variables: Its variables.
      predict: The compiled network.
      source: The images.
      config: The whole configuration.

    Raises:
      ConfigError: The data set has no such image, or the network has no such layer.
    """
    index = config.eval.pictured_image
    if index >= len(source):
        raise ConfigError(
            f"eval.pictured_image = {index}, but there are {len(source)} images: choose one from 0 to "
            f"{len(source) - 1}."
        )
    alone = Subset(source, np.array([index]))
    (batch,) = eval_batches(alone, config.data, batch_size=1)
    image, label = np.asarray(batch["image"])[0], np.asarray(batch["label"])[0]
    about = {"index": index, "png": encoded(denormalize(image, config.data.mean, config.data.std))}
    if config.task != "classification":
        return about | {"maps": map_results(predict, image, label, config)}
    measurement = slide(config.eval.worst_case_radius)
    # As in all measurements, all devices and processes take part and get the result.
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
      name: Name in pictures and tables.
      results: Results of `evaluator.evaluate`, with `circumstances` if known.
    """

    name: str
    results: Mapping[str, Any]

    def part(self, *keys: str) -> Any:
        """Looks up nested results by keys.

        Raises:
          DataError: There is no such result.
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
    """Reads a file of results written by eval.py.

    Args:
      path: The JSON file.
      name: Name of the network; default: the name of the run.

    Raises:
      DataError: The file is unreadable or contains no results.
    """
    try:
        results = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read results from {path}: {error}.") from error
    if not isinstance(results, dict) or "images" not in results or not task_of(results):
        raise DataError(
            f"{path} has no results of eval.py: expected at least images and accuracy, mean_iou or psnr."
        )
    return Evaluated(name or run_name(path), results)


def run_name(path: Path) -> str:
    """Name of the run for runs/<name>/eval.json, otherwise the file's name."""
    return path.resolve().parent.name if path.stem == "eval" else path.stem.removesuffix(".eval")


@dataclass(frozen=True)
class Plane:
    """One number for every shift.

    Attributes:
      down: Shifts down in pixels.
      right: Shifts to the right in pixels.
      values: The numbers, `[len(down), len(right)]`.
    """

    down: np.ndarray
    right: np.ndarray
    values: np.ndarray


def shift_plane(network: Evaluated, column: str) -> Plane:
    """Returns a column over the plane of shifts, including no shift.

    Args:
      network: The evaluated network.
      column: "accuracy" or "consistency".

    Raises:
      DataError: It was not measured, or not for all shifts of a grid.
    """
    shifts = np.asarray(network.part("shift_plane", "per_shift", "shifts"), float)
    measured = np.asarray(network.part("shift_plane", "per_shift", column), float)
    centre = {"accuracy": network.part("accuracy"), "consistency": 1.0}[column]
    shifts, measured = np.vstack([shifts, [0, 0]]), np.append(measured, centre)
    down, right = np.unique(shifts[:, 0]), np.unique(shifts[:, 1])
    values = np.full((len(down), len(right)), np.nan)
    values[np.searchsorted(down, shifts[:, 0]), np.searchsorted(right, shifts[:, 1])] = measured
    if np.isnan(values).any():
        raise DataError(
            f"the shifts of {network.name} are not a full grid: a map needs the shifts of `square`."
        )
    return Plane(down, right, values)


def worst_by_radius(network: Evaluated) -> np.ndarray:
    """Returns the worst-case accuracy for the radii 0, 1, 2, ... pixels.

    Args:
      network: The evaluated network.

    Raises:
      DataError: It was not measured.
    """
    # Both measurements have the same shifts.
    measured = "adversarial_integer" if "adversarial_integer" in network.results else "shift_plane"
    return np.asarray(network.part(measured, "worst_case_by_radius"), float)

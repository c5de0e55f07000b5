"""What the pictures of a single image need: it slides, and one layer's map of it is moved back.

All goes into the results, the image itself too, so that pictures need no network afterwards.
"""

import base64
import io
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from aliasfree_jax.checkpoint import PyTree
from aliasfree_jax.data import Source, eval_batches
from aliasfree_jax.data.augment import denormalize
from aliasfree_jax.data.sources import Subset
from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.evaluation.audit.alignment import candidates
from aliasfree_jax.evaluation.evaluator import Results
from aliasfree_jax.evaluation.measurements import slide
from aliasfree_jax.evaluation.report import shift_report
from aliasfree_jax.evaluation.trial import Predict
from aliasfree_jax.ops.shift import fractional_shift
from aliasfree_jax.training.mesh import own_eval_batches

SMALLEST_MAP = 8  # pixels; in a smaller one there is nothing to see
SHIFT = (1, 1)  # of the image whose map is shown; pixels
DIGITS = 5  # of the numbers that are kept of a map


def encoded(image: np.ndarray, config: ConfigDict) -> str:
    """The normalised image [H, W, C] as PNG, in base64."""
    pixels = denormalize(image, config.data.mean, config.data.std)
    file = io.BytesIO()
    Image.fromarray(pixels[..., :3] if pixels.shape[2] >= 3 else pixels[..., 0]).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


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
    image, measurement = np.asarray(batch["image"])[0], slide(config.eval.worst_case_radius)
    # As all other measurements: every device takes part, and every process has the result.
    batches = own_eval_batches(alone, config.data, 1)
    devices = config.train.devices
    results = shift_report(predict, batches, [measurement], images=1, devices=devices, progress=False)
    sliding = results[measurement.name]
    return {
        "index": index,
        "label": source.class_names[int(batch["label"][0])],
        "png": encoded(image, config),
        measurement.name: {"about": sliding["about"]} | sliding["per_shift"],
        "features": feature_results(module, variables, image, config.eval.pictured_layer),
    }

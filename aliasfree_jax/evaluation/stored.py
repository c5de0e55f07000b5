"""Results as eval.json has them, read back as arrays for pictures and comparisons: no network is needed."""

import base64
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from aliasfree_jax.errors import DataError

IMAGE = "pictured_image"  # key of `one_image.image_results`


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
    if not isinstance(results, dict) or not {"images", "accuracy"} <= set(results):
        raise DataError(f"{path} has no results of eval.py: expected at least images and accuracy.")
    return Evaluated(name or run_name(path), results)


def run_name(path: Path) -> str:
    """The run's name for runs/<name>/eval.json, else that of the file."""
    return path.resolve().parent.name if path.stem == "eval" else path.stem.removesuffix(".eval")


@dataclass(frozen=True)
class Plane:
    """A share for every shift: `values` [len(down), len(right)]."""

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


@dataclass(frozen=True)
class Slide:
    """One image and the probability of its label along a way.

    Attributes:
      image: [H, W, 3], bytes.
      label: name of its class.
      shifts: [K, 2] pixels, down and right.
      probability: [K].
    """

    image: np.ndarray
    label: str
    shifts: np.ndarray
    probability: np.ndarray


def slide(network: Evaluated) -> Slide:
    """How the image slid.

    Raises:
      DataError: it was not measured.
    """
    file = io.BytesIO(base64.b64decode(network.part(IMAGE, "png")))
    return Slide(
        np.asarray(Image.open(file).convert("RGB")),
        network.part(IMAGE, "label"),
        np.asarray(network.part(IMAGE, "slide", "shifts"), float),
        np.asarray(network.part(IMAGE, "slide", "true_probability"), float),
    )

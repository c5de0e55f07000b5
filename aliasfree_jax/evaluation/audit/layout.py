"""Finds the rows and columns of a program's arrays, and computes their equivariance errors."""

import dataclasses
import math
from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np

from aliasfree_jax.evaluation.alignment import Shift, equivariance_error, tolerance
from aliasfree_jax.transform.lockstep import Both, Step
from aliasfree_jax.transform.maps import Map
from aliasfree_jax.transform.values import Plain, Pointwise, Value

# For each operation, by its position in the program: the description of each result, found by `check`.
Layouts = dict[tuple[int, ...], list[Map | Plain]]


def known(value: Value) -> Map | Plain:
    """The part of a value that describes its rows and columns."""
    return value.roots[0] if isinstance(value, Pointwise) else value


def as_images(array: np.ndarray, value: Map) -> np.ndarray:
    """Rearranges the array of a map to `[N, h, w, C]`. A padded map is cut to one period."""
    first = [*value.batch, *value.space]
    rest = [axis for axis in range(value.array.ndim) if axis not in first]
    array, lead = array.reshape(value.sizes()).transpose([*first, *rest]), len(value.batch)
    for place, (start, seen, side) in enumerate(zip(value.first, value.seen_sides, value.sides, strict=True)):
        if start <= 0 and start + seen >= side:
            array = array.take(range(-start, side - start), lead + place)
    rows, columns = array.shape[lead : lead + 2]
    return array.reshape(math.prod(array.shape[:lead]), rows, columns, -1)


@dataclasses.dataclass(frozen=True)
class Seen:
    """Comparison of the results of an operation.

    Attributes:
      shape: Shape of the first result that could be compared.
      dtype: Type of the same result.
      error: Largest equivariance error; nan if nothing was compared.
      aligned: A map moved by other pixels than the image, which is the effect of an adaptive sampler.
      note: The reason why nothing was compared.
    """

    shape: tuple[int, ...] = ()
    dtype: str = ""
    error: float = math.nan
    aligned: bool = False
    note: str = ""


def seen(step: Step, layouts: Layouts, shift: Shift, image: tuple[int, ...]) -> Seen:
    """Compares the results for the shifted images with the shifted results."""
    found, note = [], "no floating-point numbers"
    values = layouts.get(step.place.position, [None] * len(step.results))
    for result, value in zip(step.results, values, strict=True):
        if not jnp.issubdtype(result.still.dtype, jnp.floating):
            continue
        still, moved = (_laid(np.asarray(a, np.float64), value, image) for a in (result.still, result.moved))
        if still is None or moved is None:
            note = f"rows and columns of {list(result.still.shape)} are not known"
            continue
        error, aligned = equivariance_error(still, moved, shift, image, tolerance(result.still.dtype))
        shape, dtype = result.still.shape, str(result.still.dtype)
        found.append(Seen(shape, dtype, error, aligned, "only zeros" if math.isnan(error) else ""))
    compared = [each for each in found if not math.isnan(each.error)]
    if not compared:
        return found[0] if found else Seen(note=note)
    error, aligned = max(each.error for each in compared), any(each.aligned for each in compared)
    return dataclasses.replace(compared[0], error=error, aligned=aligned)


def output(results: Iterable[tuple[Both, Map | Plain]], shift: Shift, image: tuple[int, ...]) -> Seen | None:
    """Compares the output maps of a program. They must move exactly in proportion to the shift.

    Args:
      results: The outputs with the descriptions of their rows and columns.
      shift: Shift of the image in pixels.
      image: Shape of the images, `[N, H, W, C]`.

    Returns:
      The comparison with the largest error; None if no output is a map.
    """
    found = []
    for result, value in results:
        if result.moved is None or not jnp.issubdtype(result.still.dtype, jnp.floating):
            continue
        still, moved = (_laid(np.asarray(a, np.float64), value, image) for a in (result.still, result.moved))
        if still is None or moved is None or still.ndim != 4:
            continue
        rows, columns = (s * n / full for s, n, full in zip(shift, still.shape[1:3], image[1:3], strict=True))
        error, _ = equivariance_error(still, moved, (rows, columns), still.shape, 0)
        found.append(Seen(result.still.shape, str(result.still.dtype), error))
    return max(found, key=lambda each: each.error, default=None)


def _laid(array: np.ndarray, value: Map | Plain | None, image: tuple[int, ...]) -> np.ndarray | None:
    """The array as maps `[N, h, w, C]`, or as a vector that must not change; None: unknown layout."""
    if isinstance(value, Map):
        return as_images(array, value)
    if value is None or value.refused:  # decide by its shape
        shares = [side / full for side, full in zip(array.shape[1:3], image[1:3], strict=False)]
        if array.ndim == 4 and len(array) == image[0] and abs(shares[0] - shares[1]) < 1 / min(image[1:3]):
            return array
        if array.ndim > 2:
            return None
    return array.reshape(1, -1)

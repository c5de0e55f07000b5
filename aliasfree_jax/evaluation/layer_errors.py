"""Which layers of a network break shift equivariance, and by how much: of any Flax module.

The network runs on images and on the same images moved round the circle; every layer's output is compared
with its own output, moved along. A layer breaks equivariance where its input still moves along and its
output does not.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from aliasfree_jax.checkpoint import PyTree
from aliasfree_jax.errors import ShapeError
from aliasfree_jax.ops.resample import check_images
from aliasfree_jax.ops.shift import fractional_shift

# Float32 rounding through a deep network stays below, aliasing above.
TOLERANCE = 1e-4


@dataclasses.dataclass(frozen=True)
class LayerError:
    """One call of one layer.

    Attributes:
      path: names of the modules that lead to it, "" for the network itself.
      kind: its class.
      shape: of its output, [N, h, w, C] or [N, features].
      before, after: equivariance error of its input (nan if that is no [N, h, w, C] or [N, features]) and
        of its output, relative to the largest value.
      breaks: whether the error arises here, and in none of the layers inside.
    """

    path: str
    kind: str
    shape: tuple[int, ...]
    before: float
    after: float
    breaks: bool


@dataclasses.dataclass
class _Call:
    path: tuple[str, ...]
    kind: str
    source: Any
    result: Any


def _first_map(values: Any) -> Any:
    """The first array [N, h, w, C] or [N, features] among `values`; None if there is none to look at."""
    for leaf in jax.tree.leaves(values):
        if isinstance(leaf, jax.core.Tracer):
            return None  # inside a scan or a recomputed block, whose outside is looked at
        if isinstance(leaf, jax.Array) and leaf.ndim in (2, 4):
            return np.asarray(leaf, np.float64)
    return None


def _recorded(module: nn.Module, variables: PyTree, images: jax.Array) -> list[_Call]:
    """All calls of all layers, those inside a layer before it."""
    calls: list[_Call] = []

    def record(call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        result = call(*args, **kwargs)
        if context.method_name == "__call__":
            name = type(context.module).__name__
            path = tuple(map(str, context.module.path))
            calls.append(_Call(path, name, _first_map(args), _first_map(result)))
        return result

    with nn.intercept_methods(record):
        module.apply(variables, images)
    return calls


def legal_shifts(shift: Sequence[float], shape: tuple[int, ...], image: tuple[int, ...]) -> Iterator[Any]:
    """The shifts that a map may make: in proportion, or by the whole pixels on either side of it.

    Args:
      shift: of the image; rows and columns, in its pixels.
      shape: of the map, [N, h, w, C].
      image: shape of the image, [N, H, W, C].
    """
    rows, columns = (s * side / full for s, side, full in zip(shift, shape[1:3], image[1:3], strict=True))
    yield rows, columns
    for row in {math.floor(rows), math.ceil(rows)}:
        for column in {math.floor(columns), math.ceil(columns)}:
            yield row, column


def _error(still: Any, moved: Any, shift: Sequence[float], image: tuple[int, ...]) -> float:
    if still is None or moved is None or still.shape != moved.shape:
        return math.nan
    scale = max(float(np.abs(still).max()), np.finfo(np.float32).tiny)
    if still.ndim == 2:
        return float(np.abs(moved - still).max() / scale)
    # Polyphase samplers choose for each image, so each may have moved by another whole pixel.
    best = np.full(len(still), np.inf)
    with jax.enable_x64(True):
        for candidate in legal_shifts(shift, still.shape, image):
            expected = np.asarray(fractional_shift(jax.numpy.asarray(still), candidate))
            best = np.minimum(best, np.abs(moved - expected).max(axis=(1, 2, 3)))
    return float(best.max() / scale)


def layer_errors(
    module: nn.Module,
    variables: PyTree,
    images: jax.Array,
    shift: tuple[float, float] = (1, 1),
    *,
    tolerance: float = TOLERANCE,
) -> list[LayerError]:
    """The equivariance error of every layer under one circular shift, in the order of the calls.

    A map of another size than the image is to move in proportion, or by the nearest whole pixels (adaptive
    sampling). What is called outside any module counts for the module around it.

    Args:
      module: any Flax (Linen) module; `module.apply(variables, images)` must run its evaluation mode.
      images: floating-point [N, H, W, C].
      shift: rows and columns, in pixels; fractions take ideal interpolation.
      tolerance: error from which on a layer breaks equivariance.

    Raises:
      ShapeError: images of another shape or type; no layer with an output [N, h, w, C] or [N, features].
    """
    check_images(images)
    with jax.enable_x64(True):
        moved = np.asarray(fractional_shift(jax.numpy.asarray(images, jax.numpy.float64), shift))
    still_calls = _recorded(module, variables, images)
    moved_calls = _recorded(module, variables, jax.numpy.asarray(moved, images.dtype))
    found: list[LayerError] = []
    for still, after in zip(still_calls, moved_calls, strict=True):
        error = _error(still.result, after.result, shift, images.shape)
        if math.isnan(error):
            continue
        before = _error(still.source, after.source, shift, images.shape)
        path = "/".join(still.path)
        inside = any(f.breaks and f.path.startswith(f"{path}/" if path else "") for f in found)
        breaks = before <= tolerance < error and not inside  # never where nan says: no input to judge by
        found.append(LayerError(path, still.kind, still.result.shape, before, error, breaks))
    if not found:
        raise ShapeError("no layer of the network has an output [N, h, w, C] or [N, features].")
    return found


def format_layers(errors: Sequence[LayerError]) -> str:
    """A table, the layers that break equivariance marked."""
    width = max(len(f"{e.path} ({e.kind})") for e in errors)
    lines = [f"{'layer':{width + 2}}{'output':>20}  {'error before':>12}  {'after':>8}"]
    for e in errors:
        name, shape = f"{e.path} ({e.kind})", "x".join(map(str, e.shape[1:]))
        mark = "  <- breaks" if e.breaks else ""
        lines.append(f"{name:{width + 2}}{shape:>20}  {e.before:12.1e}  {e.after:8.1e}{mark}")
    return "\n".join(lines)

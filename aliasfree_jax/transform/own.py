"""Rules of this package's operations: resampling by ideal filters, and polyphase sampling.

They keep their names in a program (`ops.operation`). They run unchanged on settled maps, and the rules add
the grid and the frequency band of the results.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aliasfree_jax.ops import operation
from aliasfree_jax.ops.bilinear import bilinear_weights
from aliasfree_jax.transform import upsampling
from aliasfree_jax.transform.bands import between, whole
from aliasfree_jax.transform.grids import ONE, Grid
from aliasfree_jax.transform.interpreter import RULES, Rule, Transformation, TransformError, rebound, rule
from aliasfree_jax.transform.maps import Map
from aliasfree_jax.transform.reporting import WHOLE
from aliasfree_jax.transform.values import Held, Plain, Value

# Ranks of the first operand and of the results. Derivatives have the same names, but other ranks.
_RANKS = {
    **dict.fromkeys(
        ("ideal_resample", "ideal_strided_taps", "polyphase_upsample", "bilinear_resize"), [4, 4]
    ),
    "polyphase_components": [4, 5],
    "select_component": [5, 4],
}


def rule_of(eqn: Any) -> Rule | None:
    """The rule of an operation of this package. None for any other function."""
    name, _ = operation.read(eqn.params.get("name", "")) or ("", {})
    ranks = [variable.aval.ndim for variable in (*eqn.invars[:1], *eqn.outvars)]
    return RULES[name] if ranks == _RANKS.get(name) else None


def _images(how: Transformation, eqn: Any, value: Held, first: int = 1) -> Map:
    """`value` settled and whole, with rows and columns as axes `first` and `first` + 1."""
    if not isinstance(value, Map) or value.space_dims() != [first, first + 1]:
        raise TransformError(
            eqn, "expects rows and columns on other axes", "Call it with maps of shape [N, H, W, C]"
        )
    value = how.seen(eqn, value)
    if value.sides != value.seen_sides:
        raise TransformError(eqn, "resamples a map whose border was left out", "Pad the windows before it")
    return value


def _plain(eqn: Any, values: Sequence[Held]) -> list[jax.Array]:
    if not all(isinstance(value, Plain) for value in values):
        raise TransformError(
            eqn, "has phases or weights that differ between positions", "Choose one phase per image"
        )
    return [value.full() for value in values if isinstance(value, Plain)]


def _laid(value: Map, y: jax.Array, sources: Sequence[Any], **changes: Any) -> Map:
    """A result as a map, fully visible to the program."""
    return value.rebuilt(y, sources, **changes).all_seen()


@rule("ideal_resample", "ideal_strided_taps")
def ideal(how: Transformation, eqn: Any, value: Held, *matrices: Held) -> list[Value]:
    """Resamples a map to another grid by an ideal filter.

    Strided taps store the neighbours that each window of the next convolution reads next to each other.
    """
    numbers = dict((operation.read(eqn.params["name"]) or ("", {}))[1])
    value = _images(how, eqn, value)
    if numbers.get("any_size") == (0,):
        rows, columns = numbers["strides"]
        how.uneven(eqn, value.sides, (rows, columns), ", or any_size=True of the sampler")
    value = how.read(value, numbers["passed"])
    y = rebound(eqn, value.merged(), *_plain(eqn, matrices))[0]
    images, rows, columns, channels = y.shape
    tall, wide = numbers.get("taps", ONE)
    sides = rows // tall, columns // wide
    grid = value.grid.resampled(value.sides, sides)
    if numbers.get("zero_offset", ONE) != ONE:
        grid = Grid(grid, "between", numbers["zero_offset"])
    if (tall, wide) == ONE:
        return [_laid(value, y, value.groups, grid=grid)]
    blocks = y.reshape(images, sides[0], tall, sides[1], wide, channels)
    sources = [value.groups[0], value.groups[1], (), value.groups[2], (), value.groups[3]]
    apart = _laid(value, blocks, sources, grid=grid)
    first, row, below, column, beside, last = apart.groups
    return [dataclasses.replace(apart, groups=(first, row + below, column + beside, last))]


@rule("bilinear_resize")
def bilinear(how: Transformation, eqn: Any, value: Held, *matrices: Held) -> list[Value]:
    """Interpolates to a finer grid by whole factors, with weights that continue round the circle."""
    numbers = dict((operation.read(eqn.params["name"]) or ("", {}))[1])
    value = _images(how, eqn, value)
    to = eqn.outvars[0].aval.shape[1:3]
    weights = {
        dim: bilinear_weights(n, m, numbers["aligned"] == (1,)).T
        for dim, n, m in zip((1, 2), value.sides, to, strict=True)
    }
    resized = upsampling.by_matrices(how, eqn, value, weights)
    if resized is None:
        raise TransformError(
            eqn,
            "interpolates with weights that differ between positions",
            "Enlarge maps by whole factors, with align_corners=False (upsampler), and use images whose sides "
            "are multiples of the strides",
        )
    return [resized]


@rule("polyphase_components")
def polyphase_components(how: Transformation, eqn: Any, value: Held) -> list[Value]:
    """Splits a map into polyphase components `[N, K, h, w, C]`. Whole-pixel shifts permute and move them."""
    (_, height, width, _), (_, _, h, w, _) = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    strides = height // h, width // w
    if how.report is not None and isinstance(value, Map) and (height, width) != value.sides:
        how.uneven(eqn, value.sides, strides)
        shape = eqn.invars[0].aval.shape  # the padded shape; a report does not need the values
        band = value.band and whole((height, width))
        value = _laid(value, jnp.zeros(shape, value.dtype), value.groups, band=band)
    value = _images(how, eqn, value)
    y = rebound(eqn, value.merged())[0]
    band = value.band
    if band is not None and not band.held((h, w)):
        value = how.read(value)
        how.found(
            eqn,
            band.moves(value.sides),
            "polyphase sampling follows shifts by whole positions only",
            'Sample by layers.IdealDownsample (sampler="ideal")',
        )
        band = band.sampled(value.sides, (h, w))
    sources = [value.groups[0], (), *value.groups[1:]]
    return [_laid(value, y, sources, grid=Grid(value.grid, "components", strides), band=band)]


@rule("select_component")
def select_component(how: Transformation, eqn: Any, value: Held, phase: Held) -> list[Value]:
    """Selects one component per image. Maps that were sampled at one phase share a grid."""
    value = _images(how, eqn, value, 2)
    chosen = _plain(eqn, [phase])[0]
    if jnp.issubdtype(phase.dtype, jnp.floating):
        how.found(
            eqn,
            WHOLE,
            "mixes the polyphase components, which aliases",
            'Evaluate with train=False and evaluation="hard", which selects one component',
        )
    elif isinstance(phase, Plain) and not phase.from_maps and value.shape[1] > 1:
        how.found(
            eqn,
            WHOLE,
            "selects the same polyphase component for all images, which aliases",
            "Select it by the content of the components (layers.AdaptivePolyphase)",
        )
    y = rebound(eqn, value.merged(), chosen)[0]
    sources = [value.groups[0], *value.groups[2:]]
    return [_laid(value, y, sources, grid=Grid(value.grid, "component", phase))]


@rule("polyphase_upsample")
def polyphase_upsample(how: Transformation, eqn: Any, value: Held, phase: Held) -> list[Value]:
    """Puts samples back at their original positions, on the grid from which they were sampled."""
    value = how.read(_images(how, eqn, value))
    y = rebound(eqn, value.merged(), *_plain(eqn, [phase]))[0]
    sides, grid, band = (y.shape[1], y.shape[2]), Grid(value.grid, "upsampled", phase), value.band
    if value.grid.kind == "component" and value.grid.choice is phase:
        grid = value.grid.source.source
    if band is not None:
        how.found(
            eqn,
            band.moves(value.sides),
            "zeros between the samples follow shifts by whole positions only",
            "Upsample by layers.IdealUpsample",
        )
        band = between(band, value.sides, sides)
    return [_laid(value, y, value.groups, grid=grid, band=band)]

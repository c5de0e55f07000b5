"""This package's own operations: resampling by ideal filters, and polyphase sampling.

They keep their names in a program (`ops.operation`), and are taken as they are: on settled maps, with the
grid and the frequencies that their results have.
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

# Ranks of the first operand and of the results; derivatives, which have the same names, have others.
_RANKS = {
    **dict.fromkeys(
        ("ideal_resample", "ideal_strided_taps", "polyphase_upsample", "bilinear_resize"), [4, 4]
    ),
    "polyphase_components": [4, 5],
    "select_component": [5, 4],
}


def rule_of(eqn: Any) -> Rule | None:
    """The rule of one of these operations; None for any other function."""
    name, _ = operation.read(eqn.params.get("name", "")) or ("", {})
    ranks = [variable.aval.ndim for variable in (*eqn.invars[:1], *eqn.outvars)]
    return RULES[name] if ranks == _RANKS.get(name) else None


def _images(how: Transformation, eqn: Any, value: Held, first: int = 1) -> Map:
    """`value` settled and whole, with rows and columns as axes `first` and `first` + 1."""
    if not isinstance(value, Map) or value.space_dims() != [first, first + 1]:
        raise TransformError(eqn, "takes other axes for rows and columns", "Call it with maps [N, H, W, C]")
    value = how.seen(eqn, value)
    if value.sides != value.seen_sides:
        raise TransformError(eqn, "resamples a map whose border was left out", "Pad the windows before it")
    return value


def _plain(eqn: Any, values: Sequence[Held]) -> list[jax.Array]:
    if not all(isinstance(value, Plain) for value in values):
        raise TransformError(
            eqn, "takes phases or weights that differ from place to place", "Choose one phase an image"
        )
    return [value.full() for value in values if isinstance(value, Plain)]


def _laid(value: Map, y: jax.Array, sources: Sequence[Any], **changes: Any) -> Map:
    """The map of a result, of which the program sees all."""
    return value.rebuilt(y, sources, **changes).all_seen()


@rule("ideal_resample", "ideal_strided_taps")
def ideal(how: Transformation, eqn: Any, value: Held, *matrices: Held) -> list[Value]:
    """A band-limited map on another grid round the same circle.

    Strided taps are the neighbours that each window of the next convolution reads, side by side.
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
    """A finer grid by whole factors, its weights continued round the circle."""
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
            "interpolates by weights that differ from place to place",
            "Enlarge maps by whole factors, with align_corners=False (upsampler) and images of sides that "
            "the strides divide",
        )
    return [resized]


@rule("polyphase_components")
def polyphase_components(how: Transformation, eqn: Any, value: Held) -> list[Value]:
    """The components of a map [N, K, h, w, C], which shifts by whole pixels permute and move."""
    (_, height, width, _), (_, _, h, w, _) = eqn.invars[0].aval.shape, eqn.outvars[0].aval.shape
    strides = height // h, width // w
    if how.report is not None and isinstance(value, Map) and (height, width) != value.sides:
        how.uneven(eqn, value.sides, strides)
        shape = eqn.invars[0].aval.shape  # padded: what is computed does not matter to a report
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
            "polyphase sampling follows shifts by whole places only",
            'Sample by layers.IdealDownsample (sampler="ideal")',
        )
        band = band.sampled(value.sides, (h, w))
    sources = [value.groups[0], (), *value.groups[1:]]
    return [_laid(value, y, sources, grid=Grid(value.grid, "components", strides), band=band)]


@rule("select_component")
def select_component(how: Transformation, eqn: Any, value: Held, phase: Held) -> list[Value]:
    """One component of each image; maps that were sampled at one phase are on one grid."""
    value = _images(how, eqn, value, 2)
    chosen = _plain(eqn, [phase])[0]
    if jnp.issubdtype(phase.dtype, jnp.floating):
        how.found(
            eqn,
            WHOLE,
            "mixes the polyphase components, which aliases",
            'Evaluate with train=False and evaluation="hard", where one component is chosen',
        )
    elif isinstance(phase, Plain) and not phase.from_maps and value.shape[1] > 1:
        how.found(
            eqn,
            WHOLE,
            "takes the same polyphase component whatever the image, which aliases",
            "Choose it by what the components hold (layers.AdaptivePolyphase)",
        )
    y = rebound(eqn, value.merged(), chosen)[0]
    sources = [value.groups[0], *value.groups[2:]]
    return [_laid(value, y, sources, grid=Grid(value.grid, "component", phase))]


@rule("polyphase_upsample")
def polyphase_upsample(how: Transformation, eqn: Any, value: Held, phase: Held) -> list[Value]:
    """Samples back at the places that they came from: on the grid that they were sampled from."""
    value = how.read(_images(how, eqn, value))
    y = rebound(eqn, value.merged(), *_plain(eqn, [phase]))[0]
    sides, grid, band = (y.shape[1], y.shape[2]), Grid(value.grid, "upsampled", phase), value.band
    if value.grid.kind == "component" and value.grid.choice is phase:
        grid = value.grid.source.source
    if band is not None:
        how.found(
            eqn,
            band.moves(value.sides),
            "zeros between the samples follow shifts by whole places only",
            "Upsample by layers.IdealUpsample",
        )
        band = between(band, value.sides, sides)
    return [_laid(value, y, value.groups, grid=grid, band=band)]

"""This package's own operations: resampling by ideal filters, and polyphase sampling.

They keep their names in a program (`ops.operation`), and are taken as they are: on settled maps, with the
grid and the frequencies that their results have.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from aliasfree_jax.ops import operation
from aliasfree_jax.transform.bands import below_nyquist, whole
from aliasfree_jax.transform.grids import Grid
from aliasfree_jax.transform.interpreter import Transformation, TransformError, rebound
from aliasfree_jax.transform.maps import Map
from aliasfree_jax.transform.reporting import WHOLE
from aliasfree_jax.transform.values import Held, Plain, Value

Numbers = dict[str, tuple[int, ...]]


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


def ideal_resample(
    how: Transformation, eqn: Any, numbers: Numbers, value: Held, *matrices: Held
) -> list[Value]:
    """A band-limited map on another grid round the same circle."""
    value = how.read(_images(how, eqn, value), numbers["passed"])
    y = rebound(eqn, value.merged(), *_plain(eqn, matrices))[0]
    grid = value.grid.resampled(value.sides, (y.shape[1], y.shape[2]))
    if numbers["zero_offset"] != (1, 1):
        grid = Grid()
    return [_laid(value, y, value.groups, grid=grid)]


def ideal_strided_taps(
    how: Transformation, eqn: Any, numbers: Numbers, value: Held, *matrices: Held
) -> list[Value]:
    """The same with the neighbours that each window of the next convolution reads, side by side."""
    value = _images(how, eqn, value)
    strides, (tall, wide) = numbers["strides"], numbers["taps"]
    if numbers["any_size"] == (0,):
        how.uneven(eqn, value.sides, (strides[0], strides[1]), ", or any_size=True of the sampler")
    value = how.read(value, numbers["passed"])
    y = rebound(eqn, value.merged(), *_plain(eqn, matrices))[0]
    images, rows, columns, channels = y.shape
    sides = rows // tall, columns // wide
    grid = value.grid.resampled(value.sides, sides)
    if (tall, wide) == (1, 1):
        return [_laid(value, y, value.groups, grid=grid)]
    blocks = y.reshape(images, sides[0], tall, sides[1], wide, channels)
    sources = [value.groups[0], value.groups[1], (), value.groups[2], (), value.groups[3]]
    apart = _laid(value, blocks, sources, grid=grid)
    first, row, below, column, beside, last = apart.groups
    return [dataclasses.replace(apart, groups=(first, row + below, column + beside, last))]


def polyphase_components(how: Transformation, eqn: Any, _: Numbers, value: Held) -> list[Value]:
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
    return [_laid(value, y, sources, grid=value.grid.components(strides), band=band)]


def select_component(how: Transformation, eqn: Any, _: Numbers, value: Held, phase: Held) -> list[Value]:
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
    return [_laid(value, y, sources, grid=value.grid.chosen_by(_key(phase)))]


def polyphase_upsample(how: Transformation, eqn: Any, _: Numbers, value: Held, phase: Held) -> list[Value]:
    """Samples back at the places that they came from: on the grid that they were sampled from."""
    value = how.read(_images(how, eqn, value))
    y = rebound(eqn, value.merged(), *_plain(eqn, [phase]))[0]
    sides, grid, band = (y.shape[1], y.shape[2]), Grid(), value.band
    if value.grid.finer is not None and value.grid.phase is _key(phase):
        grid = value.grid.finer
    if band is not None:
        how.found(
            eqn,
            band.moves(value.sides),
            "zeros between the samples follow shifts by whole places only",
            "Upsample by layers.IdealUpsample",
        )
        band = dataclasses.replace(band.sampled(value.sides, sides), highest=below_nyquist(sides))
    return [_laid(value, y, value.groups, grid=grid, band=band)]


def _key(phase: Held) -> Any:
    """What tells phases apart: the array itself."""
    return phase.thin if isinstance(phase, Plain) else None


_RANKS: dict[Callable[..., list[Value]], tuple[int, int]] = {  # of the first operand and of the result
    ideal_resample: (4, 4),
    ideal_strided_taps: (4, 4),
    polyphase_components: (4, 5),
    select_component: (5, 4),
    polyphase_upsample: (4, 4),
}
_RULES = {each.__name__: each for each in _RANKS}


def rule_of(eqn: Any) -> tuple[Callable[..., list[Value]], Numbers] | None:
    """The rule of one of these operations, and the numbers in its name; None for any other function.

    Derivatives of them have the same names, but other operands and results.
    """
    name, numbers = operation.read(eqn.params.get("name", "")) or ("", {})
    rule = _RULES.get(name)
    if rule is None or len(eqn.outvars) != 1:
        return None
    ranks = eqn.invars[0].aval.ndim, eqn.outvars[0].aval.ndim
    return (rule, numbers) if ranks == _RANKS[rule] else None

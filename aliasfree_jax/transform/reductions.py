"""Reductions and products: over all places they are invariant, over channels they leave the grid alone."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax

from aliasfree_jax.transform.bands import multiplied
from aliasfree_jax.transform.interpreter import Transformation, TransformError, rebound, rule
from aliasfree_jax.transform.lines import here
from aliasfree_jax.transform.maps import Map
from aliasfree_jax.transform.values import Held, Plain, Pointwise, Value, plain

REDUCTIONS = (
    "reduce_sum",
    "reduce_max",
    "reduce_min",
    "reduce_prod",
    "reduce_and",
    "reduce_or",
    "argmax",
    "argmin",
)


@rule(*REDUCTIONS, pointwise=True)
def reduce(how: Transformation, eqn: Any, value: Map | Pointwise) -> list[Value]:
    """Over rows and columns together the result is plain; within blocks (a pool) what is pending stays so.

    Over channels (a norm of each place) the map is sampled first: a phase shall be chosen while places differ
    in their norms, and the norm computed where it is used.
    Sums over images and places are statistics (batch norm): they are taken over all places, whatever is
    pending, scaled to the places that the program counts, and decide no phase.

    Raises:
      TransformError: over rows alone, or over columns alone.
    """
    axes = tuple(eqn.params["axes"])
    root = value if isinstance(value, Map) else value.roots[0]
    reduced = {base for dim in axes for base in root.groups[dim]}
    within = reduced & set(root.space)
    if len(within) == 1:
        raise TransformError(eqn, "reduces rows or columns alone", "Reduce over both at once (axis=(1, 2))")
    places = bool(within) and eqn.primitive.name == "reduce_sum"
    if isinstance(value, Pointwise):
        # Sums of products over all places are those on any grid that is fine enough for the maps alone.
        if places and value.degree <= 2:
            array = value.at({id(r): r.array for r in value.roots})
            value = dataclasses.replace(root, array=array, band=value.band)
        else:
            value = how.activated(value)
    if not within:
        if not reduced & set(value.blocks):
            value = how.settle(eqn, value)
        if eqn.primitive.name != "reduce_sum":
            value = how.not_pointwise(eqn, value, "compares or multiplies channels,")
        y = rebound(eqn, value.merged())[0]
        return [value.rebuilt(y, [group for dim, group in enumerate(value.groups) if dim not in axes])]
    if eqn.primitive.name.startswith("arg"):
        raise TransformError(eqn, "gives a place on the map", "It moves with the image: use it outside")
    statistics = places and bool(reduced & set(value.batch)) and not value.settled
    value = how.from_start(eqn, value) if statistics else how.seen(eqn, value)
    value = how.read(value, (0, 0)) if places else how.read(how.unbounded(eqn, value))
    y = rebound(eqn, value.merged())[0]
    return [plain(y * value.share if places and value.share != 1 else y)]


@rule("dot_general")
def product(how: Transformation, eqn: Any, left: Map | Plain, right: Map | Plain) -> list[Value]:
    """A linear layer over channels, or the product of two maps over all places."""
    (contracted, batched) = eqn.params["dimension_numbers"]
    maps = [(side, value) for side, value in enumerate((left, right)) if isinstance(value, Map)]
    seen = {side: how.seen(eqn, value) for side, value in maps}
    arrays = [seen[side].merged() if side in seen else v.full() for side, v in enumerate((left, right))]  # type: ignore[union-attr]
    spatial = {
        side: [_spatial(value, contracted[side]), _spatial(value, batched[side])]
        for side, value in seen.items()
    }
    y = rebound(eqn, *arrays)[0]
    if len(seen) == 2:
        return [_of_maps(how, eqn, seen, contracted, batched, y, spatial)]
    side, value = next(iter(seen.items()))
    if any(spatial[side]):
        raise TransformError(
            eqn,
            "gives every place a weight of its own (a linear layer on a flattened map, a resize by matrices)",
            "Take the mean over rows and columns before it; resize by layers.IdealUpsample or "
            "PolyphaseUpsample",
        )
    return [value.rebuilt(y, _sources(value, side, contracted[side], batched[side], y.ndim))]


def _spatial(value: Map, dims: Sequence[int]) -> list[int]:
    return [dim for dim in dims if value.spatial(dim)]


def _sources(
    value: Map, side: int, contracted: Sequence[int], batched: Sequence[int], ndim: int
) -> list[Any]:
    """What the axes of a product are in its operand `value`: those of a batch, of the left, of the right."""
    free = [dim for dim in range(value.ndim) if dim not in (*contracted, *batched)]
    sources: list[Any] = [value.groups[dim] for dim in batched] + [None] * (ndim - len(batched))
    start = len(batched) if side == 0 else ndim - len(free)
    for i, dim in enumerate(free):
        sources[start + i] = value.groups[dim]
    return sources


def _of_maps(
    how: Transformation,
    eqn: Any,
    seen: dict[int, Map],
    contracted: Sequence[Sequence[int]],
    batched: Sequence[Sequence[int]],
    y: jax.Array,
    spatial: dict[int, list[list[int]]],
) -> Value:
    """Two maps: all places contracted, or the product at each place."""
    left, right = seen[0], seen[1]
    if left.grid != right.grid:
        raise TransformError(eqn, "multiplies maps that are sampled at different places", "Sample both alike")
    for kind, dims in ((0, contracted), (1, batched)):
        places = [[dims[side].index(dim) for dim in spatial[side][kind]] for side in (0, 1)]
        bases = [
            [
                base
                for dim in spatial[side][kind]
                for base in seen[side].groups[dim]
                if base in seen[side].space
            ]
            for side in (0, 1)
        ]
        if places[0] != places[1] or len(bases[0]) not in (0, 2):
            break
        if len(bases[0]) == 2 and [left.space.index(b) for b in bases[0]] == [
            right.space.index(b) for b in bases[1]
        ]:
            band = multiplied((left.band, right.band), here(eqn))
            if kind == 0:
                how.read(dataclasses.replace(left, band=band), (0, 0))
                return plain(y if left.share == 1 else y * left.share)
            return left.rebuilt(y, _sources(left, 0, contracted[0], batched[0], y.ndim), band=band)
    raise TransformError(
        eqn,
        "relates every place to every other (attention between positions)",
        "Attend between channels (cross-covariance), or pool first",
    )


@rule("optimization_barrier")
def barrier(how: Transformation, eqn: Any, *values: Held) -> list[Value]:
    """Values pass through."""
    return list(values)

"""Rules of reductions and products: invariant over all positions, on the same grid over channels."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from aliasfree_jax.transform.bands import multiplied
from aliasfree_jax.transform.interpreter import Transformation, TransformError, one_image, rebound, rule
from aliasfree_jax.transform.lines import here
from aliasfree_jax.transform.maps import Group, Map
from aliasfree_jax.transform.values import Held, Pointwise, Value, on_maps, plain

REDUCTIONS = "reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or argmax argmin".split()


@rule(*REDUCTIONS, pointwise=True)
def reduce(how: Transformation, eqn: Any, value: Map | Pointwise) -> list[Value]:
    """Reduces a map. Over rows and columns together, the result is a plain array.

    Within blocks (a pool), a pending stride stays pending. Over channels (a norm at each position), the map
    is sampled first: the phase is chosen while the norms of positions still differ. Sums over images and
    positions are batch statistics: they use all positions, apply no pending stride and choose no phase. They
    are scaled to the number of positions in the program.

    Raises:
      TransformError: The reduction is over rows alone, or over columns alone.
    """
    axes = tuple(eqn.params["axes"])
    root = value if isinstance(value, Map) else value.roots[0]
    reduced = {base for dim in axes for base in root.groups[dim]}
    within = reduced & set(root.space)
    if len(within) == 1:
        raise TransformError(eqn, "reduces rows or columns alone", "Reduce over both together (axis=(1, 2))")
    places = bool(within) and eqn.primitive.name == "reduce_sum"
    if isinstance(value, Pointwise):
        # A sum of products over all positions is exact on the maps' own grid.
        if places and value.degree <= 2:
            array = value.at({id(r): r.array for r in value.roots})
            value = dataclasses.replace(root, array=array, band=value.band)
        else:
            value = how.activated(value)
    if not within:
        if not reduced & set(value.blocks):
            value = how.settle(eqn, value)
        one_image(eqn, value, axes)
        if eqn.primitive.name != "reduce_sum":
            value = how.not_pointwise(eqn, value, "compares or multiplies channels,")
        y = rebound(eqn, value.merged())[0]
        return [value.rebuilt(y, [group for dim, group in enumerate(value.groups) if dim not in axes])]
    if eqn.primitive.name.startswith("arg"):
        raise TransformError(
            eqn, "returns a position, which moves with the image", "Use it outside of the function"
        )
    statistics = places and bool(reduced & set(value.batch)) and not value.settled
    value = how.from_start(eqn, value) if statistics else how.seen(eqn, value)
    if not places:
        value = how.not_pointwise(eqn, value, "compares or multiplies positions,")
    value = how.read(value, (0, 0) if places else None)
    y = rebound(eqn, value.merged())[0]
    return [plain(value.counted(y) if places else y)]


@rule("dot_general")
def product(how: Transformation, eqn: Any, *values: Held) -> list[Value]:
    """A linear layer over channels, or a product of two maps, over all positions or at each position."""
    contracted, batched = eqn.params["dimension_numbers"]
    values = tuple(on_maps(lambda value: how.seen(eqn, value), values))
    y = rebound(eqn, *(value.merged() if isinstance(value, Map) else value.full() for value in values))[0]
    maps = {side: value for side, value in enumerate(values) if isinstance(value, Map)}
    side, value = next(iter(maps.items()))
    if len(maps) == 1:
        if any(value.spatial(dim) for dim in (*contracted[side], *batched[side])):
            raise TransformError(
                eqn,
                "has a different weight for each position (a linear layer on a flattened map, a resize by "
                "matrices)",
                "Take the mean over rows and columns before it, or resize by layers.IdealUpsample or "
                "PolyphaseUpsample",
            )
        one_image(eqn, value, contracted[side])
        return [value.rebuilt(y, _sources(value, side, contracted[side], batched[side], y.ndim))]
    if value.grid != maps[1].grid:
        raise TransformError(
            eqn, "multiplies maps that are sampled at different positions", "Sample both alike"
        )
    for side, each in maps.items():  # a free axis of images meets all images of the other map
        one_image(eqn, each, {*range(each.ndim)} - {*contracted[side], *batched[side]})
    band = multiplied((value.band, maps[1].band), here(eqn))
    if _meet(maps, contracted):
        how.read(dataclasses.replace(value, band=band), (0, 0))
        return [plain(value.counted(y))]
    if _meet(maps, batched):
        one_image(eqn, value, contracted[0])
        if how.activations is not None:
            how.activations.refuse(eqn, "multiplies two maps at each position (write it with *),")
        return [value.rebuilt(y, _sources(value, 0, contracted[0], batched[0], y.ndim), band=band)]
    raise TransformError(
        eqn,
        "relates every position to every other (attention between positions)",
        "Attend between channels (cross-covariance), or pool first",
    )


def _meet(maps: dict[int, Map], dims: Sequence[Sequence[int]]) -> bool:
    """Whether these axes of two maps pair each position with itself."""
    return all(
        left in dims[0] and right in dims[1] and (dims[0].index(left), i) == (dims[1].index(right), j)
        for (left, i), (right, j) in zip(maps[0].places, maps[1].places, strict=True)
    )


def _sources(
    value: Map, side: int, contracted: Sequence[int], batched: Sequence[int], ndim: int
) -> list[Group]:
    """For each axis of a product, the base axes of its operand `value`: batch axes, left, right."""
    free = [value.groups[dim] for dim in range(value.ndim) if dim not in (*contracted, *batched)]
    new: list[Group] = [()] * (ndim - len(batched) - len(free))
    return [*(value.groups[dim] for dim in batched), *(new if side else free), *(free if side else new)]


@rule("optimization_barrier")
def barrier(how: Transformation, eqn: Any, *values: Held) -> list[Value]:
    """Values pass through."""
    return list(values)

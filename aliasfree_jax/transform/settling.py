"""Samples maps with a pending stride, and brings samples back to their original grid."""

import dataclasses
import math
import operator
import weakref
from collections.abc import Callable, MutableMapping
from fractions import Fraction
from typing import Any

import jax
import jax.numpy as jnp

from aliasfree_jax.layers import AdaptivePolyphase
from aliasfree_jax.layers.sampling import LinearSampler, Phase, first_places, steps_of
from aliasfree_jax.ops.polyphase import polyphase_upsample
from aliasfree_jax.transform.grids import ONE, Grid, Strides
from aliasfree_jax.transform.maps import Map, both


class ImagesError(ValueError):
    """A map has another number of images than the phases of its grid."""


@dataclasses.dataclass(frozen=True)
class Settling:
    """How maps are sampled and padded.

    Attributes:
      sampler: Makes a sampler for given strides.
      subsamples: Whether the sampler only subsamples. Operations then keep their strides.
      circular: Whether maps are circular. Otherwise they are padded as in the program.
      sampled: The sampled map of each map with a pending stride.
      phases: The phase of each sampled grid. The first map that is sampled decides it, all others follow.
      scope: Distinguishes these grids from those of functions that JAX traces separately.
    """

    sampler: Callable[..., Any]
    subsamples: bool
    circular: bool
    sampled: MutableMapping[Map, Map] = dataclasses.field(
        default_factory=weakref.WeakKeyDictionary, kw_only=True, compare=False
    )
    phases: dict[Grid, Any] = dataclasses.field(default_factory=dict, kw_only=True, compare=False)
    scope: object = dataclasses.field(default=None, kw_only=True)

    def chosen(self, grid: Grid, strides: Strides, by: Any = None) -> Grid:
        """The grid after sampling `grid` at a chosen phase. `by` names the way, if it is not one step."""
        return Grid(grid, "phase", (strides, by or self.scope))

    def sample(self, value: Map) -> Map:
        """Samples `value` by its pending stride. Its grid keeps the phase of an earlier sampling.

        Raises:
          ImagesError: The phase is that of another number of images.
        """
        if self.subsamples:
            return value.subsampled()
        grid = self.chosen(value.grid, value.stride)
        phase = self.phases.get(grid)
        sampler = self.sampler(strides=value.stride, parent=None)
        # Whole blocks have the same samples at every phase and would tie, so their first sample decides.
        if phase is None and value.blocks:
            phase = sampler.apply({}, value.first_of_blocks().images()[0], None, method="with_phase")[1]
        images, back = value.images()
        if phase is not None and len(phase[0]) not in (1, len(images)):
            raise ImagesError
        sampled, found = sampler.apply({}, images, phase, method="with_phase")
        if found is None:
            grid = value.grid.sampled(value.stride)
        else:
            self.phases[grid] = found
        array = back(sampled).astype(value.dtype)
        return dataclasses.replace(value, array=array, grid=grid, stride=ONE, first=(0, 0), blocks=())

    def spread(self, value: Map, strides: Strides) -> Map:
        """Puts `value` back at its original positions on a finer grid, and applies the sampler's filter.

        Without a chosen phase, the first position stays the first.

        Raises:
          KeyError: Its phase was chosen in a function that JAX traces separately.
        """
        images, back = value.images()
        grid = value.grid
        while strides != ONE:
            by, (row, column), grid = self._finer(grid, strides)
            phase = jnp.broadcast_to(row + by[0] * column, len(images))
            images = self._filtered(polyphase_upsample(images, phase, by), by)
            strides = both(operator.floordiv, strides, by)
        array = back(images).astype(value.dtype)
        return dataclasses.replace(value, array=array, grid=grid).all_seen()

    def _finer(self, grid: Grid, strides: Strides) -> tuple[Strides, tuple[Any, Any], Grid]:
        """One step to a grid finer by `strides` or a factor of them, with the first positions on it."""
        known = self._sampled_from(grid)
        by = both(math.gcd, known[1], strides) if known else ONE
        if known is None or by == ONE:
            return strides, (0, 0), grid.sampled((Fraction(1, strides[0]), Fraction(1, strides[1])))
        source, whole, places = known
        rest = both(operator.floordiv, whole, by)
        finer = source
        if rest != ONE:  # other maps may sample the same grid by smaller strides at another phase
            finer = self.chosen(source, rest, grid)
            self.phases[finer] = _phase_of(places[0] % rest[0], places[1] % rest[1], rest)
        return by, (places[0] // rest[0], places[1] // rest[1]), finer

    def _sampled_from(self, grid: Grid) -> tuple[Grid, Strides, tuple[jax.Array, jax.Array]] | None:
        """The grid from which `grid` was sampled, the strides, and the first positions."""
        choice: Any = grid.choice
        if grid.factor != ONE:
            return None
        if grid.kind == "phase":
            return grid.source, choice[0], first_places(self.phases[grid], choice[0])
        if grid.kind == "component" and jnp.issubdtype(choice.dtype, jnp.integer):
            strides = grid.source.choice  # chosen by this package's operations
            return grid.source.source, strides, first_places((choice.full(),), strides)
        return None

    def _filtered(self, images: jax.Array, strides: Strides) -> jax.Array:
        sampler: Any = self.sampler(strides=strides, parent=None)
        while not isinstance(sampler, LinearSampler):
            sampler = sampler.inner(strides=strides, parent=None)
        filtered: Any = sampler.apply({}, images, method="filter")
        return jnp.asarray(filtered)

    def commutes(self, grid: Grid, strides: Strides) -> bool:
        """Whether sampling a map of this grid commutes with a 1 x 1 convolution."""
        sampler = self.sampler(strides=strides, parent=None)
        if isinstance(sampler, AdaptivePolyphase) and self.chosen(grid, strides) in self.phases:
            sampler = sampler.inner(strides=strides, parent=None)
        return isinstance(sampler, LinearSampler) and sampler.circular()


def _phase_of(row: jax.Array, column: jax.Array, strides: Strides) -> Phase:
    """The phase of first samples at `row` and `column`: one number per sampling step."""
    phase = []
    for down, right in steps_of(strides):
        phase.append(row % down + down * (column % right))
        row, column = row // down, column // right
    return tuple(phase)

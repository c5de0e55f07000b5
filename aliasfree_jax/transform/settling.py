"""Sampling maps whose stride is pending, and bringing them back to the grid that they were sampled from."""

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
from aliasfree_jax.layers.sampling import LinearSampler, Phase, steps_of
from aliasfree_jax.ops.polyphase import polyphase_upsample
from aliasfree_jax.transform.grids import ONE, Grid, Strides
from aliasfree_jax.transform.maps import Map, both


@dataclasses.dataclass(frozen=True)
class Settling:
    """How maps are sampled and padded.

    Attributes:
      sampler: makes a sampler of given strides.
      subsamples: whether it takes every so many-th sample and nothing else: operations keep their strides.
      circular: whether maps lie on a circle; else they are padded as in the program.
      sampled: by maps with a pending stride, those that they have been sampled to.
      phases: of grids that were sampled at a phase, this phase: the first map that is sampled decides, all
        others follow.
      scope: tells these grids from those that other functions, which jax traces by themselves, have chosen.
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
        """The grid that maps of `grid` are sampled to at a phase; `by` tells how, if not at once."""
        return Grid(grid, "phase", (strides, by or self.scope))

    def sample(self, value: Map) -> Map:
        """`value` sampled by its pending stride, at the phase that its grid was sampled at before."""
        if self.subsamples:
            return value.subsampled()
        grid = self.chosen(value.grid, value.stride)
        phase = self.phases.get(grid)
        sampler = self.sampler(strides=value.stride, parent=None)
        if phase is None and value.blocks:  # all phases of a map have the same blocks: let one sample decide
            phase = sampler.apply({}, value.first_of_blocks().images()[0], None, method="with_phase")[1]
        images, back = value.images()
        sampled, found = sampler.apply({}, images, phase, method="with_phase")
        if found is None:
            grid = value.grid.sampled(value.stride)
        else:
            self.phases[grid] = found
        array = back(sampled).astype(value.dtype)
        return dataclasses.replace(value, array=array, grid=grid, stride=ONE, first=(0, 0), blocks=())

    def spread(self, value: Map, strides: Strides) -> Map:
        """`value` with zeros between its places, back where they were sampled, and filtered as for sampling.

        Where nobody chose a phase, the first place stays the first.

        Raises:
          KeyError: its phase was chosen in a function that jax traces by itself.
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
        """A step to a grid finer by `strides` or a part of them; the places of the first samples on it."""
        known = self._sampled_from(grid)
        by = both(math.gcd, known[1], strides) if known else ONE
        if known is None or by == ONE:
            return strides, (0, 0), grid.sampled((Fraction(1, strides[0]), Fraction(1, strides[1])))
        source, whole, places = known
        rest = both(operator.floordiv, whole, by)
        finer = source
        if rest != ONE:  # a way that others, who sample the same grid by less, need not take
            finer = self.chosen(source, rest, grid)
            self.phases[finer] = _phase_of(places[0] % rest[0], places[1] % rest[1], rest)
        return by, (places[0] // rest[0], places[1] // rest[1]), finer

    def _sampled_from(self, grid: Grid) -> tuple[Grid, Strides, tuple[jax.Array, jax.Array]] | None:
        """The grid that one was sampled from at a phase, by which strides, and where its first places are."""
        choice: Any = grid.choice
        if grid.factor != ONE:
            return None
        if grid.kind == "phase":
            return grid.source, choice[0], _first_places(self.phases[grid], choice[0])
        if grid.kind == "component" and jnp.issubdtype(choice.dtype, jnp.integer):
            strides = grid.source.choice  # this package's own operations have chosen it
            return grid.source.source, strides, _first_places((choice.full(),), strides)
        return None

    def _filtered(self, images: jax.Array, strides: Strides) -> jax.Array:
        sampler: Any = self.sampler(strides=strides, parent=None)
        while not isinstance(sampler, LinearSampler):
            sampler = sampler.inner(strides=strides, parent=None)
        filtered: Any = sampler.apply({}, images, method="filter")
        return jnp.asarray(filtered)

    def commutes(self, grid: Grid, strides: Strides) -> bool:
        """Whether maps of a grid may be sampled before a 1 x 1 convolution as well as behind it."""
        sampler = self.sampler(strides=strides, parent=None)
        if isinstance(sampler, AdaptivePolyphase) and self.chosen(grid, strides) in self.phases:
            sampler = sampler.inner(strides=strides, parent=None)
        return isinstance(sampler, LinearSampler) and sampler.circular()


def _first_places(phase: Any, strides: Strides) -> tuple[jax.Array, jax.Array]:
    """The row and column of each image's first sample."""
    row = column = jnp.zeros_like(phase[0])
    rows = columns = 1
    for (down, right), index in zip(steps_of(strides), phase, strict=True):
        row, column = row + rows * (index % down), column + columns * (index // down)
        rows, columns = rows * down, columns * right
    return row, column


def _phase_of(row: jax.Array, column: jax.Array, strides: Strides) -> Phase:
    """The phase of first samples at `row` and `column`, one number a step of sampling."""
    phase = []
    for down, right in steps_of(strides):
        phase.append(row % down + down * (column % right))
        row, column = row // down, column // right
    return tuple(phase)

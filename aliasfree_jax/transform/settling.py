"""Sampling maps whose stride is pending, and padding by their circle."""

import dataclasses
import weakref
from collections.abc import Callable, MutableMapping
from typing import Any

import jax

from aliasfree_jax.layers import AdaptivePolyphase
from aliasfree_jax.layers.sampling import LinearSampler
from aliasfree_jax.transform.grids import ONE, Grid, Strides
from aliasfree_jax.transform.maps import Map


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
    phases: dict[Grid, jax.Array] = dataclasses.field(default_factory=dict, kw_only=True, compare=False)
    scope: object = dataclasses.field(default=None, kw_only=True)

    def chosen(self, grid: Grid, strides: Strides) -> Grid:
        """The grid that maps of `grid` are sampled to at a phase."""
        return Grid(grid, "phase", (strides, self.scope))

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

    def commutes(self, grid: Grid, strides: Strides) -> bool:
        """Whether maps of a grid may be sampled before a 1 x 1 convolution as well as behind it."""
        sampler = self.sampler(strides=strides, parent=None)
        if isinstance(sampler, AdaptivePolyphase) and self.chosen(grid, strides) in self.phases:
            sampler = sampler.inner(strides=strides, parent=None)
        return isinstance(sampler, LinearSampler) and sampler.circular()

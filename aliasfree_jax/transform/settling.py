"""Sampling maps whose stride is pending, and padding by their circle."""

import dataclasses
import weakref
from collections.abc import Callable, MutableMapping
from typing import Any

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
    """

    sampler: Callable[..., Any]
    subsamples: bool
    circular: bool
    sampled: MutableMapping[Map, Map] = dataclasses.field(
        default_factory=weakref.WeakKeyDictionary, kw_only=True, compare=False
    )

    def sample(self, value: Map) -> Map:
        """`value` sampled by its pending stride, at the phase that its grid was sampled at before."""
        if self.subsamples:
            return value.subsampled()
        known, phase = value.grid.coarser.get(value.stride, (None, None))
        sampler = self.sampler(strides=value.stride, parent=None)
        if known is None and value.blocks:  # all phases of a map have the same blocks: let one sample decide
            phase = sampler.apply({}, value.first_of_blocks().images()[0], None, method="with_phase")[1]
        images, back = value.images()
        sampled, found = sampler.apply({}, images, phase, method="with_phase")
        if found is None:
            known = value.grid.sampled(value.stride)
        elif known is None:
            known = Grid()
            value.grid.coarser[value.stride] = known, found
        array = back(sampled).astype(value.dtype)
        return dataclasses.replace(value, array=array, grid=known, stride=ONE, first=(0, 0), blocks=())

    def commutes(self, grid: Grid, strides: Strides) -> bool:
        """Whether maps of a grid may be sampled before a 1 x 1 convolution as well as behind it."""
        sampler = self.sampler(strides=strides, parent=None)
        if isinstance(sampler, AdaptivePolyphase) and grid.coarser.get(strides, (None, None))[1]:
            sampler = sampler.inner(strides=strides, parent=None)
        return isinstance(sampler, LinearSampler) and sampler.circular()

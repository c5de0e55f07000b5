"""Sampling maps whose stride is pending, and padding by their circle."""

import dataclasses
from collections.abc import Callable
from typing import Any

from aliasfree_jax.transform.values import ONE, Grid, Map


@dataclasses.dataclass(frozen=True)
class Settling:
    """How maps are sampled and padded.

    Attributes:
      sampler: makes a sampler of given strides.
      subsamples: whether it takes every so many-th sample and nothing else: operations keep their strides.
      circular: whether maps lie on a circle; else they are padded as in the program.
    """

    sampler: Callable[..., Any]
    subsamples: bool
    circular: bool

    def sample(self, value: Map) -> Map:
        """`value` sampled by its pending stride, at the phase that its grid was sampled at before."""
        known, phase = value.grid.coarser.get(value.stride, (None, None))
        images, back = value.images()
        sampled, found = self.sampler(strides=value.stride, parent=None).apply(
            {}, images, phase, method="with_phase"
        )
        if found is None:
            known = value.grid.sampled(value.stride)
        elif known is None:
            known = Grid()
            value.grid.coarser[value.stride] = known, found
        rows, columns = value.seen_sides
        array, window = back(sampled).astype(value.dtype), ((0, rows), (0, columns))
        return dataclasses.replace(value, array=array, grid=known, stride=ONE, window=window)

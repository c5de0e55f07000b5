"""Sampling maps whose stride is pending, and padding by their circle."""

import dataclasses
import math
import weakref
from collections.abc import Callable, MutableMapping
from typing import Any

from aliasfree_jax.transform.values import ONE, Grid, Map


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
        known, phase = value.grid.coarser.get(value.stride, (None, None))
        first = [*value.batch, *value.space]
        order = first + [axis for axis in range(value.array.ndim) if axis not in first]
        images = value.array.transpose(order)
        split = len(value.batch)
        nhwc = images.reshape(-1, *images.shape[split : split + 2], math.prod(images.shape[split + 2 :]))
        sampler = self.sampler(strides=value.stride, parent=None)
        sampled, found = sampler.apply({}, nhwc, phase, method="with_phase")
        if found is None:
            known = value.grid.sampled(value.stride)
        elif known is None:
            known = Grid()
            value.grid.coarser[value.stride] = known, found
        rows, columns = sampled.shape[1:3]
        array = sampled.reshape(*images.shape[:split], rows, columns, *images.shape[split + 2 :])
        array = array.transpose([order.index(axis) for axis in range(len(order))]).astype(value.dtype)
        window = ((0, rows), (0, columns))
        return dataclasses.replace(value, array=array, grid=known, stride=ONE, window=window)

"""Upsamplers, which take the phases that a sampler chose: `upsampler(x, phase) -> y`.

Writing samples back at the phase they came from, then filtering, commutes with integer circular
shifts together with the sampler: the decoder of a network for dense prediction.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.layers.numerics import Numerics
from aliasfree_jax.layers.sampling import FilteredSampler, Phase, Subsample, steps_of
from aliasfree_jax.ops.polyphase import polyphase_upsample
from aliasfree_jax.ops.resample import ideal_upsample


class PolyphaseUpsampler(nn.Module):
    """Zeros between the samples, then a filter: the mirror image of a sampler of the same `inner`.

    ApsUp of truly_shift_invariant_cnns (there with gain 1), LPU of learnable_polyphase_sampling, and blur
    upsampling, by the choice of `inner`.

    Attributes:
      inner: sampler whose filter runs after each step; `Subsample` leaves the zeros.
      gain: factor for each step; None: stride^2, with which constants keep their value.
    """

    stride: int = 2
    inner: Callable[..., FilteredSampler] = Subsample
    gain: float | None = None
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: jax.Array, phase: Phase = None, *, train: bool = False) -> jax.Array:
        """[N, h, w, C] to [N, stride h, stride w, C]; without `phase` the samples stand at phase 0."""
        steps = steps_of(self.stride)
        for step, factor in reversed(list(enumerate(steps))):
            index = jnp.zeros(x.shape[0], jnp.int32) if phase is None else phase[step]
            inner: Any = self.inner(stride=factor, numerics=self.numerics, name=f"inner{step}")
            x = inner.filter(polyphase_upsample(x, index, (factor, factor)), train=train)
            gain = factor**2 if self.gain is None else self.gain
            x = x if gain == 1 else x * jnp.asarray(gain, x.dtype)
        return x


class IdealUpsampler(nn.Module):
    """Ideal interpolation, exact for fractional shifts; a phase moves the result by whole pixels."""

    stride: int = 2
    numerics: Numerics = Numerics()

    def __call__(self, x: jax.Array, phase: Phase = None, *, train: bool = False) -> jax.Array:
        """[N, h, w, C] to [N, stride h, stride w, C]; without `phase` the samples stand at phase 0."""
        y = ideal_upsample(x, self.stride, precision=self.numerics.precision)
        if phase is None:
            return y
        row = column = jnp.zeros_like(phase[0])
        step = 1
        for factor, index in zip(steps_of(self.stride), phase, strict=True):
            row, column = row + step * (index % factor), column + step * (index // factor)
            step *= factor
        return jax.vmap(lambda image, r, c: jnp.roll(image, (r, c), axis=(0, 1)))(y, row, column)

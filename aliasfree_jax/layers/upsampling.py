"""Upsamplers, which can take the phases that a sampler chose: `upsampler(x, phase) -> y`.

Writing samples back at the phase they came from, then filtering, commutes with integer circular
shifts together with the sampler: the decoder of a network for dense prediction.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.layers.layer import Layer, part
from aliasfree_jax.layers.sampling import Phase, SamplerFactory, Subsample, steps_of
from aliasfree_jax.ops.polyphase import polyphase_upsample
from aliasfree_jax.ops.resample import ideal_upsample
from aliasfree_jax.ops.shapes import Pair, check_images


class PolyphaseUpsample(Layer):
    """Zeros between the samples, then a filter: the mirror image of a sampler of the same `inner`.

    ApsUp of truly_shift_invariant_cnns (there with gain 1), LPU of learnable_polyphase_sampling, and blur
    upsampling, by the choice of `inner`.

    Attributes:
      inner: sampler whose filter runs after each step; `Subsample` leaves the zeros.
      gain: factor for each step; None: the number of phases, with which constants keep their value.
    """

    strides: Pair = 2
    inner: SamplerFactory = part(Subsample)
    gain: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array, phase: Phase = None, *, train: bool = False) -> jax.Array:
        """[N, h, w, C] to [N, stride h, stride w, C]; without `phase` the samples stand at phase 0."""
        check_images(x)
        x = self.cast(x)
        for step, factors in reversed(list(enumerate(steps_of(self.strides)))):
            index = jnp.zeros(x.shape[0], jnp.int32) if phase is None else phase[step]
            inner: Any = self.inner(strides=factors, **self.numerics, name=f"inner{step}")
            x = inner.filter(polyphase_upsample(x, index, factors), train=train)
            gain = factors[0] * factors[1] if self.gain is None else self.gain
            x = x if gain == 1 else x * jnp.asarray(gain, x.dtype)
        return x


class IdealUpsample(Layer):
    """Ideal interpolation, exact for fractional shifts; a phase moves the result by whole pixels."""

    strides: Pair = 2

    def __call__(self, x: jax.Array, phase: Phase = None, *, train: bool = False) -> jax.Array:
        """[N, h, w, C] to [N, stride h, stride w, C]; without `phase` the samples stand at phase 0."""
        check_images(x)
        y = ideal_upsample(self.cast(x), self.strides, precision=self.exact)
        if phase is None:
            return y
        row = column = jnp.zeros_like(phase[0])
        rows = columns = 1
        for (down, right), index in zip(steps_of(self.strides), phase, strict=True):
            row, column = row + rows * (index % down), column + columns * (index // down)
            rows, columns = rows * down, columns * right
        return jax.vmap(lambda image, r, c: jnp.roll(image, (r, c), axis=(0, 1)))(y, row, column)

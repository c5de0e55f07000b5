"""Samplers of sequences [N, L, C]: the layers for maps, in one dimension and without learned parts."""

import flax.linen as nn
import jax

from aliasfree_jax.layers.adaptive import AdaptivePolyphase
from aliasfree_jax.layers.layer import Layer
from aliasfree_jax.layers.sampling import Phase, PolyphaseUpsample
from aliasfree_jax.ops.padding import Padding
from aliasfree_jax.ops.polyphase import Criterion
from aliasfree_jax.ops.sequence import (
    blur_1d,
    check_sequences,
    ideal_downsample_1d,
    ideal_upsample_1d,
)


class BlurPool1D(Layer):
    """`BlurPool` of sequences."""

    strides: int = 2
    kernel_size: int = 3
    padding: Padding = "CIRCULAR"

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, L, C] to [N, ceil(L / stride), C]. Raises `ShapeError` for other arrays."""
        check_sequences(x, self.strides)
        return blur_1d(self.cast(x), self.kernel_size, self.strides, self.padding)


class IdealDownsample1D(Layer):
    """`IdealDownsample` of sequences."""

    strides: int = 2
    any_size: bool = False

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, L, C] to [N, ceil(L / stride), C]. Raises `ShapeError` for other arrays."""
        check_sequences(x, self.strides)
        return ideal_downsample_1d(self.cast(x), self.strides, any_size=self.any_size, precision=self.exact)


class IdealUpsample1D(Layer):
    """`IdealUpsample` of sequences."""

    strides: int = 2

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, l, C] to [N, stride l, C]. Raises `ShapeError` for other arrays."""
        return ideal_upsample_1d(self.cast(x), self.strides, precision=self.exact)


class AdaptivePolyphase1D(Layer):
    """`AdaptivePolyphase` of sequences.

    Attributes:
      odd_padding: for lengths that the stride does not divide.
    """

    strides: int = 2
    criterion: Criterion = "l2"
    odd_padding: Padding = "CIRCULAR"

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, L, C] to [N, ceil(L / stride), C]. Raises `ShapeError` for other arrays."""
        return self.with_phase(x)[0]

    @nn.compact
    def with_phase(self, x: jax.Array, phase: Phase = None) -> tuple[jax.Array, Phase]:
        """The sampled sequence and its phase: the one that is passed, if any."""
        check_sequences(x, self.strides)
        sampler = AdaptivePolyphase(
            (self.strides, 1), criterion=self.criterion, odd_padding=self.odd_padding, **self.numerics
        )
        y, phase = sampler.with_phase(x[:, :, None], phase)
        return y[:, :, 0], phase


class PolyphaseUpsample1D(Layer):
    """`PolyphaseUpsample` of sequences: zeros between the samples; constants keep their mean."""

    strides: int = 2

    @nn.compact
    def __call__(self, x: jax.Array, phase: Phase = None) -> jax.Array:
        """[N, l, C] to [N, stride l, C]; without `phase` the samples stand at phase 0."""
        check_sequences(x)
        upsampler = PolyphaseUpsample((self.strides, 1), **self.numerics)
        return upsampler(x[:, :, None], phase)[:, :, 0]

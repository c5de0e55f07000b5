"""Samplers of sequences [N, L, C]: the layers for maps, in one dimension and without learned parts."""

import jax
import jax.numpy as jnp

from aliasfree_jax.layers.layer import Layer
from aliasfree_jax.ops.padding import Padding
from aliasfree_jax.ops.polyphase import Criterion
from aliasfree_jax.ops.sequence import (
    blur_1d,
    ideal_downsample_1d,
    ideal_upsample_1d,
    polyphase_downsample_1d,
    polyphase_upsample_1d,
)


class BlurPool1D(Layer):
    """`BlurPool` of sequences."""

    strides: int = 2
    kernel_size: int = 3
    padding: Padding = "CIRCULAR"

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, L, C] to [N, ceil(L / stride), C]. Raises `ShapeError` for other arrays."""
        return blur_1d(self.cast(x), self.kernel_size, self.strides, self.padding)


class IdealDownsample1D(Layer):
    """`IdealDownsample` of sequences."""

    strides: int = 2
    any_size: bool = False

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, L, C] to [N, ceil(L / stride), C]. Raises `ShapeError` for other arrays."""
        return ideal_downsample_1d(self.cast(x), self.strides, any_size=self.any_size, precision=self.exact)


class IdealUpsample1D(Layer):
    """`IdealUpsample` of sequences."""

    strides: int = 2

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, l, C] to [N, stride l, C]. Raises `ShapeError` for other arrays."""
        return ideal_upsample_1d(self.cast(x), self.strides, precision=self.exact)


class AdaptivePolyphase1D(Layer):
    """`AdaptivePolyphase` of sequences; any stride in one step.

    Attributes:
      padding: for lengths that the stride does not divide.
    """

    strides: int = 2
    criterion: Criterion = "l2"
    padding: Padding = "CIRCULAR"

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, L, C] to [N, ceil(L / stride), C]. Raises `ShapeError` for other arrays."""
        return self.with_phase(x)[0]

    def with_phase(self, x: jax.Array, phase: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """The sampled sequence and its phase [N]: the one that is passed, if any."""
        return polyphase_downsample_1d(
            self.cast(x), self.criterion, phase, strides=self.strides, padding=self.padding
        )


class PolyphaseUpsample1D(Layer):
    """Writes samples back at their phase, with zeros between; times `strides`, so that the mean stays."""

    strides: int = 2

    def __call__(self, x: jax.Array, phase: jax.Array | None = None) -> jax.Array:
        """[N, l, C] to [N, stride l, C]; without `phase` [N] the samples stand at phase 0."""
        phase = jnp.zeros(x.shape[0], jnp.int32) if phase is None else phase
        y = polyphase_upsample_1d(self.cast(x), phase, self.strides)
        return y * jnp.asarray(self.strides, y.dtype)

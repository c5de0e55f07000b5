"""Samplers of sequences `[N, L, C]`: the layers for maps in one dimension, without learned parts."""

import flax.linen as nn
import jax

from aliasfree_jax.layers.adaptive import AdaptivePolyphase
from aliasfree_jax.layers.layer import Layer
from aliasfree_jax.layers.sampling import Phase
from aliasfree_jax.layers.upsampling import PolyphaseUpsample
from aliasfree_jax.ops.padding import Padding
from aliasfree_jax.ops.polyphase import Criterion
from aliasfree_jax.ops.sequence import (
    blur_1d,
    check_sequences,
    ideal_downsample_1d,
    ideal_upsample_1d,
)


class BlurPool1D(Layer):
    """Blurs sequences with a binomial filter, then keeps every `strides`-th sample.

    Attributes:
      strides: sampling stride.
      kernel_size: taps of the filter, 1 to 7.
      padding: how the sequence continues beyond its ends.

    Source: Zhang 2019 (arXiv 1904.11486), section 3.2 (BlurPool1D of antialiased-cnns).
    """

    strides: int = 2
    kernel_size: int = 3
    padding: Padding = "CIRCULAR"

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, L, C]` to `[N, ceil(L / stride), C]`.

        Raises:
          ShapeError: `x` is not floating-point `[N, L, C]`, or shorter than the stride.
        """
        check_sequences(x, self.strides)
        return blur_1d(self.cast(x), self.kernel_size, self.strides, self.padding)


class IdealDownsample1D(Layer):
    """Ideal low-pass filter at 1 / stride of the Nyquist frequency, then sampling, for sequences.

    It is exact for every fractional shift if the stride divides the length.

    Attributes:
      strides: sampling stride.
      any_size: whether every length is sampled evenly; see `IdealDownsample`.

    Source: this package, after Michaeli et al. 2023 (arXiv 2303.08085), section 3.1.
    """

    strides: int = 2
    any_size: bool = False

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, L, C]` to `[N, ceil(L / stride), C]`.

        Raises:
          ShapeError: `x` is not floating-point `[N, L, C]`, or shorter than the stride.
        """
        check_sequences(x, self.strides)
        return ideal_downsample_1d(self.cast(x), self.strides, any_size=self.any_size, precision=self.exact)


class IdealUpsample1D(Layer):
    """Ideal interpolation of sequences, exact for fractional shifts.

    Attributes:
      strides: upsampling stride.

    Source: this package, after Michaeli et al. 2023 (arXiv 2303.08085), section 3.2.
    """

    strides: int = 2

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, l, C]` to `[N, stride l, C]`.

        Raises:
          ShapeError: `x` is not floating-point `[N, l, C]`.
        """
        return ideal_upsample_1d(self.cast(x), self.strides, precision=self.exact)


class AdaptivePolyphase1D(Layer):
    """Adaptive polyphase sampling of sequences; see `AdaptivePolyphase`.

    Attributes:
      strides: sampling stride.
      criterion: the score; see `ops.component_scores`.
      odd_padding: padding of lengths that are not multiples of the stride.

    Source: this package, after APS (Chaman & Dokmanic 2021, arXiv 2011.14214).
    """

    strides: int = 2
    criterion: Criterion = "l2"
    odd_padding: Padding = "CIRCULAR"

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, L, C]` to `[N, ceil(L / stride), C]`.

        Raises:
          ShapeError: `x` is not floating-point `[N, L, C]`, or shorter than the stride.
        """
        return self.with_phase(x)[0]

    @nn.compact
    def with_phase(self, x: jax.Array, phase: Phase = None) -> tuple[jax.Array, Phase]:
        """Returns the sampled sequence and its phase. A given phase is used instead of choosing one."""
        check_sequences(x, self.strides)
        sampler = AdaptivePolyphase(
            (self.strides, 1), criterion=self.criterion, odd_padding=self.odd_padding, **self.numerics
        )
        y, phase = sampler.with_phase(x[:, :, None], phase)
        return y[:, :, 0], phase


class PolyphaseUpsample1D(Layer):
    """Writes samples of sequences back at the phase they came from; see `PolyphaseUpsample`.

    Zeros fill the other positions. The gain preserves the mean of constants.

    Attributes:
      strides: upsampling stride.

    Source: this package, after APS-U (Chaman & Dokmanic 2021, arXiv 2105.04040).
    """

    strides: int = 2

    @nn.compact
    def __call__(self, x: jax.Array, phase: Phase = None) -> jax.Array:
        """`[N, l, C]` to `[N, stride l, C]`.

        Args:
          phase: phase that a sampler with the same stride chose. None: phase 0.

        Raises:
          ShapeError: `x` is not floating-point `[N, l, C]`.
        """
        check_sequences(x)
        upsampler = PolyphaseUpsample((self.strides, 1), **self.numerics)
        return upsampler(x[:, :, None], phase)[:, :, 0]

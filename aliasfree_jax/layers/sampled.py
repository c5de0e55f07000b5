"""Layers with an injected sampler: a max pool (Zhang 2019) and a convolution."""

import flax.linen as nn
import jax

from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.layer import Initializer, Layer, lecun_normal, part
from aliasfree_jax.layers.sampling import (
    BlurPool,
    LinearSampler,
    Phase,
    Sampler,
    SamplerFactory,
    Subsample,
    Temperature,
)
from aliasfree_jax.ops.padding import WindowPadding
from aliasfree_jax.ops.pooling import max_pool
from aliasfree_jax.ops.shapes import Pair, check_images, pair


def sampled_maxima(
    sampler: Sampler,
    x: jax.Array,
    window_shape: Pair,
    padding: WindowPadding,
    phase: Phase = None,
    *,
    train: bool = False,
    temperature: Temperature = 1.0,
) -> tuple[jax.Array, Phase]:
    """Returns the sampled maxima of windows of `[N, H, W, C]` and their phase; see `MaxBlurPool`."""
    if phase is None and isinstance(sampler, Subsample):
        return max_pool(x, window_shape, sampler.strides, padding), None
    pooled = max_pool(x, window_shape, 1, padding)
    return sampler.with_phase(pooled, phase, train=train, temperature=temperature)


class MaxBlurPool(Layer):
    """Max pool at stride 1, then a sampler, by default a blur.

    With circular padding it is exact for the same integer shifts as its sampler. A maximum aliases, so it is
    not exact for fractional shifts, except with `window_shape=1`.

    Attributes:
      window_shape: size of the windows. 1 leaves the max pool out.
      strides: strides of the sampler.
      padding: padding of the max pool; see `ops.max_pool`.
      sampler: the sampler, a module class or `Factory`. `Subsample` makes a plain strided max pool.

    Source: Zhang 2019 (arXiv 1904.11486), section 3.2.
    """

    window_shape: Pair = 2
    strides: Pair = 2
    padding: WindowPadding = "VALID"
    sampler: SamplerFactory = part(BlurPool)

    def __call__(self, x: jax.Array, *, train: bool = False, temperature: Temperature = 1.0) -> jax.Array:
        """Returns the sampled map of `[N, H, W, C]`.

        Raises:
          ShapeError: the map is too small.
        """
        return self.with_phase(x, train=train, temperature=temperature)[0]

    @nn.compact
    def with_phase(
        self, x: jax.Array, phase: Phase = None, *, train: bool = False, temperature: Temperature = 1.0
    ) -> tuple[jax.Array, Phase]:
        """Returns the sampled map and its phase. A given phase is used instead of choosing one."""
        check_images(x, pair(self.strides, "strides"))
        x = self.cast(x)
        sampler = self.sampler(strides=self.strides, **self.numerics, name="sampler")
        pool = self.window_shape, self.padding
        return sampled_maxima(sampler, x, *pool, phase, train=train, temperature=temperature)


class SampledConv(Layer):
    """Convolution, then a sampler: `[N, H, W, C]` to `[N, H / stride, W / stride, features]`.

    With circular padding, the layer is exact for the same shifts as its sampler. If the sampler is also
    linear and circular, only the coarse grid is computed.

    Attributes:
      features: output channels.
      kernel_size: size of the kernel.
      strides: strides of the sampler.
      sampler: the sampler, a module class or `Factory`.
      padding: padding of the convolution at stride 1. With "VALID" and `Subsample`, the convolution itself
        is strided.
      use_bias: whether to add a bias.
      kernel_init: initializer of the kernel.

    Source: Zhang 2019 (arXiv 1904.11486), section 3.2, and Michaeli et al. 2023 (arXiv 2303.08085), section
    3.1; the computation on the coarse grid is this package's.
    """

    features: int
    kernel_size: Pair
    strides: Pair = 2
    sampler: SamplerFactory = part(BlurPool)
    padding: WindowPadding = "CIRCULAR"
    use_bias: bool = True
    kernel_init: Initializer = lecun_normal

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, temperature: Temperature = 1.0) -> jax.Array:
        """Convolves and samples.

        Raises:
          ShapeError: the map is too small.
        """
        strides = pair(self.strides, "strides")
        check_images(x, strides)

        def conv(strides: tuple[int, int], padding: WindowPadding) -> Conv:
            return Conv(
                self.features,
                self.kernel_size,
                strides,
                padding,
                use_bias=self.use_bias,
                kernel_init=self.kernel_init,
                **self.numerics,
                name="conv",
            )

        sampler = self.sampler(strides=self.strides, **self.numerics, name="sampler")
        if isinstance(sampler, Subsample):
            return conv(strides, self.padding)(x)
        if self.padding == "CIRCULAR" and isinstance(sampler, LinearSampler) and sampler.circular():
            taps, strides = sampler.taps(self.cast(x), pair(self.kernel_size, "kernel_size"))
            return conv(strides, "VALID")(taps)
        return sampler(conv((1, 1), self.padding)(x), train=train, temperature=temperature)

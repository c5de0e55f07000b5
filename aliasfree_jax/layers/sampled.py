"""Layers that sample through an injected sampler: a max pool (Zhang 2019) or a convolution before it."""

import flax.linen as nn
import jax

from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.initializers import Initializer, lecun_normal
from aliasfree_jax.layers.layer import Layer, part
from aliasfree_jax.layers.sampling import BlurPool, LinearSampler, SamplerFactory, Subsample, Temperature
from aliasfree_jax.ops.padding import WindowPadding
from aliasfree_jax.ops.pooling import max_pool
from aliasfree_jax.ops.shapes import Pair, check_images, pair


class MaxBlurPool(Layer):
    """Max pool at stride 1, then a sampler, by default a blur (Zhang 2019, arXiv 1904.11486, section 3.2).

    Attributes:
      window_shape: of the maxima; 1 leaves the pool out (its maximum is a non-linearity that aliases).
      padding: as in `ops.max_pool`.
      sampler: with `Subsample` it is the plain strided max pool.
    """

    window_shape: Pair = 2
    strides: Pair = 2
    padding: WindowPadding = "VALID"
    sampler: SamplerFactory = part(BlurPool)

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, temperature: Temperature = 1.0) -> jax.Array:
        """[N, H, W, C] to the sampled map. Raises `ShapeError` for maps that are too small."""
        check_images(x, pair(self.strides, "strides"))
        x = self.cast(x)
        sampler = self.sampler(strides=self.strides, **self.numerics, name="sampler")
        if isinstance(sampler, Subsample):
            return max_pool(x, self.window_shape, self.strides, self.padding)
        pooled = max_pool(x, self.window_shape, 1, self.padding)
        y: jax.Array = sampler(pooled, train=train, temperature=temperature)
        return y


class SampledConv(Layer):
    """A convolution followed by a sampler, [N, H, W, C] to [N, H / stride, W / stride, features].

    Attributes:
      padding: of the convolution at stride 1. With "VALID" and `Subsample` the convolution itself is strided.
    """

    features: int
    kernel_size: Pair
    strides: Pair = 2
    sampler: SamplerFactory = part(BlurPool)
    padding: WindowPadding = "CIRCULAR"
    kernel_init: Initializer = lecun_normal

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, temperature: Temperature = 1.0) -> jax.Array:
        """Convolve and sample. Raises `ShapeError` for maps that are too small."""
        strides = pair(self.strides, "strides")
        check_images(x, strides)

        def conv(strides: tuple[int, int], padding: WindowPadding) -> Conv:
            shape = (self.features, self.kernel_size, strides, padding)
            return Conv(*shape, kernel_init=self.kernel_init, **self.numerics, name="conv")

        sampler = self.sampler(strides=self.strides, **self.numerics, name="sampler")
        if self.padding == "VALID" and isinstance(sampler, Subsample):
            return conv(strides, "VALID")(x)
        if self.padding == "CIRCULAR" and isinstance(sampler, LinearSampler) and sampler.circular():
            taps, strides = sampler.taps(self.cast(x), pair(self.kernel_size, "kernel_size"))
            return conv(strides, "VALID")(taps)
        y: jax.Array = sampler(conv((1, 1), self.padding)(x), train=train, temperature=temperature)
        return y

"""Max pools that sample through an injected sampler: pool at stride 1, then sample (Zhang 2019)."""

import flax.linen as nn
import jax

from aliasfree_jax.layers.layer import Layer, part
from aliasfree_jax.layers.sampling import BlurPool, SamplerFactory, Subsample, Temperature
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

"""Max pools that sample through an injected sampler: pool at stride 1, then sample (Zhang 2019)."""

import flax.linen as nn
import jax

from aliasfree_jax.layers.numerics import Numerics
from aliasfree_jax.layers.sampling import Phase, SamplerFactory, Subsample, Temperature
from aliasfree_jax.ops.pooling import PoolPadding, max_pool


class SampledMaxPool(nn.Module):
    """Max pool of `size` at stride 1, then the sampler; plainly strided where that is the same.

    Attributes:
      size: of the windows; 1 leaves the pool out (its maximum is a non-linearity that aliases).
      padding: as in `ops.pooling.max_pool`.
    """

    size: int
    sampler: SamplerFactory
    padding: PoolPadding = "none"
    stride: int = 2
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(
        self, x: jax.Array, *, train: bool = False, temperature: Temperature = 1.0
    ) -> tuple[jax.Array, Phase]:
        """[N, H, W, C] to the sampled map, and the phase the sampler chose."""
        sampler = self.sampler(stride=self.stride, numerics=self.numerics, name="sampler")
        if isinstance(sampler, Subsample):
            return max_pool(x, self.size, self.stride, self.padding), None
        return sampler(max_pool(x, self.size, 1, self.padding), train=train, temperature=temperature)

"""Four convolutions and two samplers: the smallest network of learnable_polyphase_sampling."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.layers.activation import Relu
from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.initializers import fan_in_uniform
from aliasfree_jax.layers.numerics import Numerics, accurate_dtype
from aliasfree_jax.layers.sampling import SamplerFactory, Subsample, Temperature
from aliasfree_jax.models.inputs import check_input
from aliasfree_jax.ops.padding import Padding


class BasicClassifier(nn.Module):
    """Images [N, H, W, channels] to class logits [N, num_classes]: to try samplers on (LPS's "basic").

    Attributes:
      widths: of the two stages, each of two 3 x 3 convolutions, activations and a sampler.

    Training draws from the rng stream "gumbel" where the sampler is learned.
    """

    num_classes: int = 10
    widths: tuple[int, ...] = (32, 64)
    sampler: SamplerFactory = Subsample
    activation: Callable[..., nn.Module] = Relu
    padding: Padding = "circular"
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, temperature: Temperature = 1.0
    ) -> jax.Array:
        """Class logits, in float32 (float64 for float64 inputs)."""
        check_input(images)
        x = images if self.numerics.dtype is None else images.astype(self.numerics.dtype)
        for stage, width in enumerate(self.widths):
            for number in (1, 2):
                init = fan_in_uniform(9 * x.shape[-1])
                name = f"stage{stage}_{{}}{number}"
                conv = Conv(width, 3, 1, self.padding, init, self.numerics, init, name=name.format("conv"))
                x = self.activation(numerics=self.numerics, name=name.format("activation"))(conv(x))
            sampler = self.sampler(stride=2, numerics=self.numerics, name=f"stage{stage}_sampler")
            x, _ = sampler(x, train=train, temperature=temperature)
        self.sow("intermediates", "features", x)
        accurate = accurate_dtype(x.dtype)
        pooled = jnp.mean(x.astype(accurate), axis=(1, 2))
        init = fan_in_uniform(pooled.shape[-1])
        head = nn.Dense(
            self.num_classes, kernel_init=init, bias_init=init, precision=self.numerics.precision, name="head"
        )
        return head(pooled).astype(accurate)

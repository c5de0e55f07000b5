"""Four convolutions and two samplers: the smallest network of learnable_polyphase_sampling."""

import flax.linen as nn
import jax

from aliasfree_jax.layers.activation import Relu
from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.initializers import fan_in_uniform
from aliasfree_jax.layers.layer import ModuleFactory, part
from aliasfree_jax.layers.sampling import SamplerFactory, Subsample, Temperature
from aliasfree_jax.models.network import Network
from aliasfree_jax.ops.padding import Padding


class BasicClassifier(Network):
    """Images [N, H, W, channels] to class logits [N, num_classes]: to try samplers on (LPS's "basic").

    Attributes:
      widths: of the two stages, each of two 3 x 3 convolutions, activations and a sampler.

    Training draws from the rng stream "gumbel" where the sampler is learned.
    """

    num_classes: int = 10
    widths: tuple[int, ...] = (32, 64)
    sampler: SamplerFactory = part(Subsample)
    activation: ModuleFactory = part(Relu)
    padding: Padding = "CIRCULAR"

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """See `Network`."""
        return tuple(2 ** (stage + 1) for stage in range(len(self.widths)))

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, temperature: Temperature = 1.0
    ) -> jax.Array:
        """Class logits, in float32 (float64 for float64 inputs)."""
        x = self.prepared(images)
        for stage, width in enumerate(self.widths):
            for number in (1, 2):
                init = fan_in_uniform(9 * x.shape[-1])
                name = f"stage{stage}_{{}}{number}"
                conv = Conv(
                    width,
                    3,
                    padding=self.padding,
                    kernel_init=init,
                    bias_init=init,
                    **self.numerics,
                    name=name.format("conv"),
                )
                x = self.activation(**self.numerics, name=name.format("activation"))(conv(x))
            sampler = self.sampler(strides=2, **self.numerics, name=f"stage{stage}_sampler")
            x = sampler(x, train=train, temperature=temperature)
            self.sow("intermediates", f"stage{stage}", x)
        pooled = self.pooled(x)
        init = fan_in_uniform(pooled.shape[-1])
        return self.classified(pooled, init, init)

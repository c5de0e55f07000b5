"""DenseNet (Huang et al. 2017, arXiv 1608.06993) with injected sampling, activation, norm and padding."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.layers.activation import Relu
from aliasfree_jax.layers.block import conv_before_norm, normed_and_activated
from aliasfree_jax.layers.layer import ModuleFactory, kaiming_normal_fan_in, part
from aliasfree_jax.layers.normalization import BatchNorm
from aliasfree_jax.layers.sampled import MaxBlurPool
from aliasfree_jax.layers.sampling import SamplerFactory, Subsample, Temperature
from aliasfree_jax.models.family import REFLECTING_BLUR, Family
from aliasfree_jax.models.network import Network
from aliasfree_jax.ops.padding import Padding, WindowPadding
from aliasfree_jax.ops.pooling import average_pool

BOTTLENECK = 4  # channels of a layer's 1 x 1 convolution, as a multiple of the growth


class DenseNet(Network):
    """DenseNet: classifies images `[N, H, W, channels]`, logits `[N, num_classes]`, float32.

    Variables are in "params", and in `"batch_stats"` with a batch norm. Training draws from the rng stream
    "dropout", and from "gumbel" if the sampler is learned.

    Attributes:
      num_classes: see `Network`.
      depths: number of layers of each dense block.
      growth: channels that each layer adds.
      width: channels of the stem.
      sampler: sampler of the stem and the transitions.
      average: whether transitions average blocks of 2 x 2 samples instead of using the sampler
        (torchvision).
      strided: whether the stem's convolution has stride 2 and aliases (`"pool_only"`). Otherwise the
        sampler follows it.
      pool_padding: padding of the stem's 3 x 3 max pool.
      activation: activation of the whole network.
      norm: norm of the whole network.
      padding: padding of the convolutions.
      dropout_rate: dropout rate of each layer's output.

    Source: Huang et al. 2017 (arXiv 1608.06993); the samplers: Zhang 2019 (arXiv 1904.11486).
    """

    num_classes: int = 1000
    depths: tuple[int, ...] = (6, 12, 24, 16)
    growth: int = 32
    width: int = 64
    sampler: SamplerFactory = part(Subsample)
    average: bool = False
    strided: bool = True
    pool_padding: WindowPadding = 1
    activation: ModuleFactory = part(Relu)
    norm: ModuleFactory = part(BatchNorm)
    padding: Padding = "ZERO"
    dropout_rate: float = 0.0

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """See `Network`."""
        return tuple(2 ** (stage + 2) for stage in range(len(self.depths)))

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, temperature: Temperature = 1.0
    ) -> jax.Array:
        """Returns class logits. The last map is sown as "features".

        Raises:
          ShapeError: the images are not floating-point `[N, H, W, C]`, or too small.
        """
        x = self._stem(self.prepared(images), train, temperature)
        for stage, depth in enumerate(self.depths):
            if stage > 0:
                x = self._transition(x, stage, train, temperature)
            for layer in range(depth):
                x = self._layer(x, f"stage{stage}_layer{layer}", train)
            self.sow("intermediates", f"stage{stage}", x)
        x = normed_and_activated(self, x, train)
        return self.classified(self.pooled(x), bias_init=nn.initializers.zeros)

    def _conv(self, x: jax.Array, features: int, size: int, stride: int, name: str) -> jax.Array:
        return conv_before_norm(self, features, size, stride, name=name, kernel_init=kaiming_normal_fan_in)(x)

    def _stem(self, x: jax.Array, train: bool, temperature: Temperature) -> jax.Array:
        first = self.sampler(strides=2, **self.numerics, name="stem_sampler")
        strided = self.strided or isinstance(first, Subsample)
        x = self._conv(x, self.width, 7, 2 if strided else 1, "stem_conv")
        x = normed_and_activated(self, x, train, "stem_")
        if not strided:
            x = first(x, train=train, temperature=temperature)
        pool = MaxBlurPool(3, 2, self.pool_padding, self.sampler, **self.numerics, name="stem_pool")
        return pool(x, train=train, temperature=temperature)

    def _layer(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        """`[N, H, W, C]` to `[N, H, W, C + growth]`."""
        y = normed_and_activated(self, x, train, f"{name}_", 1)
        y = self._conv(y, BOTTLENECK * self.growth, 1, 1, f"{name}_conv1")
        y = normed_and_activated(self, y, train, f"{name}_", 2)
        y = self._conv(y, self.growth, 3, 1, f"{name}_conv2")
        y = nn.Dropout(self.dropout_rate, name=f"{name}_dropout")(y, deterministic=not train)
        return jnp.concatenate([x, y], axis=-1)

    def _transition(self, x: jax.Array, stage: int, train: bool, temperature: Temperature) -> jax.Array:
        name = f"transition{stage}"
        x = normed_and_activated(self, x, train, f"{name}_")
        x = self._conv(x, x.shape[-1] // 2, 1, 1, f"{name}_conv")
        if self.average:
            return average_pool(x, 2)
        sampler = self.sampler(strides=2, **self.numerics, name=f"{name}_sampler")
        return sampler(x, train=train, temperature=temperature)


DENSENETS = Family(
    DenseNet,
    sizes={
        "densenet121": {"depths": (6, 12, 24, 16)},
        "densenet169": {"depths": (6, 12, 32, 32)},
        "densenet201": {"depths": (6, 12, 48, 32)},
        "densenet161": {"depths": (6, 12, 36, 24), "growth": 48, "width": 96},
    },
    variants={"": {"average": True}, "blur": {"sampler": REFLECTING_BLUR}},
    aliases={"pool_only": lambda options, strided: {**options, "strided": strided}},
)

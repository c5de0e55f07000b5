"""How a ResNet begins: sampling by 4 for images of ImageNet, not at all for those of CIFAR."""

from typing import ClassVar

import flax.linen as nn
import jax

from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.initializers import kaiming_normal_fan_out
from aliasfree_jax.layers.layer import Layer, ModuleFactory
from aliasfree_jax.layers.sampled import MaxBlurPool
from aliasfree_jax.layers.sampling import SamplerFactory, Subsample, Temperature
from aliasfree_jax.ops.padding import Padding, WindowPadding
from aliasfree_jax.ops.resample import remove_nyquist


class ImageStem(Layer):
    """7 x 7 convolution, norm, activation, sample by 2, max pool, sample by 2: for ImageNet.

    Attributes:
      strided: the convolution itself has stride 2 and aliases ("pool_only" of BlurPool and APS).
      pool_size: of the max pool; 3 in torchvision, 2 in the others, 1 for none.
      pool_padding: of the max pool.
      sampler, first_sampler: after the max pool and before it (None: the same).
    """

    width: int
    sampler: SamplerFactory
    activation: ModuleFactory
    norm: ModuleFactory
    padding: Padding
    strided: bool = False
    pool_size: int = 2
    pool_padding: WindowPadding = "VALID"
    first_sampler: SamplerFactory | None = None
    total_stride: ClassVar[int] = 4

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, temperature: Temperature) -> jax.Array:
        """[N, H, W, channels] to [N, H / 4, W / 4, width]."""
        first = (self.first_sampler or self.sampler)(strides=2, **self.numerics, name="first_sampler")
        in_convolution = self.strided or isinstance(first, Subsample)
        conv = Conv(
            self.width,
            7,
            2 if in_convolution else 1,
            self.padding,
            use_bias=False,
            kernel_init=kaiming_normal_fan_out,
            **self.numerics,
            name="conv",
        )
        x = self.norm(**self.numerics, name="norm")(conv(x), train=train)
        x = self.activation(**self.numerics, name="activation")(x)
        if not in_convolution:
            x = first(x, train=train, temperature=temperature)
        pool = MaxBlurPool(self.pool_size, 2, self.pool_padding, self.sampler, **self.numerics, name="pool")
        y: jax.Array = pool(x, train=train, temperature=temperature)
        return y


class SmallStem(Layer):
    """3 x 3 convolution, norm and activation at full resolution: for CIFAR.

    Attributes:
      without_nyquist: removes that frequency from the images first, for an activation that is to commute
        with fractional shifts: here no sampler removes it later.
    """

    width: int
    sampler: SamplerFactory
    activation: ModuleFactory
    norm: ModuleFactory
    padding: Padding
    without_nyquist: bool = False
    total_stride: ClassVar[int] = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, temperature: Temperature) -> jax.Array:
        """[N, H, W, channels] to [N, H, W, width]."""
        if self.without_nyquist:
            x = remove_nyquist(x, self.exact)
        conv = Conv(
            self.width,
            3,
            padding=self.padding,
            use_bias=False,
            kernel_init=kaiming_normal_fan_out,
            **self.numerics,
            name="conv",
        )
        x = conv(x)
        x = self.norm(**self.numerics, name="norm")(x, train=train)
        y: jax.Array = self.activation(**self.numerics, name="activation")(x)
        return y

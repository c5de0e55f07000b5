"""AlexNet (Krizhevsky 2014, arXiv 1404.5997) and VGG (Simonyan & Zisserman 2015, arXiv 1409.1556).

Both are a chain of convolutions and max pools before fully connected layers, with injected sampling:
torchvision's networks with `Subsample`, BlurPool's with a blur.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.layers.activation import Relu
from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.initializers import Initializer, fan_in_uniform, kaiming_normal_fan_out
from aliasfree_jax.layers.numerics import Numerics, accurate_dtype
from aliasfree_jax.layers.pooling import SampledMaxPool
from aliasfree_jax.layers.sampling import SamplerFactory, Subsample, Temperature
from aliasfree_jax.models.inputs import check_input
from aliasfree_jax.ops.padding import Padding, pad
from aliasfree_jax.ops.pooling import adaptive_average_pool

ModuleFactory = Callable[..., nn.Module]


class Classifier(nn.Module):
    """Adaptive average pool, then three linear layers with ReLU and dropout: AlexNet's and VGG's head.

    Attributes:
      side: of the pooled map.
      dropout_first: whether dropout precedes the first two linear layers (AlexNet) or follows their
        ReLU (VGG).
      weight_std: of normal initial weights with zero biases (VGG); None: PyTorch's default.
    """

    num_classes: int
    side: int
    dropout_first: bool
    dropout_rate: float = 0.5
    weight_std: float | None = None
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[N, H, W, C] to logits [N, num_classes], float32."""
        x = adaptive_average_pool(x, (self.side, self.side))
        x = x.reshape(x.shape[0], -1).astype(accurate_dtype(x.dtype))
        for number in (1, 2):
            if self.dropout_first:
                x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
            x = jax.nn.relu(self._dense(4096, x.shape[-1], f"hidden{number}")(x))
            if not self.dropout_first:
                x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
        return self._dense(self.num_classes, x.shape[-1], "head")(x)

    def _dense(self, features: int, fan_in: int, name: str) -> nn.Dense:
        kernel, bias = fan_in_uniform(fan_in), fan_in_uniform(fan_in)
        if self.weight_std is not None:
            kernel, bias = nn.initializers.normal(self.weight_std), nn.initializers.zeros
        return nn.Dense(
            features, kernel_init=kernel, bias_init=bias, precision=self.numerics.precision, name=name
        )


class AlexNet(nn.Module):
    """Images [N, H, W, channels] to class logits [N, num_classes], float32.

    Attributes:
      sampler: after the first convolution and every max pool.
      activation: after every convolution.
      padding: of the convolutions.
      strided: the first convolution has stride 4, else 2 and the sampler the rest ("pool_only"; the
        original then forgets the ReLU after it, see `activate_first`).
      activate_first: whether an activation follows the first convolution.
      sample_first: whether the sampler of the first convolution precedes that activation (the original's
        relu_first=False).

    Training draws from the rng stream "dropout", and "gumbel" where the sampler is learned.
    """

    num_classes: int = 1000
    sampler: SamplerFactory = Subsample
    activation: ModuleFactory = Relu
    padding: Padding = "zero"
    strided: bool = False
    activate_first: bool = True
    sample_first: bool = False
    dropout_rate: float = 0.5
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, temperature: Temperature = 1.0
    ) -> jax.Array:
        """Class logits; the last map is sown as "features". Raises `ShapeError` for unfit images."""
        check_input(images)
        x = images if self.numerics.dtype is None else images.astype(self.numerics.dtype)
        sampler = self.sampler(stride=2, numerics=self.numerics, name="sampler")
        strided = self.strided or isinstance(sampler, Subsample)
        x = self._conv(pad(x, ((2, 2), (2, 2)), self.padding), 64, 11, 4 if strided else 2, "conv1")
        if self.sample_first and not strided:
            x, _ = sampler(x, train=train, temperature=temperature)
        if self.activate_first:
            x = self.activation(numerics=self.numerics, name="activation1")(x)
        if not (self.sample_first or strided):
            x, _ = sampler(x, train=train, temperature=temperature)
        for number, (width, size) in enumerate(((192, 5), (384, 3), (256, 3), (256, 3)), 2):
            if number < 4:
                x = self._pool(x, number - 1, train, temperature)
            amount = size // 2
            padded = pad(x, ((amount, amount), (amount, amount)), self.padding)
            x = self._conv(padded, width, size, 1, f"conv{number}")
            x = self.activation(numerics=self.numerics, name=f"activation{number}")(x)
        x = self._pool(x, 3, train, temperature)
        self.sow("intermediates", "features", x)
        head = Classifier(
            self.num_classes, 6, True, self.dropout_rate, numerics=self.numerics, name="classifier"
        )
        return head(x, train=train)

    def _conv(self, x: jax.Array, width: int, size: int, stride: int, name: str) -> jax.Array:
        init: Initializer = fan_in_uniform(x.shape[-1] * size**2)
        return Conv(width, size, stride, "none", init, self.numerics, init, name=name)(x)

    def _pool(self, x: jax.Array, number: int, train: bool, temperature: Temperature) -> jax.Array:
        pool = SampledMaxPool(3, self.sampler, numerics=self.numerics, name=f"pool{number}")
        return pool(x, train=train, temperature=temperature)[0]


class Vgg(nn.Module):
    """Images [N, H, W, channels] to class logits [N, num_classes], float32.

    Attributes:
      depths, widths: 3 x 3 convolutions and their channels before each of the max pools.
      sampler: of the max pools.
      activation: after every convolution.
      norm: between convolution and activation; None for none.
      padding: of the convolutions.

    Training draws from the rng stream "dropout", and "gumbel" where the sampler is learned.
    """

    num_classes: int = 1000
    depths: tuple[int, ...] = (1, 1, 2, 2, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    sampler: SamplerFactory = Subsample
    activation: ModuleFactory = Relu
    norm: ModuleFactory | None = None
    padding: Padding = "zero"
    dropout_rate: float = 0.5
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, temperature: Temperature = 1.0
    ) -> jax.Array:
        """Class logits; the last map is sown as "features". Raises `ShapeError` for unfit images."""
        check_input(images)
        x = images if self.numerics.dtype is None else images.astype(self.numerics.dtype)
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            for layer in range(depth):
                name = f"stage{stage}_{{}}{layer}"
                conv = Conv(
                    width,
                    3,
                    1,
                    self.padding,
                    kaiming_normal_fan_out,
                    self.numerics,
                    name=name.format("conv"),
                )
                x = conv(x)
                if self.norm is not None:
                    x = self.norm(numerics=self.numerics, name=name.format("norm"))(x, train=train)
                x = self.activation(numerics=self.numerics, name=name.format("activation"))(x)
            pool = SampledMaxPool(2, self.sampler, numerics=self.numerics, name=f"pool{stage}")
            x, _ = pool(x, train=train, temperature=temperature)
        self.sow("intermediates", "features", x)
        head = Classifier(
            self.num_classes, 7, False, self.dropout_rate, 0.01, numerics=self.numerics, name="classifier"
        )
        return head(jnp.asarray(x), train=train)

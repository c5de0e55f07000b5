"""AlexNet (Krizhevsky 2014, arXiv 1404.5997) and VGG (Simonyan & Zisserman 2015, arXiv 1409.1556).

Both are a chain of convolutions and max pools before fully connected layers, with injected sampling:
torchvision's networks with `Subsample`, BlurPool's with a blur.
"""

import math

import flax.linen as nn
import jax

from aliasfree_jax.layers.activation import Relu
from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.initializers import Initializer, fan_in_uniform, kaiming_normal_fan_out, normal
from aliasfree_jax.layers.layer import ModuleFactory, accurate_dtype, part
from aliasfree_jax.layers.sampled import MaxBlurPool
from aliasfree_jax.layers.sampling import SamplerFactory, Subsample, Temperature
from aliasfree_jax.models.network import Network
from aliasfree_jax.ops.padding import Padding, pad
from aliasfree_jax.ops.pooling import adaptive_average_pool


class Classifier(Network):
    """Adaptive average pool, then three linear layers with ReLU and dropout: AlexNet's and VGG's head.

    Attributes:
      side: of the pooled map.
      dropout_first: whether dropout precedes the first two linear layers (AlexNet) or follows their
        ReLU (VGG).
      weight_std: of normal initial weights with zero biases (VGG); None: PyTorch's default.
    """

    side: int = 7
    dropout_first: bool = False
    dropout_rate: float = 0.5
    weight_std: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[N, H, W, C] to logits [N, num_classes], float32."""
        x = adaptive_average_pool(x, (self.side, self.side))
        x = x.reshape(x.shape[0], math.prod(x.shape[1:])).astype(accurate_dtype(x.dtype))
        for number in (1, 2):
            if self.dropout_first:
                x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
            x = jax.nn.relu(self._hidden(x, f"hidden{number}"))
            if not self.dropout_first:
                x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
        return self.classified(x, *self._initial(x.shape[-1]))

    def _initial(self, fan_in: int) -> tuple[Initializer, Initializer]:
        """Of kernels and biases."""
        if self.weight_std is None:
            return fan_in_uniform(fan_in), fan_in_uniform(fan_in)
        return normal(self.weight_std), nn.initializers.zeros

    def _hidden(self, x: jax.Array, name: str) -> jax.Array:
        kernel, bias = self._initial(x.shape[-1])
        dense = nn.Dense(
            4096,
            kernel_init=kernel,
            bias_init=bias,
            param_dtype=self.param_dtype,
            precision=self.precision,
            name=name,
        )
        return dense(x)


class AlexNet(Network):
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
    sampler: SamplerFactory = part(Subsample)
    activation: ModuleFactory = part(Relu)
    padding: Padding = "ZERO"
    strided: bool = False
    activate_first: bool = True
    sample_first: bool = False
    dropout_rate: float = 0.5

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """See `Network`; of the maps before the max pools."""
        return 4, 8, 16

    @property
    def total_stride(self) -> int:
        """Behind the last max pool."""
        return 2 * self.stage_strides[-1]

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, temperature: Temperature = 1.0
    ) -> jax.Array:
        """Class logits; the last map is sown as "features". Raises `ShapeError` for unfit images."""
        x = self.prepared(images)
        sampler = self.sampler(strides=2, **self.numerics, name="sampler")
        strided = self.strided or isinstance(sampler, Subsample)
        x = self._conv(pad(x, ((2, 2), (2, 2)), self.padding), 64, 11, 4 if strided else 2, "conv1")
        if self.sample_first and not strided:
            x = sampler(x, train=train, temperature=temperature)
        if self.activate_first:
            x = self.activation(**self.numerics, name="activation1")(x)
        if not (self.sample_first or strided):
            x = sampler(x, train=train, temperature=temperature)
        for number, (width, size) in enumerate(((192, 5), (384, 3), (256, 3), (256, 3)), 2):
            if number < 4:
                self.sow("intermediates", f"stage{number - 2}", x)
                x = self._pool(x, number - 1, train, temperature)
            amount = size // 2
            padded = pad(x, ((amount, amount), (amount, amount)), self.padding)
            x = self._conv(padded, width, size, 1, f"conv{number}")
            x = self.activation(**self.numerics, name=f"activation{number}")(x)
        self.sow("intermediates", "stage2", x)
        x = self._pool(x, 3, train, temperature)
        self.sow("intermediates", "features", x)
        shape = (self.num_classes, 6, True, self.dropout_rate)
        return Classifier(*shape, **self.numerics, name="classifier")(x, train=train)

    def _conv(self, x: jax.Array, width: int, size: int, stride: int, name: str) -> jax.Array:
        init: Initializer = fan_in_uniform(x.shape[-1] * size**2)
        fields = {"kernel_init": init, "bias_init": init, **self.numerics}
        return Conv(width, size, stride, "VALID", **fields, name=name)(x)

    def _pool(self, x: jax.Array, number: int, train: bool, temperature: Temperature) -> jax.Array:
        pool = MaxBlurPool(3, sampler=self.sampler, **self.numerics, name=f"pool{number}")
        y: jax.Array = pool(x, train=train, temperature=temperature)
        return y


class VGG(Network):
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
    sampler: SamplerFactory = part(Subsample)
    activation: ModuleFactory = part(Relu)
    norm: ModuleFactory | None = None
    padding: Padding = "ZERO"
    dropout_rate: float = 0.5

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """See `Network`; of the maps before the max pools."""
        return tuple(2**stage for stage in range(len(self.depths)))

    @property
    def total_stride(self) -> int:
        """Behind the last max pool."""
        return 2 * self.stage_strides[-1]

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, temperature: Temperature = 1.0
    ) -> jax.Array:
        """Class logits; the last map is sown as "features". Raises `ShapeError` for unfit images."""
        x = self.prepared(images)
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            for layer in range(depth):
                name = f"stage{stage}_{{}}{layer}"
                conv = Conv(
                    width,
                    3,
                    padding=self.padding,
                    kernel_init=kaiming_normal_fan_out,
                    **self.numerics,
                    name=name.format("conv"),
                )
                x = conv(x)
                if self.norm is not None:
                    x = self.norm(**self.numerics, name=name.format("norm"))(x, train=train)
                x = self.activation(**self.numerics, name=name.format("activation"))(x)
            self.sow("intermediates", f"stage{stage}", x)
            pool = MaxBlurPool(2, sampler=self.sampler, **self.numerics, name=f"pool{stage}")
            x = pool(x, train=train, temperature=temperature)
        self.sow("intermediates", "features", x)
        shape = (self.num_classes, 7, False, self.dropout_rate, 0.01)
        return Classifier(*shape, **self.numerics, name="classifier")(x, train=train)

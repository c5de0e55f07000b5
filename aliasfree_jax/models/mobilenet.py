"""MobileNet-v2 (Sandler et al. 2018, arXiv 1801.04381) with injected sampling, norm and padding."""

import itertools
import operator

import flax.linen as nn
import jax

from aliasfree_jax.layers.activation import Relu6
from aliasfree_jax.layers.block import conv_before_norm, normed_and_activated
from aliasfree_jax.layers.convolution import DepthwiseConv
from aliasfree_jax.layers.layer import Layer, ModuleFactory, normal, part
from aliasfree_jax.layers.normalization import BatchNorm
from aliasfree_jax.layers.sampling import SamplerFactory, Subsample, Temperature
from aliasfree_jax.models.family import REFLECTING_BLUR, Family
from aliasfree_jax.models.network import Network
from aliasfree_jax.ops.padding import Padding

# Expansion, channels, blocks and first stride of each stage.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(Layer):
    """Expands by 1 x 1, filters by 3 x 3 depthwise, samples, projects by 1 x 1.

    The block adds its input if the shapes agree. The depthwise convolution runs at stride 1 with every
    sampler.
    """

    features: int
    expansion: int
    stride: int
    sampler: SamplerFactory
    activation: ModuleFactory
    norm: ModuleFactory
    padding: Padding

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, temperature: Temperature) -> jax.Array:
        """`[N, H, W, C]` to `[N, H / stride, W / stride, features]`."""
        y, hidden = x, x.shape[-1] * self.expansion
        if self.expansion != 1:
            y = conv_before_norm(self, hidden, 1, name="expand")(y)
            y = normed_and_activated(self, y, train, "expand_")
        init = normal((2 / (9 * hidden)) ** 0.5)  # PyTorch's fan_out of depthwise kernels
        depthwise = DepthwiseConv(3, self.padding, False, init, **self.numerics, name="depthwise")
        y = normed_and_activated(self, depthwise(y), train, "depthwise_")
        if self.stride > 1:
            sampler = self.sampler(strides=self.stride, **self.numerics, name="sampler")
            y = sampler(y, train=train, temperature=temperature)
        y = conv_before_norm(self, self.features, 1, name="project")(y)
        y = self.norm(**self.numerics, name="project_norm")(y, train=train)
        return x + y if y.shape == x.shape and self.stride == 1 else y


class MobileNetV2(Network):
    """MobileNet-v2: classifies images `[N, H, W, channels]`, logits `[N, num_classes]`, float32.

    Variables are in "params", and in `"batch_stats"` with a batch norm. Training draws from the rng stream
    "dropout", and from "gumbel" if the sampler is learned.

    Attributes:
      num_classes: see `Network`.
      width_mult: factor on all channels, rounded down as in antialiased-cnns. torchvision rounds to
        multiples of 8, which is the same at factor 1.
      sampler: sampler of the four blocks with stride 2. The stem's convolution is strided in every variant.
      activation: activation of the whole network.
      norm: norm of the whole network.
      padding: padding of the convolutions.
      dropout_rate: dropout rate before the head: 0.2 in torchvision, 0 in antialiased-cnns.

    Source: Sandler et al. 2018 (arXiv 1801.04381); the samplers: Zhang 2019 (arXiv 1904.11486).
    """

    num_classes: int = 1000
    width_mult: float = 1.0
    sampler: SamplerFactory = part(Subsample)
    activation: ModuleFactory = part(Relu6)
    norm: ModuleFactory = part(BatchNorm)
    padding: Padding = "ZERO"
    dropout_rate: float = 0.2

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """See `Network`."""
        return tuple(itertools.accumulate((stride for *_, stride in STAGES), operator.mul, initial=2))[1:]

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, temperature: Temperature = 1.0
    ) -> jax.Array:
        """Returns class logits. The last map is sown as "features".

        Raises:
          ShapeError: the images are not floating-point `[N, H, W, C]`, or too small.
        """
        x = self.prepared(images)
        x = conv_before_norm(self, int(32 * self.width_mult), 3, 2, name="stem_conv")(x)
        x = normed_and_activated(self, x, train, "stem_")
        for stage, (expansion, width, depth, stride) in enumerate(STAGES):
            for block in range(depth):
                shape = (int(width * self.width_mult), expansion, stride if block == 0 else 1)
                fields = (*shape, self.sampler, self.activation, self.norm, self.padding)
                residual = InvertedResidual(*fields, **self.numerics, name=f"stage{stage}_block{block}")
                x = residual(x, train=train, temperature=temperature)
            self.sow("intermediates", f"stage{stage}", x)
        x = conv_before_norm(self, int(1280 * max(1.0, self.width_mult)), 1, name="last_conv")(x)
        pooled = self.pooled(normed_and_activated(self, x, train, "last_"))
        pooled = nn.Dropout(self.dropout_rate)(pooled, deterministic=not train)
        return self.classified(pooled, normal(0.01), nn.initializers.zeros)


MOBILENETS = Family(
    MobileNetV2,
    sizes={"mobilenet_v2": {}},
    variants={"": {}, "blur": {"sampler": REFLECTING_BLUR, "dropout_rate": 0.0}},
)

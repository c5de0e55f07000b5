"""AlexNet (Krizhevsky 2014, arXiv 1404.5997) and VGG (Simonyan & Zisserman 2015, arXiv 1409.1556).

Chains of convolutions and max pools, followed by fully connected layers, with injected sampling.
`Subsample` makes torchvision's networks, a blur makes those of antialiased-cnns. `BasicClassifier` is a
smaller chain: LPS's network for experiments with samplers.
"""

import math
from typing import Any, Literal

import flax.linen as nn
import jax

from aliasfree_jax.layers.activation import Relu
from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.layer import (
    ModuleFactory,
    accurate_dtype,
    fan_in_uniform,
    kaiming_normal_fan_out,
    normal,
    part,
)
from aliasfree_jax.layers.sampled import MaxBlurPool
from aliasfree_jax.layers.sampling import SamplerFactory, Subsample, Temperature
from aliasfree_jax.models.family import REFLECTING_BLUR, Family, Options
from aliasfree_jax.models.network import Network
from aliasfree_jax.ops.padding import Padding, WindowPadding, pad
from aliasfree_jax.ops.pooling import adaptive_average_pool, adaptive_max_pool, windows

HIDDEN = 4096  # width of the first two linear layers
LargeMaps = Literal["pooled", "windows"]


class Classifier(Network):
    """Head of AlexNet and VGG: adaptive pool, then three linear layers with ReLU and dropout.

    Attributes:
      side: side of the map that the linear layers read.
      large_maps: treatment of larger maps. "pooled" reduces them to `side`. "windows" applies the hidden
        layers to every window and pools the results (timm). Smaller maps are always pooled to `side`.
      dropout_first: whether dropout precedes the first two linear layers (AlexNet) or follows their ReLU
        (VGG).
      dropout_rate: dropout rate in training.
      weight_std: standard deviation of normal initial weights with zero biases (VGG). None: PyTorch's
        default.
    """

    side: int = 7
    large_maps: LargeMaps = "pooled"
    dropout_first: bool = False
    dropout_rate: float = 0.5
    weight_std: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """`[N, H, W, C]` to logits `[N, num_classes]`, float32."""
        if self.global_pool == "":
            return x.astype(accurate_dtype(x.dtype))
        x = self._vectors(x).astype(accurate_dtype(x.dtype))
        normals = None if self.weight_std is None else normal(self.weight_std)
        initial = normals, None if normals is None else nn.initializers.zeros
        for number in (1, 2):
            if self.dropout_first:
                x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
            x = jax.nn.relu(self.dense(x, HIDDEN, f"hidden{number}", *initial))
            if not self.dropout_first:
                x = nn.Dropout(self.dropout_rate)(x, deterministic=not train)
        if self.large_maps == "windows":
            x = x.max(axis=(1, 2)) if self.global_pool == "max" else x.mean(axis=(1, 2))
        return self.classified(x, *initial)

    def _vectors(self, x: jax.Array) -> jax.Array:
        """Returns the input of the linear layers: `[N, F]`, or `[N, rows, columns, F]` for windows."""
        if self.large_maps == "windows":
            x = adaptive_average_pool(x, (max(self.side, x.shape[1]), max(self.side, x.shape[2])))
            return windows(x, self.side)
        pool = {"mean": adaptive_average_pool, "max": adaptive_max_pool}[self.global_pool]
        x = pool(x, (self.side, self.side))
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))


class Chain(Network):
    """Base class of AlexNet and VGG. `stage_strides` are the strides of the maps before the max pools."""

    @property
    def total_stride(self) -> int:
        """Stride of the map after the last max pool."""
        return 2 * self.stage_strides[-1]

    @nn.nowrap
    def finished(self, x: jax.Array, train: bool, **fields: Any) -> jax.Array:
        """Sows the last map and returns its logits by a `Classifier` with these fields."""
        self.sow("intermediates", "features", x)
        head = Classifier(
            self.num_classes, global_pool=self.global_pool, **fields, **self.numerics, name="classifier"
        )
        return head(x, train=train)


class AlexNet(Chain):
    """AlexNet: classifies images `[N, H, W, channels]`, logits `[N, num_classes]`, float32.

    Training draws from the rng stream "dropout", and from "gumbel" if the sampler is learned.

    Attributes:
      num_classes: see `Network`.
      sampler: sampler after the first convolution and in every max pool.
      activation: activation after every convolution.
      padding: padding of the convolutions.
      strided: whether the first convolution has stride 4 (`"pool_only"`). Otherwise it has stride 2, and the
        sampler does the rest. With "pool_only", the original lacks the first ReLU, see `activate_first`.
      activate_first: whether an activation follows the first convolution.
      sample_first: whether the sampler of the first convolution precedes that activation
        (`relu_first=False` in the original).
      dropout_rate: dropout rate in training.

    Source: Krizhevsky 2014 (arXiv 1404.5997); the samplers: Zhang 2019 (arXiv 1904.11486).
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
        """See `Network`."""
        return 4, 8, 16

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, temperature: Temperature = 1.0
    ) -> jax.Array:
        """Returns class logits. The last map is sown as "features".

        Raises:
          ShapeError: the images are not floating-point `[N, H, W, C]`, or too small.
        """
        x = self.prepared(images)
        sampler = self.sampler(strides=2, **self.numerics, name="sampler")
        strided = self.strided or isinstance(sampler, Subsample)
        x = pad(x, ((2, 2), (2, 2)), self.padding)
        x = self._conv(x, 64, 11, 4 if strided else 2, "VALID", "conv1")
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
            x = self._conv(x, width, size, 1, self.padding, f"conv{number}")
            x = self.activation(**self.numerics, name=f"activation{number}")(x)
        self.sow("intermediates", "stage2", x)
        x = self._pool(x, 3, train, temperature)
        return self.finished(x, train, side=6, dropout_first=True, dropout_rate=self.dropout_rate)

    def _conv(
        self, x: jax.Array, width: int, size: int, stride: int, padding: WindowPadding, name: str
    ) -> jax.Array:
        init = fan_in_uniform(x.shape[-1] * size**2)
        fields: dict[str, Any] = {"kernel_init": init, "bias_init": init, **self.numerics}
        return Conv(width, size, stride, padding, **fields, name=name)(x)

    def _pool(self, x: jax.Array, number: int, train: bool, temperature: Temperature) -> jax.Array:
        pool = MaxBlurPool(3, sampler=self.sampler, **self.numerics, name=f"pool{number}")
        return pool(x, train=train, temperature=temperature)


class VGG(Chain):
    """VGG: classifies images `[N, H, W, channels]`, logits `[N, num_classes]`, float32.

    Training draws from the rng stream "dropout", and from "gumbel" if the sampler is learned.

    Attributes:
      num_classes: see `Network`.
      depths: number of 3 x 3 convolutions before each max pool.
      widths: channels of these convolutions.
      sampler: sampler of the max pools.
      activation: activation after every convolution.
      norm: norm between convolution and activation. None: no norm.
      padding: padding of the convolutions.
      large_maps: treatment of large maps in the head: "pooled", or "windows" (timm).
      dropout_rate: dropout rate in training.

    Source: Simonyan & Zisserman 2015 (arXiv 1409.1556); the samplers: Zhang 2019 (arXiv 1904.11486).
    """

    num_classes: int = 1000
    depths: tuple[int, ...] = (1, 1, 2, 2, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512, 512)
    sampler: SamplerFactory = part(Subsample)
    activation: ModuleFactory = part(Relu)
    norm: ModuleFactory | None = None
    padding: Padding = "ZERO"
    large_maps: LargeMaps = "pooled"
    dropout_rate: float = 0.5

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """See `Network`."""
        return tuple(2**stage for stage in range(len(self.depths)))

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, temperature: Temperature = 1.0
    ) -> jax.Array:
        """Returns class logits. The last map is sown as "features".

        Raises:
          ShapeError: the images are not floating-point `[N, H, W, C]`, or too small.
        """
        x = self.prepared(images)
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            for layer in range(depth):
                how: dict[str, Any] = {"kernel_init": kaiming_normal_fan_out, **self.numerics}
                x = Conv(width, 3, padding=self.padding, **how, name=f"stage{stage}_conv{layer}")(x)
                if self.norm is not None:
                    x = self.norm(**self.numerics, name=f"stage{stage}_norm{layer}")(x, train=train)
                x = self.activation(**self.numerics, name=f"stage{stage}_activation{layer}")(x)
            self.sow("intermediates", f"stage{stage}", x)
            pool = MaxBlurPool(2, sampler=self.sampler, **self.numerics, name=f"pool{stage}")
            x = pool(x, train=train, temperature=temperature)
        fields = {"large_maps": self.large_maps, "dropout_rate": self.dropout_rate, "weight_std": 0.01}
        return self.finished(x, train, **fields)


class BasicClassifier(Network):
    """A small classifier for experiments with samplers: logits `[N, num_classes]`.

    Training draws from the rng stream "gumbel" if the sampler is learned.

    Attributes:
      num_classes: see `Network`.
      widths: channels of the stages. Each stage has two 3 x 3 convolutions, activations and a sampler.
      sampler: sampler of each stage.
      activation: activation after every convolution.
      padding: padding of the convolutions.

    Source: Rojas-Gomez et al. 2022 (arXiv 2210.08001), the "basic" network of its code.
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
        """Returns class logits in float32 (float64 for float64 images)."""
        x = self.prepared(images)
        for stage, width in enumerate(self.widths):
            for number in (1, 2):
                init = fan_in_uniform(9 * x.shape[-1])
                how: dict[str, Any] = {"kernel_init": init, "bias_init": init, **self.numerics}
                x = Conv(width, 3, padding=self.padding, **how, name=f"stage{stage}_conv{number}")(x)
                x = self.activation(**self.numerics, name=f"stage{stage}_activation{number}")(x)
            sampler = self.sampler(strides=2, **self.numerics, name=f"stage{stage}_sampler")
            x = sampler(x, train=train, temperature=temperature)
            self.sow("intermediates", f"stage{stage}", x)
        return self.classified(self.pooled(x))


_DEPTHS = {
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
_VARIANTS: dict[str, Options] = {"": {}, "blur": {"sampler": REFLECTING_BLUR}}
ALEXNETS = Family(
    AlexNet,
    sizes={"alexnet": {}},
    variants=_VARIANTS,
    aliases={"pool_only": lambda options, strided: {**options, "strided": strided}},
)
VGGS = Family(
    VGG,
    sizes={
        **{name: {"depths": depths} for name, depths in _DEPTHS.items()},
        **{f"{name}_bn": {"depths": depths, "norm": "batch"} for name, depths in _DEPTHS.items()},
    },
    variants=_VARIANTS,
)
BASICS = Family(BasicClassifier, sizes={"basic": {}}, variants=_VARIANTS)

"""AlexNet (Krizhevsky 2014, arXiv 1404.5997) and VGG (Simonyan & Zisserman 2015, arXiv 1409.1556).

Chains of convolutions and max pools before fully connected layers, with injected sampling: torchvision's
networks with `Subsample`, BlurPool's with a blur. And a smaller chain: LPS's network to try samplers on.
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
    """Adaptive pool, then three linear layers with ReLU and dropout: AlexNet's and VGG's head.

    Attributes:
      side: of the map that the linear layers take.
      large_maps: how they take a larger one: "pooled" to that side, or the hidden layers in every "window" of
        it, whose results are pooled (timm). A smaller one is pooled in either case.
      dropout_first: whether dropout precedes the first two linear layers (AlexNet) or follows their
        ReLU (VGG).
      weight_std: of normal initial weights with zero biases (VGG); None: PyTorch's default.
    """

    side: int = 7
    large_maps: LargeMaps = "pooled"
    dropout_first: bool = False
    dropout_rate: float = 0.5
    weight_std: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """[N, H, W, C] to logits [N, num_classes], float32."""
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
        """The map that the linear layers take as vectors: [N, F], or [N, rows, columns, F] of windows."""
        if self.large_maps == "windows":
            x = adaptive_average_pool(x, (max(self.side, x.shape[1]), max(self.side, x.shape[2])))
            return windows(x, self.side)
        pool = {"mean": adaptive_average_pool, "max": adaptive_max_pool}[self.global_pool]
        x = pool(x, (self.side, self.side))
        return x.reshape(x.shape[0], math.prod(x.shape[1:]))


class Chain(Network):
    """What AlexNet and VGG have in common: `stage_strides` are of the maps before the max pools."""

    @property
    def total_stride(self) -> int:
        """Behind the last max pool."""
        return 2 * self.stage_strides[-1]

    @nn.nowrap
    def finished(self, x: jax.Array, train: bool, **fields: Any) -> jax.Array:
        """Logits by a `Classifier` with these fields of the last map, which is sown."""
        self.sow("intermediates", "features", x)
        head = Classifier(
            self.num_classes, global_pool=self.global_pool, **fields, **self.numerics, name="classifier"
        )
        return head(x, train=train)


class AlexNet(Chain):
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
        """See `Network`."""
        return 4, 8, 16

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, temperature: Temperature = 1.0
    ) -> jax.Array:
        """Class logits; the last map is sown as "features". Raises `ShapeError` for unfit images."""
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
    """Images [N, H, W, channels] to class logits [N, num_classes], float32.

    Attributes:
      depths, widths: 3 x 3 convolutions and their channels before each of the max pools.
      sampler: of the max pools.
      activation: after every convolution.
      norm: between convolution and activation; None for none.
      padding: of the convolutions.
      large_maps: see `Classifier`.

    Training draws from the rng stream "dropout", and "gumbel" where the sampler is learned.
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
        """Class logits; the last map is sown as "features". Raises `ShapeError` for unfit images."""
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

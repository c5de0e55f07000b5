"""ResNet (He et al. 2016, arXiv 1512.03385) with injected stem, sampling, activation, norm and padding.

One network for the variants of three code bases: torchvision's (plain), antialiased-cnns (BlurPool),
truly_shift_invariant_cnns (APS) and learnable_polyphase_sampling (LPS), in ImageNet and CIFAR form;
ResNeXts and wide ResNets are choices of `groups` and `group_width`.
"""

from typing import Any, Literal

import flax.linen as nn
import jax

from aliasfree_jax.layers.activation import Relu
from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.initializers import fan_in_uniform, kaiming_normal_fan_out
from aliasfree_jax.layers.layer import Layer, ModuleFactory, part
from aliasfree_jax.layers.normalization import BatchNorm
from aliasfree_jax.layers.sampling import SamplerFactory, Subsample, Temperature
from aliasfree_jax.models.network import Network
from aliasfree_jax.models.resnet_stems import ImageStem
from aliasfree_jax.ops.padding import Padding

BlockKind = Literal["basic", "bottleneck"]
SamplerPosition = Literal["before", "after"]
EXPANSION = {"basic": 1, "bottleneck": 4}


class ResidualBlock(Layer):
    """Two 3 x 3 convolutions ("basic") or 1 x 1, 3 x 3, 1 x 1 ("bottleneck") beside a shortcut.

    A block of stride 2 samples its map before (or after) its last convolution and the shortcut's input
    at the same phase. With `Subsample` the convolution before takes the stride, as in torchvision,
    which is the same function at a quarter of the work.
    """

    kind: BlockKind
    width: int
    stride: int
    groups: int
    group_width: int
    sampler: SamplerFactory
    sampler_position: SamplerPosition
    activation: ModuleFactory
    sum_activation: ModuleFactory
    norm: ModuleFactory
    padding: Padding
    zero_init: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, temperature: Temperature) -> jax.Array:
        """[N, H, W, C] to [N, H / stride, W / stride, expansion * width]."""
        sampler = self.sampler(strides=self.stride, **self.numerics, name="sampler")
        samples = self.stride > 1 and not isinstance(sampler, Subsample)
        convolutions = self._convolutions(1 if samples else self.stride)
        y, phase = x, None
        for number, conv in enumerate(convolutions, 1):
            last = number == len(convolutions)
            if last and samples and self.sampler_position == "before":
                y, phase = sampler.with_phase(y, train=train, temperature=temperature)
            y = conv(y)
            if last and samples and self.sampler_position == "after":
                y, phase = sampler.with_phase(y, train=train, temperature=temperature)
            norm: dict[str, Any] = {"scale_init": nn.initializers.zeros} if last and self.zero_init else {}
            y = self.norm(**self.numerics, name=f"norm{number}", **norm)(y, train=train)
            if not last:
                y = self.activation(**self.numerics, name=f"activation{number}")(y)
        if self.stride > 1 or y.shape[-1] != x.shape[-1]:
            if samples:
                again = self.sampler(strides=self.stride, **self.numerics, name="shortcut_sampler")
                x, _ = again.with_phase(x, phase, train=train, temperature=temperature)
            x = self._conv(y.shape[-1], 1, 1 if samples else self.stride, "shortcut_conv")(x)
            x = self.norm(**self.numerics, name="shortcut_norm")(x, train=train)
        y = self.sum_activation(**self.numerics, name="activation")(x + y)
        return y

    def _convolutions(self, stride: int) -> list[Conv]:
        if self.kind == "basic":
            return [
                self._conv(self.width, 3, stride, "conv1"),
                self._conv(self.width, 3, 1, "conv2"),
            ]
        width = self.width * self.group_width // 64 * self.groups
        return [
            self._conv(width, 1, 1, "conv1"),
            self._conv(width, 3, stride, "conv2", self.groups),
            self._conv(self.width * EXPANSION["bottleneck"], 1, 1, "conv3"),
        ]

    def _conv(self, features: int, size: int, stride: int, name: str, groups: int = 1) -> Conv:
        return Conv(
            features,
            size,
            stride,
            self.padding if size > 1 else "VALID",
            feature_group_count=groups,
            use_bias=False,
            kernel_init=kaiming_normal_fan_out,
            **self.numerics,
            name=name,
        )


class ResNet(Network):
    """Images [N, H, W, channels] to class logits [N, num_classes], float32.

    Attributes:
      block, depths, widths: kind of the blocks; number and base width of those of each stage.
      groups, group_width: of bottlenecks: 32 and 4 make a ResNeXt, 1 and 128 a wide ResNet.
      stem: `resnet_stems.ImageStem` or `SmallStem`.
      sampler: of the stem, and of the first block of every stage but the first.
      sampler_position: "before" or "after" the last convolution of those blocks (LPS: swap_conv_pool).
      activation, norm, padding: everywhere.
      stem_activation: of the stem, if it is another: before a sampling by 2 a quadratic may be cheaper.
      sum_activation: of the sum that ends a block, if it is another. No norm bounds that sum: polynomials
        of it, block after block, grow so fast that the network does not train.
      zero_init_residual: the last norm of each block starts with scale 0.

    Variables: "params", and "batch_stats" with a batch norm. Training draws from the rng stream "gumbel"
    where the sampler is learned; `temperature` is its softmax's.
    """

    num_classes: int = 1000
    block: BlockKind = "basic"
    depths: tuple[int, ...] = (2, 2, 2, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    groups: int = 1
    group_width: int = 64
    stem: ModuleFactory = part(ImageStem)
    sampler: SamplerFactory = part(Subsample)
    sampler_position: SamplerPosition = "before"
    activation: ModuleFactory = part(Relu)
    stem_activation: ModuleFactory | None = None
    sum_activation: ModuleFactory | None = None
    norm: ModuleFactory = part(BatchNorm)
    padding: Padding = "ZERO"
    zero_init_residual: bool = False

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """See `Network`."""
        first = getattr(self._stem(parent=None), "total_stride", 1)
        return tuple(first * 2**stage for stage in range(len(self.depths)))

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, temperature: Temperature = 1.0
    ) -> jax.Array:
        """Class logits, in float32 (float64 for float64 inputs).

        The last map is sown as "features" in the collection "intermediates".

        Raises:
          ShapeError: not floating-point [N, H, W, C], or an image that is too small.
        """
        x = self.prepared(images)
        x = self._stem(name="stem")(x, train=train, temperature=temperature)
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            for block in range(depth):
                x = ResidualBlock(
                    self.block,
                    width,
                    2 if stage > 0 and block == 0 else 1,
                    self.groups,
                    self.group_width,
                    self.sampler,
                    self.sampler_position,
                    self.activation,
                    self.sum_activation or self.activation,
                    self.norm,
                    self.padding,
                    self.zero_init_residual,
                    **self.numerics,
                    name=f"stage{stage}_block{block}",
                )(x, train=train, temperature=temperature)
            self.sow("intermediates", f"stage{stage}", x)
        pooled = self.pooled(x)
        init = fan_in_uniform(pooled.shape[-1])
        return self.classified(pooled, init, init)

    @nn.nowrap
    def _stem(self, **fields: Any) -> Any:
        return self.stem(
            width=self.widths[0],
            sampler=self.sampler,
            activation=self.stem_activation or self.activation,
            norm=self.norm,
            padding=self.padding,
            **self.numerics,
            **fields,
        )

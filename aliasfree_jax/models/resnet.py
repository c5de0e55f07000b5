"""ResNet (He et al. 2016, arXiv 1512.03385) with injected stem, sampling, activation, norm and padding.

One network for the variants of three code bases: torchvision's (plain), antialiased-cnns (BlurPool),
truly_shift_invariant_cnns (APS) and learnable_polyphase_sampling (LPS), in ImageNet and CIFAR form;
ResNeXts and wide ResNets are choices of `groups` and `group_width`.
"""

from typing import Any, Literal

import flax.linen as nn
import jax

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.activation import Relu
from aliasfree_jax.layers.block import conv_before_norm
from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.layer import Layer, ModuleFactory, part
from aliasfree_jax.layers.normalization import BatchNorm
from aliasfree_jax.layers.sampled import ImageStem
from aliasfree_jax.layers.sampling import SamplerFactory, Subsample, Temperature
from aliasfree_jax.layers.shortcut import ProjectionShortcut
from aliasfree_jax.models.family import REFLECTING_BLUR, Family, Options
from aliasfree_jax.models.network import Network
from aliasfree_jax.models.parts import fields_of
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
    shortcut: ModuleFactory
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
            shortcut = self._shortcut(y.shape[-1])
            x = shortcut(x, phase, train=train, temperature=temperature)
        y = self.sum_activation(**self.numerics, name="activation")(x + y)
        return y

    def _shortcut(self, features: int) -> Any:
        parts = {"sampler": self.sampler, "norm": self.norm}
        shortcut = self.shortcut(
            features=features, stride=self.stride, **parts, **self.numerics, name="shortcut"
        )
        nn.share_scope(self, shortcut)
        return shortcut

    def _convolutions(self, stride: int) -> list[Conv]:
        if self.kind == "basic":
            return [
                conv_before_norm(self, self.width, 3, stride, name="conv1"),
                conv_before_norm(self, self.width, 3, name="conv2"),
            ]
        width = self.width * self.group_width // 64 * self.groups
        return [
            conv_before_norm(self, width, 1, name="conv1"),
            conv_before_norm(self, width, 3, stride, name="conv2", groups=self.groups),
            conv_before_norm(self, self.width * EXPANSION["bottleneck"], 1, name="conv3"),
        ]


class ResNet(Network):
    """Images [N, H, W, channels] to class logits [N, num_classes], float32.

    Attributes:
      block, depths, widths: kind of the blocks; number and base width of those of each stage.
      groups, group_width: of bottlenecks: 32 and 4 make a ResNeXt, 1 and 128 a wide ResNet.
      stem: `layers.sampled.ImageStem` or `SmallStem`.
      shortcut: `layers.shortcut.ProjectionShortcut` or `ZeroPaddedShortcut`, of the blocks that change the
        size or the channels of their map; the others add it as it is.
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
    shortcut: ModuleFactory = part(ProjectionShortcut)
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
        sampling = (self.groups, self.group_width, self.shortcut, self.sampler, self.sampler_position)
        activations = (self.activation, self.sum_activation or self.activation)
        common = (*sampling, *activations, self.norm, self.padding, self.zero_init_residual)
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            for block in range(depth):
                stride, name = 2 if stage > 0 and block == 0 else 1, f"stage{stage}_block{block}"
                residual = ResidualBlock(self.block, width, stride, *common, **self.numerics, name=name)
                x = residual(x, train=train, temperature=temperature)
            self.sow("intermediates", f"stage{stage}", x)
        return self.classified(self.pooled(x))

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


SIZES: dict[str, Options] = {
    "resnet18": {"block": "basic", "depths": (2, 2, 2, 2)},
    "resnet34": {"block": "basic", "depths": (3, 4, 6, 3)},
    "resnet50": {"block": "bottleneck", "depths": (3, 4, 6, 3)},
    "resnet101": {"block": "bottleneck", "depths": (3, 4, 23, 3)},
    "resnet152": {"block": "bottleneck", "depths": (3, 8, 36, 3)},
    "resnext50_32x4d": {"block": "bottleneck", "depths": (3, 4, 6, 3), "groups": 32, "group_width": 4},
    "resnext101_32x8d": {"block": "bottleneck", "depths": (3, 4, 23, 3), "groups": 32, "group_width": 8},
    "wide_resnet50_2": {"block": "bottleneck", "depths": (3, 4, 6, 3), "group_width": 128},
    "wide_resnet101_2": {"block": "bottleneck", "depths": (3, 4, 23, 3), "group_width": 128},
}
CIFAR_SIZES: dict[str, Options] = {
    **{
        f"resnet{6 * depth + 2}_cifar": {"block": "basic", "depths": (depth,) * 3, "widths": (16, 32, 64)}
        for depth in (3, 5, 7, 9, 18)
    },
    **{f"{name}_cifar": SIZES[name] for name in ("resnet18", "resnet34", "resnet50", "resnet101")},
}

_CIRCULAR = {"padding": "CIRCULAR"}
_CIRCULAR_STEM = {"name": "image", "pool_padding": "CIRCULAR"}
# Maximum pooling aliases: an alias-free stem leaves it out. Its first sampling by 2 allows a quadratic
# with one low-passed factor (`layers.activation.LowpassPolynomial`) at full resolution.
_AFC_STEM = {"name": "image", "pool_size": 1}
_AFC_STEM_ACTIVATION = {"name": "lowpass_polynomial", "cutoff": 0.5}

# Parts of each variant, and its ImageNet stem.
VARIANTS: dict[str, Options] = {
    # torchvision's.
    "": {"stem": {"name": "image", "strided": True, "pool_size": 3, "pool_padding": 1}},
    # antialiased-cnns: reflecting blurs in a zero-padded network; only pools are sampled in the stem.
    "blur": {
        "sampler": REFLECTING_BLUR,
        "stem": {"name": "image", "strided": True},
    },
    # truly_shift_invariant_cnns: the circular baseline, BlurPool on the circle and APS.
    "circular": {**_CIRCULAR, "stem": _CIRCULAR_STEM},
    "circular_blur": {**_CIRCULAR, "sampler": {"name": "blur", "kernel_size": 3}, "stem": _CIRCULAR_STEM},
    "aps": {**_CIRCULAR, "sampler": "polyphase", "stem": _CIRCULAR_STEM},
    # learnable_polyphase_sampling.
    "lps": {**_CIRCULAR, "sampler": "learned_polyphase", "stem": _CIRCULAR_STEM},
    # Ours: ideal sampling, polynomial activations within the blocks, exact for every circular shift.
    "afc": {
        **_CIRCULAR,
        "sampler": "ideal",
        "activation": "up_polynomial",
        "sum_activation": "identity",
        "stem": _AFC_STEM,
        "stem_activation": _AFC_STEM_ACTIVATION,
        "precision": "highest",
    },
}
# The same with the stem for CIFAR, which does not sample: its activation is the one of the blocks.
CIFAR_VARIANTS: dict[str, Options] = {
    **{name: {**parts, "stem": "small", "stem_activation": None} for name, parts in VARIANTS.items()},
    "afc": {**VARIANTS["afc"], "stem": {"name": "small", "without_nyquist": True}, "stem_activation": None},
}


def _pool_only(options: dict[str, Any], strided: bool) -> dict[str, Any]:
    """Whether the ImageNet stem's convolution is strided, so that only pools are sampled."""
    stem = fields_of(options["stem"])
    if stem is None or stem["name"] == "small":
        raise ConfigError("pool_only is for ImageNet stems: the small stem samples nothing.")
    return {**options, "stem": {**stem, "strided": strided}}


def _check_zero_init(network: ResNet, options: Options) -> None:
    if network.zero_init_residual and not hasattr(network.norm(parent=None), "scale_init"):
        raise ConfigError(
            "zero_init_residual starts the scale of a norm at 0, but the norm of this network has none "
            f"({options.get('norm')!r}): choose another norm, or leave zero_init_residual out."
        )


_ALIASES = {"pool_only": _pool_only}
RESNETS = Family(ResNet, SIZES, VARIANTS, aliases=_ALIASES, checked=_check_zero_init)
CIFAR_RESNETS = Family(ResNet, CIFAR_SIZES, CIFAR_VARIANTS, aliases=_ALIASES, checked=_check_zero_init)

"""ResNet (He et al. 2016, arXiv 1512.03385) with injected stem, sampling, activation, norm and padding.

One network for the variants of several code bases: torchvision's (plain), antialiased-cnns (BlurPool),
truly_shift_invariant_cnns (APS) and learnable_polyphase_sampling (LPS), in ImageNet and CIFAR form;
ResNeXts and wide ResNets are choices of `groups` and `group_width`. Those of timm, transformers and
pytorch_resnet_cifar10 are choices of stem, shortcut and sampler: `conversion` makes them.
"""

from typing import Any

import flax.linen as nn
import jax

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.activation import Relu
from aliasfree_jax.layers.layer import ModuleFactory, part
from aliasfree_jax.layers.normalization import BatchNorm
from aliasfree_jax.layers.sampled import ImageStem
from aliasfree_jax.layers.sampling import SamplerFactory, Subsample, Temperature, phase_in_turn
from aliasfree_jax.layers.shortcut import ProjectionShortcut
from aliasfree_jax.models.family import REFLECTING_BLUR, Family, Options
from aliasfree_jax.models.network import Network, Stage
from aliasfree_jax.models.parts import fields_of
from aliasfree_jax.models.residual import BlockKind, ResidualBlock, SamplerPosition
from aliasfree_jax.ops.padding import Padding


class ResNet(Network):
    """Images [N, H, W, channels] to class logits [N, num_classes], float32.

    Attributes:
      block, depths, widths: kind of the blocks; number and base width of those of each stage.
      groups, group_width: of bottlenecks: 32 and 4 make a ResNeXt, 1 and 128 a wide ResNet.
      stem: `layers.sampled.ImageStem`, `DeepStem` or `SmallStem`.
      stem_width: channels that the stem gives, if they are not those of the first stage.
      shortcut: `layers.shortcut.ProjectionShortcut` or `ZeroPaddedShortcut`, of the blocks that change the
        size or the channels of their map; the others add it as it is.
      sampler: of the stem, and of the first block of every stage but the first.
      shortcut_sampler: of the shortcuts of those blocks, if it is another.
      sampler_position: "before" or "after" the last convolution of those blocks (LPS: swap_conv_pool), or
        before their "first" (a bottleneck's 1 x 1 convolution then has the stride, as in the first ResNets).
      activation, norm, padding: everywhere.
      stem_activation: of the stem, if it is another: before a sampling by 2 a quadratic may be cheaper.
      sum_activation: of the sum that ends a block, if it is another. No norm bounds that sum: polynomials
        of it, block after block, grow so fast that the network does not train.
      zero_init_residual: the last norm of each block starts with scale 0.
      output_stride: pixels of the image for each of the last map, where that is to be finer than the stages
        sample: the last of them then do not sample, and the kernels behind are dilated instead, so that the
        map agrees at every other place with the coarser one (of a linear sampler without filter). As
        torchvision's replace_stride_with_dilation; basic blocks, which that refuses, follow the same rule.

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
    stem_width: int | None = None
    shortcut: ModuleFactory = part(ProjectionShortcut)
    sampler: SamplerFactory = part(Subsample)
    shortcut_sampler: SamplerFactory | None = None
    sampler_position: SamplerPosition = "before"
    activation: ModuleFactory = part(Relu)
    stem_activation: ModuleFactory | None = None
    sum_activation: ModuleFactory | None = None
    norm: ModuleFactory = part(BatchNorm)
    padding: Padding = "ZERO"
    zero_init_residual: bool = False
    output_stride: int | None = None

    @property
    def full_strides(self) -> tuple[int, ...]:
        """The strides of the stages without `output_stride`."""
        first = getattr(self.stem_layer(parent=None), "total_stride", 1)
        return tuple(first * 2**stage for stage in range(len(self.depths)))

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """See `Network`."""
        most = self.output_stride or self.full_strides[-1]
        return tuple(min(stride, most) for stride in self.full_strides)

    def __call__(
        self, images: jax.Array, *, train: bool = False, temperature: Temperature = 1.0
    ) -> jax.Array:
        """Class logits, in float32 (float64 for float64 inputs).

        The last map is sown as "features" in the collection "intermediates".

        Raises:
          ShapeError: not floating-point [N, H, W, C], or an image that is too small.
        """
        return self.with_stages(images, train=train, temperature=temperature)[0]

    @nn.compact
    def with_stages(
        self, images: jax.Array, *, train: bool = False, temperature: Temperature = 1.0
    ) -> tuple[jax.Array, list[Stage]]:
        """The logits, and what each stage ends with: for a decoder. See `__call__`."""
        x = self.prepared(images)
        x, phase = self.stem_layer(name="stem")(x, train=train, temperature=temperature)
        common = {
            "groups": self.groups,
            "group_width": self.group_width,
            "shortcut": self.shortcut,
            "shortcut_sampler": self.shortcut_sampler or self.sampler,
            "sampler": self.sampler,
            "sampler_position": self.sampler_position,
            "activation": self.activation,
            "sum_activation": self.sum_activation or self.activation,
            "norm": self.norm,
            "padding": self.padding,
            "zero_init": self.zero_init_residual,
            **self.numerics,
        }
        stages: list[Stage] = []
        before = self.full_strides[0], 1  # stride and dilation of the map
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            after = self.stage_strides[stage], self.full_strides[stage] // self.stage_strides[stage]
            for block in range(depth):
                stride, dilations = after[0] // before[0], (before[1], after[1])
                name = f"stage{stage}_block{block}"
                residual = ResidualBlock(self.block, width, stride, dilations, **common, name=name)
                x, chosen = residual(x, train=train, temperature=temperature)
                phase = phase_in_turn(x.shape[0], (before[0], phase), (stride, chosen))
                before = after
            self.sow("intermediates", f"stage{stage}", x)
            stages.append(Stage(x, after[0], phase))
        return self.classified(self.pooled(x)), stages

    @nn.nowrap
    def stem_layer(self, **fields: Any) -> Any:
        """The stem, with the parts of the network."""
        return self.stem(
            width=self.stem_width or self.widths[0],
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


def _check(network: ResNet, options: Options) -> None:
    if network.output_stride not in (None, *network.full_strides):
        raise ConfigError(
            f"output_stride={network.output_stride!r}: the stages of this network have the strides "
            f"{', '.join(map(str, network.full_strides))}; choose one of them, or leave output_stride out."
        )
    if network.zero_init_residual and not hasattr(network.norm(parent=None), "scale_init"):
        raise ConfigError(
            "zero_init_residual starts the scale of a norm at 0, but the norm of this network has none "
            f"({options.get('norm')!r}): choose another norm, or leave zero_init_residual out."
        )


_ALIASES = {"pool_only": _pool_only}
RESNETS = Family(ResNet, SIZES, VARIANTS, aliases=_ALIASES, checked=_check)
CIFAR_RESNETS = Family(ResNet, CIFAR_SIZES, CIFAR_VARIANTS, aliases=_ALIASES, checked=_check)

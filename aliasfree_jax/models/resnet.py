"""ResNet (He et al. 2016, arXiv 1512.03385) with injected stem, sampling, activation, norm and padding.

One network class covers the variants of several code bases, for ImageNet and CIFAR: torchvision (plain),
antialiased-cnns (BlurPool), `truly_shift_invariant_cnns` (APS) and `learnable_polyphase_sampling` (LPS).
`groups` and `group_width` make ResNeXts and wide ResNets. Stem, shortcut and sampler make the networks of
timm, transformers and `pytorch_resnet_cifar10`; `conversion` sets them.
"""

from typing import Any

import flax.linen as nn
import jax

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.activation import Relu, is_gated
from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.layer import ModuleFactory, part
from aliasfree_jax.layers.normalization import BatchNorm
from aliasfree_jax.layers.sampling import SamplerFactory, Subsample, Temperature, phase_in_turn
from aliasfree_jax.layers.shortcut import ProjectionShortcut
from aliasfree_jax.layers.stems import ImageStem
from aliasfree_jax.models.family import REFLECTING_BLUR, Family, Options
from aliasfree_jax.models.network import Network, Stage
from aliasfree_jax.models.parts import fields_of
from aliasfree_jax.models.residual import BlockKind, ResidualBlock, SamplerPosition
from aliasfree_jax.ops.padding import Padding


class ResNet(Network):
    """ResNet: classifies images `[N, H, W, channels]`, logits `[N, num_classes]`, float32.

    Variables are in "params", and in `"batch_stats"` with a batch norm. Training draws from the rng stream
    "gumbel" if the sampler is learned.

    Attributes:
      num_classes: see `Network`.
      block: kind of the blocks, "basic" or "bottleneck".
      depths: number of blocks of each stage.
      widths: base width of the blocks of each stage.
      groups: channel groups of bottlenecks: 32 for a ResNeXt.
      group_width: channels per group of bottlenecks: 4 for a ResNeXt (32x4d), 128 for a wide ResNet.
      stem: `layers.stems.ImageStem`, `DeepStem` or `SmallStem`.
      stem_width: output channels of the stem. None: the channels of the first stage.
      shortcut: shortcut of blocks that change the size or the channels of their map:
        `layers.shortcut.ProjectionShortcut` or `ZeroPaddedShortcut`. Other blocks add their input
        unchanged.
      sampler: sampler of the stem, and of the first block of every stage except the first.
      shortcut_sampler: sampler of the shortcuts of those blocks. None: the same as `sampler`.
      sampler_position: place of the sampler in those blocks: "before" or "after" the last convolution
        (`swap_conv_pool` of LPS), or before the "first" one. With "first", the 1 x 1 convolution of a
        bottleneck has the stride, as in the first ResNets.
      activation: activation of the whole network.
      stem_activation: activation of the stem, if it differs. Before sampling by 2 a low-passed quadratic is
        cheaper.
      sum_activation: activation of the sum at the end of a block, if it differs. No norm bounds this sum.
        Polynomials of it grow so fast from block to block that the network does not train.
      norm: norm of the whole network.
      conv: convolution of the whole network.
      padding: padding of the convolutions.
      zero_init_residual: whether the last norm of each block starts with scale 0.
      output_stride: stride of the last map, if it is to be finer than the stages make it. The last stages
        then do not sample, and their kernels are dilated instead. At every second position the map agrees
        with the coarser one (for linear samplers without filter). This is torchvision's
        `replace_stride_with_dilation`; basic blocks, which torchvision rejects, follow the same rule.

    Source: He et al. 2016 (arXiv 1512.03385); the samplers: Zhang 2019 (arXiv 1904.11486), Chaman &
    Dokmanic 2021 (arXiv 2011.14214), Rojas-Gomez et al. 2022 (arXiv 2210.08001). The alias-free variant is
    this package's.
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
    conv: ModuleFactory = part(Conv)
    padding: Padding = "ZERO"
    zero_init_residual: bool = False
    output_stride: int | None = None

    @property
    def full_strides(self) -> tuple[int, ...]:
        """Strides of the stages without `output_stride`."""
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
        """Returns class logits in float32 (float64 for float64 images).

        The last map is sown as "features" in the collection "intermediates".

        Raises:
          ShapeError: the images are not floating-point `[N, H, W, C]`, or too small.
        """
        return self.with_stages(images, train=train, temperature=temperature)[0]

    @nn.compact
    def with_stages(
        self, images: jax.Array, *, train: bool = False, temperature: Temperature = 1.0
    ) -> tuple[jax.Array, list[Stage]]:
        """Returns the logits and the output of each stage, for a decoder. See `__call__`."""
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
            "conv": self.conv,
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
        """Builds the stem with the parts of the network."""
        return self.stem(
            width=self.stem_width or self.widths[0],
            sampler=self.sampler,
            activation=self.stem_activation or self.activation,
            norm=self.norm,
            conv=self.conv,
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
# Max pooling aliases, so an alias-free stem leaves it out. The stem's first sampling by 2 allows a quadratic
# with one low-passed factor (`layers.activation.LowpassPolynomial`) at full resolution. A batch norm alone
# does not bound single images, and products of unbounded maps overflow (docs/experiments.md compares norms).
# The bound depends on the power of the map, which fractional shifts change at the Nyquist frequency.
_AFC: Options = {
    **_CIRCULAR,
    "sampler": "ideal",
    "activation": "up_polynomial",
    "sum_activation": "identity",
    "stem": {"name": "image", "pool_size": 1, "without_nyquist": True},
    "stem_activation": {"name": "lowpass_polynomial", "cutoff": 0.5},
    "norm": "bounded_batch",
    "precision": "highest",
}

# Parts of each variant, with the stem for ImageNet.
VARIANTS: dict[str, Options] = {
    # torchvision's.
    "": {"stem": {"name": "image", "strided": True, "pool_size": 3, "pool_padding": 1}},
    # antialiased-cnns: reflecting blurs in a zero-padded network. In the stem, only the max pool is blurred.
    "blur": {
        "sampler": REFLECTING_BLUR,
        "stem": {"name": "image", "strided": True},
    },
    # truly_shift_invariant_cnns: the circular baseline, circular BlurPool, and APS.
    "circular": {**_CIRCULAR, "stem": _CIRCULAR_STEM},
    "circular_blur": {**_CIRCULAR, "sampler": {"name": "blur", "kernel_size": 3}, "stem": _CIRCULAR_STEM},
    "aps": {**_CIRCULAR, "sampler": "polyphase", "stem": _CIRCULAR_STEM},
    # learnable_polyphase_sampling.
    "lps": {**_CIRCULAR, "sampler": "learned_polyphase", "stem": _CIRCULAR_STEM},
    # Source: this package. Both are exact for every circular shift.
    "afc": _AFC,
    # Gates start almost linear (docs/experiments.md compares scales).
    "afg": {
        **_AFC,
        "activation": {"name": "up_gate", "train_scale": True},
        "stem_activation": {"name": "lowpass_gate", "cutoff": 0.5, "train_scale": True},
        "conv": "standardised",
    },
}
# The same with the stem for CIFAR. It does not sample, so its activation is that of the blocks.
CIFAR_VARIANTS: dict[str, Options] = {
    name: {
        **parts,
        "stem": {"name": "small", "without_nyquist": True} if parts.get("sampler") == "ideal" else "small",
        "stem_activation": None,
    }
    for name, parts in VARIANTS.items()
}


def _pool_only(options: dict[str, Any], strided: bool) -> dict[str, Any]:
    """Sets whether the ImageNet stem's convolution is strided. Only the max pool then uses the sampler."""
    stem = fields_of(options["stem"])
    if stem is None or stem["name"] == "small":
        raise ConfigError("pool_only needs an ImageNet stem: the small stem does not sample.")
    return {**options, "stem": {**stem, "strided": strided}}


def _check(network: ResNet, options: Options) -> None:
    if is_gated(network.sum_activation or network.activation):
        raise ConfigError(
            "sum_activation must keep the number of channels, but this network's is a gate, which halves it: "
            "set sum_activation='identity', or choose another activation, such as 'up_self_gate'."
        )
    if network.output_stride not in (None, *network.full_strides):
        raise ConfigError(
            f"output_stride must be one of the strides of this network's stages, "
            f"{', '.join(map(str, network.full_strides))}, got {network.output_stride!r}."
        )
    if network.zero_init_residual and not hasattr(network.norm(parent=None), "scale_init"):
        raise ConfigError(
            "zero_init_residual starts the scale of a norm at 0, but the norm of this network has no scale "
            f"({options.get('norm')!r}): choose another norm, or set zero_init_residual=False."
        )


_ALIASES = {"pool_only": _pool_only}
_SHARED: Any = {"aliases": _ALIASES, "gated": True, "checked": _check}
RESNETS = Family(ResNet, SIZES, VARIANTS, **_SHARED)
CIFAR_RESNETS = Family(ResNet, CIFAR_SIZES, CIFAR_VARIANTS, **_SHARED)

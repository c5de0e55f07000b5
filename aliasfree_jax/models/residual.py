"""The residual block of ResNets (He et al. 2016, arXiv 1512.03385), with injected parts."""

import functools
from typing import Any, Literal

import flax.linen as nn
import jax

from aliasfree_jax.errors import ShapeError
from aliasfree_jax.layers.activation import expansion
from aliasfree_jax.layers.block import conv_before_norm
from aliasfree_jax.layers.layer import Layer, ModuleFactory
from aliasfree_jax.layers.mlp import hidden_width
from aliasfree_jax.layers.sampling import Phase, SamplerFactory, Subsample, Temperature
from aliasfree_jax.ops.padding import Padding

BlockKind = Literal["basic", "bottleneck"]
SamplerPosition = Literal["first", "before", "after"]
EXPANSION = {"basic": 1, "bottleneck": 4}


class ResidualBlock(Layer):
    """Two 3 x 3 convolutions ("basic") or 1 x 1, 3 x 3, 1 x 1 ("bottleneck"), and a shortcut.

    A block of stride 2 samples its map before its first convolution, or before or after its last one. The
    shortcut samples its input at the same phase. With `Subsample` before the last convolution, the
    preceding convolution has the stride, as in torchvision. This is the same function at a quarter of the
    cost. With a gate the branch has 2/3 of the channels after each gate, so about as many weights.

    Attributes:
      dilations: dilations of the convolutions before and after the place of the sampler.
    """

    kind: BlockKind
    width: int
    stride: int
    dilations: tuple[int, int]
    groups: int
    group_width: int
    shortcut: ModuleFactory
    shortcut_sampler: SamplerFactory
    sampler: SamplerFactory
    sampler_position: SamplerPosition
    activation: ModuleFactory
    sum_activation: ModuleFactory
    norm: ModuleFactory
    conv: ModuleFactory
    padding: Padding
    zero_init: bool

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, temperature: Temperature) -> tuple[jax.Array, Phase]:
        """`[N, H, W, C]` to `[N, H / stride, W / stride, expansion * width]`, and the phase."""
        sampler = self.sampler(strides=self.stride, **self.numerics, name="sampler")
        strided = isinstance(sampler, Subsample) and self.sampler_position != "first"
        samples = self.stride > 1 and not strided
        last = 2 if self.kind == "basic" else 3
        where = "before" if strided else self.sampler_position
        position = {"first": 0, "before": last - 1, "after": last}[where]
        convolutions = self._convolutions(1 if samples else self.stride, position)
        y, phase = x, None
        for number, conv in enumerate(convolutions, 1):
            if samples and position == number - 1:
                y, phase = sampler.with_phase(y, train=train, temperature=temperature)
            y = conv(y)
            if samples and position == number == last:
                y, phase = sampler.with_phase(y, train=train, temperature=temperature)
            zero: dict[str, Any] = {"scale_init": nn.initializers.zeros} if self.zero_init else {}
            norm = self.norm(**self.numerics, name=f"norm{number}", **(zero if number == last else {}))
            y = norm(y, train=train)
            if number < last:
                y = self.activation(**self.numerics, name=f"activation{number}")(y)
        # A block that dilates instead of sampling must have the weights of the block that samples.
        if self.stride > 1 or len(set(self.dilations)) > 1 or y.shape[-1] != x.shape[-1]:
            x = self._shortcut(y.shape[-1])(x, phase, train=train, temperature=temperature)
        if x.shape != y.shape:
            raise ShapeError(
                f"the branch of a block samples its map to {y.shape[1]} x {y.shape[2]}, the shortcut to "
                f"{x.shape[1]} x {x.shape[2]}: a pool of full windows drops the end of an odd side. Use "
                "images whose sides are multiples of the network's total stride, or another sampler."
            )
        return self.sum_activation(**self.numerics, name="activation")(x + y), phase

    @nn.nowrap
    def _shortcut(self, features: int) -> Any:
        shortcut: Any = self.shortcut(
            features=features,
            stride=self.stride,
            sampler=self.shortcut_sampler,
            norm=self.norm,
            conv=self.conv,
            **self.numerics,
            name="shortcut",
        )
        # The variables of every kind of shortcut are stored next to those of the branch.
        nn.share_scope(self, shortcut)
        return shortcut

    def _convolutions(self, stride: int, position: int) -> list[Any]:
        """Returns the convolutions of the branch.

        `stride` is the stride of the first 3 x 3 convolution. The first `position` convolutions have the
        first dilation.
        """
        first, second = (self.dilations[number >= position] for number in range(2))
        conv = functools.partial(conv_before_norm, self, conv=self.conv)
        expanded = expansion(self.activation)
        if self.kind == "basic":
            hidden = expanded * hidden_width(self.width, self.activation, 1.0)
            return [
                conv(hidden, 3, stride, name="conv1", dilation=first),
                conv(self.width, 3, name="conv2", dilation=second),
            ]
        width = self.width * self.group_width // 64 * self.groups
        hidden = expanded * hidden_width(width, self.activation, 1.0, max(8, self.groups))
        return [
            conv(hidden, 1, name="conv1"),
            conv(hidden, 3, stride, name="conv2", groups=self.groups, dilation=second),
            conv(self.width * EXPANSION["bottleneck"], 1, name="conv3"),
        ]

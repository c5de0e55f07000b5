"""Convolutions whose padding can be circular."""

from typing import Any

import flax.linen as nn
import jax

from aliasfree_jax.layers.batching import images_at_once, over_images
from aliasfree_jax.layers.layer import Initializer, Layer, accurate_dtype, lecun_normal, normal
from aliasfree_jax.ops.convolution import conv2d, mean_convolution, wide_patches
from aliasfree_jax.ops.depthwise import depthwise_conv
from aliasfree_jax.ops.padding import Padding, WindowPadding
from aliasfree_jax.ops.shapes import Pair, check_images, pair


class Conv(Layer):
    """A convolution [N, H, W, C] to [N, H', W', features], circular unless told otherwise.

    `nn.Conv` for maps, with the paddings of `ops.padding.WindowPadding` and, on CPUs, a faster gradient for
    few channels.

    Attributes:
      kernel_dilation: steps between the taps of the kernel. Circular padding is right for every step, also
        where the kernel reaches further than the map.
      feature_group_count: groups of channels, each convolved by itself; divides C and features.
    """

    features: int
    kernel_size: Pair
    strides: Pair = 1
    padding: WindowPadding = "CIRCULAR"
    feature_group_count: int = 1
    use_bias: bool = True
    kernel_init: Initializer = lecun_normal
    bias_init: Initializer = nn.initializers.zeros
    kernel_dilation: Pair = 1

    def __call__(self, x: jax.Array) -> jax.Array:
        """Cross-correlation plus bias.

        Raises:
          ShapeError: not floating-point [N, H, W, C], or a map that is too small.
          ConfigError: unknown padding.
        """
        check_images(x)
        window, strides = pair(self.kernel_size, "kernel_size"), pair(self.strides, "strides")
        dilation, groups = pair(self.kernel_dilation, "kernel_dilation"), self.feature_group_count
        large = wide_patches(x.shape, window, self.features, strides, dilation=dilation, groups=groups)
        at_once = images_at_once(x.shape[0], large * x.dtype.itemsize) if large else x.shape[0]
        return over_images(self, Conv._forward, x, at_once=at_once, remat="auto")

    @nn.compact
    def _forward(self, x: jax.Array) -> jax.Array:
        window, groups = pair(self.kernel_size, "kernel_size"), self.feature_group_count
        shape = (*window, x.shape[-1] // groups, self.features)
        x, kernel, bias = _parameters(self, x, shape, self.bias_init)
        how: dict[str, Any] = {"dilation": self.kernel_dilation, "groups": groups}
        y = conv2d(x, kernel, self.strides, self.padding, self.precision, **how)
        return y if bias is None else y + bias


def _parameters(
    of: Any, x: jax.Array, shape: tuple[int, ...], bias_init: Initializer
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """The map in the number format of a convolution `of`, its kernel of this shape and its bias, if any."""
    kernel = of.param("kernel", of.kernel_init, shape, of.param_dtype)
    bias = of.param("bias", bias_init, shape[-1:], of.param_dtype) if of.use_bias else None
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=of.dtype)
    return x, kernel, bias


class MeanConv(Layer):
    """`Conv` at stride 1 followed by the mean over all positions, [N, H, W, C] to [N, features].

    With the same parameters, computed without the convolution (`ops.mean_convolution`) and, for half
    precision, in float32.
    """

    features: int
    kernel_size: int
    padding: Padding = "CIRCULAR"
    kernel_init: Initializer = lecun_normal
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The mean of cross-correlation plus bias."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        accurate = accurate_dtype(x.dtype)
        return mean_convolution(x.astype(accurate), kernel.astype(accurate), self.padding) + bias


class DepthwiseConv(Layer):
    """A filter for each channel at stride 1, keeping the size of the map [N, H, W, C].

    On CPUs many times faster than XLA's grouped convolution (`ops.depthwise`).
    """

    kernel_size: Pair = 7
    padding: Padding = "CIRCULAR"
    use_bias: bool = True
    kernel_init: Initializer = normal(0.02)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, H, W, C] to [N, H, W, C]. Raises `ShapeError` for unfit maps, `ConfigError` for padding."""
        check_images(x)
        shape = (*pair(self.kernel_size, "kernel_size"), x.shape[-1])
        x, kernel, bias = _parameters(self, x, shape, nn.initializers.zeros)
        y = depthwise_conv(x, kernel, self.padding, precision=self.precision)
        return y if bias is None else y + bias

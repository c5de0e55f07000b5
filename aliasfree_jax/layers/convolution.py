"""Convolutions with circular padding."""

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
    """Convolution `[N, H, W, C]` to `[N, H', W', features]`, circular by default.

    It is `nn.Conv` for 2-D maps with the padding modes of `ops.padding.WindowPadding`. On CPUs, the
    gradient of convolutions with few input channels is faster than XLA's.

    Attributes:
      features: output channels.
      kernel_size: size of the kernel.
      strides: strides of the convolution.
      padding: "CIRCULAR", "ZERO", "REFLECT", "REPLICATE", "SAME", "VALID" or numbers of samples.
      feature_group_count: number of channel groups, each convolved separately. It divides the input
        channels and `features`.
      use_bias: whether to add a bias.
      kernel_init: initializer of the kernel.
      bias_init: initializer of the bias.
      kernel_dilation: distance in samples between neighbouring taps. Circular padding is exact for every
        distance, also if the kernel is larger than the map.

    Source: standard convolution; circular padding as in Chaman & Dokmanic 2021 (arXiv 2011.14214).
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
        """Returns the cross-correlation plus bias.

        Raises:
          ShapeError: `x` is not floating-point `[N, H, W, C]`, or the map is too small.
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
        y = conv2d(x, self.applied(kernel), self.strides, self.padding, self.precision, **how)
        return y if bias is None else y + bias

    @nn.nowrap
    def applied(self, kernel: jax.Array) -> jax.Array:
        """Returns the kernel that is applied, for the learned one."""
        return kernel


class StandardisedConv(Conv):
    """`Conv` whose kernels have mean 0 and a fixed norm ("weight standardisation").

    The kernel of every output channel is centred and divided by its norm; its variance is that of
    He's initialisation, 2 / fan-in. Its fields are those of `Conv`.

    Source: Qiao et al. 2019 (arXiv 1903.10520).
    """

    @nn.nowrap
    def applied(self, kernel: jax.Array) -> jax.Array:
        """Returns the standardised kernel."""
        accurate = kernel.astype(accurate_dtype(kernel.dtype))
        centred = accurate - accurate.mean((0, 1, 2))
        power = (centred**2).sum((0, 1, 2)) / 2
        return (centred * jax.lax.rsqrt(power + 1e-5)).astype(kernel.dtype)


def _parameters(
    of: Any, x: jax.Array, shape: tuple[int, ...], bias_init: Initializer
) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """Returns the map in the number format of the convolution `of`, its kernel, and its bias or None."""
    kernel = of.param("kernel", of.kernel_init, shape, of.param_dtype)
    bias = of.param("bias", bias_init, shape[-1:], of.param_dtype) if of.use_bias else None
    x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=of.dtype)
    return x, kernel, bias


class MeanConv(Layer):
    """`Conv` at stride 1, then the mean over all positions: `[N, H, W, C]` to `[N, features]`.

    It has the same parameters, but does not compute the convolution (`ops.mean_convolution`).
    Half-precision maps are processed in float32.
    """

    features: int
    kernel_size: int
    padding: Padding = "CIRCULAR"
    kernel_init: Initializer = lecun_normal
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the mean of the cross-correlation plus bias."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        accurate = accurate_dtype(x.dtype)
        return mean_convolution(x.astype(accurate), kernel.astype(accurate), self.padding) + bias


class DepthwiseConv(Layer):
    """Filters each channel separately at stride 1 and keeps the size of the map.

    On CPUs it is many times faster than XLA's grouped convolution (`ops.depthwise_conv`).

    Attributes:
      kernel_size: size of the filters.
      padding: how the map continues beyond its border.
      use_bias: whether to add a bias.
      kernel_init: initializer of the filters.

    Source: standard depthwise convolution, as in ConvNeXt (Liu et al. 2022, arXiv 2201.03545).
    """

    kernel_size: Pair = 7
    padding: Padding = "CIRCULAR"
    use_bias: bool = True
    kernel_init: Initializer = normal(0.02)

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, C]` to `[N, H, W, C]`.

        Raises:
          ShapeError: `x` is not floating-point `[N, H, W, C]`, or the map is smaller than the padding.
          ConfigError: unknown padding.
        """
        check_images(x)
        shape = (*pair(self.kernel_size, "kernel_size"), x.shape[-1])
        x, kernel, bias = _parameters(self, x, shape, nn.initializers.zeros)
        y = depthwise_conv(x, kernel, self.padding, precision=self.precision)
        return y if bias is None else y + bias

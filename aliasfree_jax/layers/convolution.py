"""Convolutions with injected padding."""

import flax.linen as nn
import jax

from aliasfree_jax.layers.batching import images_at_once, over_images
from aliasfree_jax.layers.numerics import Numerics, accurate_dtype
from aliasfree_jax.ops.convolution import conv2d, wide_patches
from aliasfree_jax.ops.depthwise import depthwise_conv
from aliasfree_jax.ops.mean_convolution import mean_convolution
from aliasfree_jax.ops.padding import Padding, WindowPadding

Initializer = nn.initializers.Initializer


class Conv(nn.Module):
    """A k x k convolution [N, H, W, C] to [N, H', W', features].

    Attributes:
      padding: "none" (only full windows), or how the map continues; then H' = ceil(H / stride).
      groups: of channels, each convolved by itself; divides C and features.
    """

    features: int
    kernel_size: int
    stride: int = 1
    padding: WindowPadding = "none"
    kernel_init: Initializer = nn.initializers.normal(0.02)
    numerics: Numerics = Numerics()
    bias_init: Initializer = nn.initializers.zeros
    use_bias: bool = True
    groups: int = 1

    def __call__(self, x: jax.Array) -> jax.Array:
        """Cross-correlation plus bias."""
        large = wide_patches(x.shape, self.kernel_size, self.features, self.stride, groups=self.groups)
        at_once = images_at_once(x.shape[0], large * x.dtype.itemsize) if large else x.shape[0]
        return over_images(self, Conv._forward, x, at_once=at_once, remat="auto")

    @nn.compact
    def _forward(self, x: jax.Array) -> jax.Array:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", self.bias_init, (self.features,)) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.numerics.dtype)
        precision = self.numerics.precision
        y = conv2d(x, kernel, self.stride, self.padding, precision, groups=self.groups)
        return y if bias is None else y + bias


class MeanConv(nn.Module):
    """`Conv` at stride 1 followed by the mean over all positions, [N, H, W, C] to [N, features].

    With the same parameters, computed without the convolution (`ops.mean_convolution`) and, for half
    precision, in float32.
    """

    features: int
    kernel_size: int
    padding: Padding = "circular"
    kernel_init: Initializer = nn.initializers.normal(0.02)
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """The mean of cross-correlation plus bias."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", self.bias_init, (self.features,))
        accurate = accurate_dtype(x.dtype)
        return mean_convolution(x.astype(accurate), kernel.astype(accurate), self.padding) + bias


class DepthwiseConv(nn.Module):
    """A k x k filter for each channel at stride 1, keeping the size of the map."""

    kernel_size: int = 7
    padding: Padding = "circular"
    kernel_init: Initializer = nn.initializers.normal(0.02)
    numerics: Numerics = Numerics()
    use_bias: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, H, W, C] to [N, H, W, C]."""
        shape = (self.kernel_size, self.kernel_size, x.shape[-1])
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],)) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.numerics.dtype)
        y = depthwise_conv(x, kernel, self.padding, precision=self.numerics.precision)
        return y if bias is None else y + bias

"""Upsamplers of ordinary networks, and the convolution behind an upsampler of any kind.

Upsamplers that take phases are in `layers.sampling`, beside the samplers that choose them.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.layer import Initializer, Layer, ModuleFactory, lecun_normal, part
from aliasfree_jax.layers.sampling import IdealUpsample, Phase, SamplerFactory, Subsample
from aliasfree_jax.ops.bilinear import bilinear_resize
from aliasfree_jax.ops.polyphase import polyphase_upsample
from aliasfree_jax.ops.resample import ideal_resample
from aliasfree_jax.ops.shapes import Pair, check_images, pair


class ZeroUpsample(Layer):
    """Zeros between the samples: what transposed convolutions do. Aliases.

    Attributes:
      inner: sampler whose filter runs behind it, and behind the convolution in `UpsampledConv`.
    """

    strides: Pair = 2
    inner: SamplerFactory = part(Subsample)

    def __call__(self, x: jax.Array, phase: Phase = None, *, train: bool = False) -> jax.Array:
        """[N, h, w, C] to [N, stride h, stride w, C]: the samples stand at phase 0, whatever `phase` says."""
        check_images(x)
        x = self.cast(x)
        return self.filtered(polyphase_upsample(x, jnp.zeros(x.shape[0], jnp.int32), self.strides), train)

    @nn.compact
    def filtered(self, x: jax.Array, train: bool) -> jax.Array:
        """The map behind the filter of `inner`."""
        inner: Any = self.inner(strides=self.strides, **self.numerics, name="inner")
        y: jax.Array = inner.filter(x, train=train)
        return y


class BilinearUpsample(Layer):
    """Bilinear interpolation; aliases.

    Attributes:
      align_corners: the outermost samples stay the outermost ones (the first U-Nets in PyTorch).
    """

    strides: Pair = 2
    align_corners: bool = True

    def __call__(self, x: jax.Array, phase: Phase = None, *, train: bool = False) -> jax.Array:
        """[N, h, w, C] to [N, stride h, stride w, C], whatever `phase` says."""
        check_images(x)
        rows, columns = pair(self.strides, "strides")
        shape = rows * x.shape[1], columns * x.shape[2]
        exact = self.exact
        return bilinear_resize(self.cast(x), shape, align_corners=self.align_corners, precision=exact)


class _TransposedConv(Layer):
    """A transposed convolution whose kernel [rows, columns, C, features] is as large as its strides."""

    features: int
    strides: Pair
    kernel_init: Initializer
    bias_init: Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Every sample times the kernel, side by side."""
        (n, h, w, channels), (rows, columns) = x.shape, pair(self.strides, "strides")
        shape = (rows, columns, channels, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        flat = kernel.transpose(2, 0, 1, 3).reshape(channels, -1)
        y = jnp.matmul(x, flat, precision=self.precision).reshape(n, h, w, rows, columns, self.features)
        return y.transpose(0, 1, 3, 2, 4, 5).reshape(n, h * rows, w * columns, self.features) + bias


class UpsampledConv(Layer):
    """An upsampler, then a circular convolution: the mirror image of `SampledConv`.

    Attributes:
      features: channels of the result; 0 leaves the convolution out.
      upsampler: with `ZeroUpsample` it is a transposed convolution, whose kernel is as large as the strides.
    """

    features: int
    strides: Pair = 2
    upsampler: ModuleFactory = part(ZeroUpsample)
    kernel_init: Initializer = lecun_normal
    bias_init: Initializer = nn.initializers.zeros

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        phase: Phase = None,
        *,
        shape: tuple[int, int] | None = None,
        train: bool = False,
    ) -> jax.Array:
        """[N, h, w, C] to [N, stride h, stride w, features].

        Args:
          phase: that a sampler of the same strides chose.
          shape: of the result, if it is smaller: of the map that a sampler got.
        """
        check_images(x)
        upsampler: Any = self.upsampler(strides=self.strides, **self.numerics, name="upsampler")
        how: dict[str, Any] = {"kernel_init": self.kernel_init, "bias_init": self.bias_init, **self.numerics}
        transposed = self.features > 0 and isinstance(upsampler, ZeroUpsample)
        if transposed:
            conv = _TransposedConv(self.features, self.strides, **how, name="conv")
            y = upsampler.filtered(conv(x), train)
        else:
            y = upsampler(x, phase, train=train)
        if shape is not None and shape != y.shape[1:3]:
            if isinstance(upsampler, IdealUpsample):  # cutting would tear the circle
                y = ideal_resample(y, shape, precision=self.exact)
            else:
                y = y[:, : shape[0], : shape[1]]
        if transposed or not self.features:
            return y
        return Conv(self.features, self.strides, **how, name="conv")(y)

"""Upsamplers, and the convolution after an upsampler of any kind.

An upsampler is called as `y = upsampler(x, phase)`. It writes samples back at the phase they came from and
then filters. Together with the sampler that chose the phase (`layers.sampling`), this commutes with integer
circular shifts. Decoders of networks for dense prediction use it. `ZeroUpsample` and `BilinearUpsample` are
those of ordinary networks.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.layer import Initializer, Layer, ModuleFactory, lecun_normal, part
from aliasfree_jax.layers.sampling import Phase, SamplerFactory, Subsample, first_places, steps_of
from aliasfree_jax.ops.bilinear import bilinear_resize
from aliasfree_jax.ops.polyphase import polyphase_upsample, select_component
from aliasfree_jax.ops.resample import (
    ideal_resample,
    ideal_upsample,
)
from aliasfree_jax.ops.shapes import Pair, check_images, pair


class PolyphaseUpsample(Layer):
    """Writes samples back at the phase they came from, then filters: the reverse of polyphase sampling.

    With the phase of the sampler it is exact for integer shifts. `inner` selects ApsUp of
    `truly_shift_invariant_cnns` (there with gain 1), LPU of `learnable_polyphase_sampling`, or blur
    upsampling.

    Attributes:
      strides: upsampling strides.
      inner: sampler whose filter runs after each step. `Subsample` leaves zeros between the samples.
      gain: factor of each step. None: the number of phases, which preserves constants.

    Source: Chaman & Dokmanic 2021 (arXiv 2105.04040); LPU: Rojas-Gomez et al. 2022 (arXiv 2210.08001).

    Differs from the original: the default gain preserves constants; that of ApsUp is 1.
    """

    strides: Pair = 2
    inner: SamplerFactory = part(Subsample)
    gain: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array, phase: Phase = None, *, train: bool = False) -> jax.Array:
        """`[N, h, w, C]` to `[N, stride h, stride w, C]`.

        Args:
          phase: phase that a sampler with the same strides chose. None: phase 0.

        Raises:
          ShapeError: `x` is not floating-point `[N, h, w, C]`.
        """
        check_images(x)
        x = self.cast(x)
        for step, factors in reversed(list(enumerate(steps_of(self.strides)))):
            index = jnp.zeros(x.shape[0], jnp.int32) if phase is None else phase[step]
            inner: Any = self.inner(strides=factors, **self.numerics, name=f"inner{step}")
            x = inner.filter(polyphase_upsample(x, index, factors), train=train)
            gain = factors[0] * factors[1] if self.gain is None else self.gain
            x = x if gain == 1 else x * jnp.asarray(gain, x.dtype)
        return x


class IdealUpsample(Layer):
    """Ideal interpolation, exact for fractional shifts.

    A phase shifts the result by whole pixels. Weights of phases, as in the training of a learned sampler, mix
    the shifted results.

    Attributes:
      strides: upsampling strides.

    Source: Michaeli et al. 2023 (arXiv 2303.08085), section 3.2; the phase is this package's.
    """

    strides: Pair = 2

    def __call__(self, x: jax.Array, phase: Phase = None, *, train: bool = False) -> jax.Array:
        """`[N, h, w, C]` to `[N, stride h, stride w, C]`.

        Args:
          phase: phase that a sampler with the same strides chose. None: phase 0.

        Raises:
          ShapeError: `x` is not floating-point `[N, h, w, C]`.
        """
        check_images(x)
        y = ideal_upsample(self.cast(x), self.strides, precision=self.exact)
        if phase is None:
            return y
        if phase[0].ndim == 2:
            return _mixed(y, self.strides, phase)
        places = first_places(phase, self.strides)
        return jax.vmap(lambda image, r, c: jnp.roll(image, (r, c), axis=(0, 1)))(y, *places)


def _mixed(y: jax.Array, strides: Pair, weights: tuple[jax.Array, ...]) -> jax.Array:
    """The images, shifted to the positions of all phases and mixed by the `weights` of each step."""
    rows = columns = 1
    for (down, right), weight in zip(steps_of(strides), weights, strict=True):
        places = [(rows * (k % down), columns * (k // down)) for k in range(down * right)]
        y = select_component(jnp.stack([jnp.roll(y, by, (1, 2)) for by in places], 1), weight)
        rows, columns = rows * down, columns * right
    return y


class ZeroUpsample(Layer):
    """Inserts zeros between the samples, as transposed convolutions do. It aliases.

    It is exact for integer shifts of its input, which are multiples of the strides in its output.

    Attributes:
      strides: upsampling strides.
      inner: sampler whose filter runs after the zeros are inserted. In `UpsampledConv` it runs after the
        convolution.

    Source: standard transposed convolution.
    """

    strides: Pair = 2
    inner: SamplerFactory = part(Subsample)

    def __call__(self, x: jax.Array, phase: Phase = None, *, train: bool = False) -> jax.Array:
        """`[N, h, w, C]` to `[N, stride h, stride w, C]`.

        Args:
          phase: has no effect; samples are always written at phase 0.

        Raises:
          ShapeError: `x` is not floating-point `[N, h, w, C]`.
        """
        check_images(x)
        x = self.cast(x)
        return self.filtered(polyphase_upsample(x, jnp.zeros(x.shape[0], jnp.int32), self.strides), train)

    @nn.compact
    def filtered(self, x: jax.Array, train: bool) -> jax.Array:
        """Applies the filter of `inner`."""
        inner: Any = self.inner(strides=self.strides, **self.numerics, name="inner")
        y: jax.Array = inner.filter(x, train=train)
        return y


class BilinearUpsample(Layer):
    """Bilinear interpolation. It aliases.

    It is not exact for circular shifts: the border is not circular, and with `align_corners` the spacing of
    the samples does not match the strides.

    Attributes:
      strides: upsampling strides.
      align_corners: whether the outermost input and output samples coincide (as in the first U-Nets in
        PyTorch).

    Source: PyTorch, `torch.nn.Upsample` with mode "bilinear".
    """

    strides: Pair = 2
    align_corners: bool = True

    def __call__(self, x: jax.Array, phase: Phase = None, *, train: bool = False) -> jax.Array:
        """`[N, h, w, C]` to `[N, stride h, stride w, C]`.

        Args:
          phase: has no effect.

        Raises:
          ShapeError: `x` is not floating-point `[N, h, w, C]`.
        """
        check_images(x)
        rows, columns = pair(self.strides, "strides")
        shape = rows * x.shape[1], columns * x.shape[2]
        exact = self.exact
        return bilinear_resize(self.cast(x), shape, align_corners=self.align_corners, precision=exact)


class _TransposedConv(Layer):
    """Transposed convolution whose kernel `[rows, columns, C, features]` has the size of its strides."""

    features: int
    strides: Pair
    kernel_init: Initializer
    bias_init: Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Multiplies every sample with the kernel and places the results side by side."""
        (n, h, w, channels), (rows, columns) = x.shape, pair(self.strides, "strides")
        shape = (rows, columns, channels, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
        flat = kernel.transpose(2, 0, 1, 3).reshape(channels, -1)
        y = jnp.matmul(x, flat, precision=self.precision).reshape(n, h, w, rows, columns, self.features)
        return y.transpose(0, 1, 3, 2, 4, 5).reshape(n, h * rows, w * columns, self.features) + bias


class UpsampledConv(Layer):
    """Upsampler, then a circular convolution: the reverse of `SampledConv`.

    It is exact for the same shifts as its upsampler.

    Attributes:
      features: output channels. 0 leaves the convolution out.
      strides: upsampling strides. They are also the size of the kernel.
      upsampler: the upsampler, a module class or `Factory`. `ZeroUpsample` makes a transposed convolution.
      kernel_init: initializer of the kernel.
      bias_init: initializer of the bias.

    Source: the decoders of U-Net (Ronneberger et al. 2015, arXiv 1505.04597) and of Chaman & Dokmanic 2021
    (arXiv 2105.04040).
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
        """`[N, h, w, C]` to `[N, stride h, stride w, features]`.

        Args:
          phase: phase that a sampler with the same strides chose.
          shape: size of the result, if it is smaller: the size of the map that was sampled.
          train: uses and updates the batch statistics of learned filters.

        Raises:
          ShapeError: `x` is not floating-point `[N, h, w, C]`.
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
            if isinstance(upsampler, IdealUpsample):  # cropping would break the circle
                y = ideal_resample(y, shape, precision=self.exact)
            else:
                y = y[:, : shape[0], : shape[1]]
        if transposed or not self.features:
            return y
        return Conv(self.features, self.strides, **how, name="conv")(y)

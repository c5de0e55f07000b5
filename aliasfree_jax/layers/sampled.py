"""Layers that sample through an injected sampler: a max pool (Zhang 2019), a convolution, and stems."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.layers.activation import LowpassGate, LowpassPolynomial, is_gated
from aliasfree_jax.layers.batching import Remat, images_at_once, over_images
from aliasfree_jax.layers.block import conv_before_norm, normed_and_activated
from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.layer import Initializer, Layer, ModuleFactory, accurate_dtype, lecun_normal, part
from aliasfree_jax.layers.sampling import (
    BlurPool,
    LinearSampler,
    Phase,
    Sampler,
    SamplerFactory,
    Subsample,
    Temperature,
    phase_in_turn,
)
from aliasfree_jax.ops.padding import Padding, WindowPadding
from aliasfree_jax.ops.pooling import max_pool
from aliasfree_jax.ops.resample import ideal_lowpass, remove_nyquist
from aliasfree_jax.ops.shapes import Pair, check_images, pair


def sampled_maxima(
    sampler: Sampler,
    x: jax.Array,
    window_shape: Pair,
    padding: WindowPadding,
    phase: Phase = None,
    *,
    train: bool = False,
    temperature: Temperature = 1.0,
) -> tuple[jax.Array, Phase]:
    """The maxima of windows of [N, H, W, C], sampled, and their phase; see `MaxBlurPool`."""
    if phase is None and isinstance(sampler, Subsample):
        return max_pool(x, window_shape, sampler.strides, padding), None
    pooled = max_pool(x, window_shape, 1, padding)
    return sampler.with_phase(pooled, phase, train=train, temperature=temperature)


class MaxBlurPool(Layer):
    """Max pool at stride 1, then a sampler, by default a blur (Zhang 2019, arXiv 1904.11486, section 3.2).

    Attributes:
      window_shape: of the maxima; 1 leaves the pool out (its maximum is a non-linearity that aliases).
      padding: as in `ops.max_pool`.
      sampler: with `Subsample` it is the plain strided max pool.
    """

    window_shape: Pair = 2
    strides: Pair = 2
    padding: WindowPadding = "VALID"
    sampler: SamplerFactory = part(BlurPool)

    def __call__(self, x: jax.Array, *, train: bool = False, temperature: Temperature = 1.0) -> jax.Array:
        """[N, H, W, C] to the sampled map. Raises `ShapeError` for maps that are too small."""
        return self.with_phase(x, train=train, temperature=temperature)[0]

    @nn.compact
    def with_phase(
        self, x: jax.Array, phase: Phase = None, *, train: bool = False, temperature: Temperature = 1.0
    ) -> tuple[jax.Array, Phase]:
        """The sampled map, and the phase it was sampled at: the one that is passed, if any."""
        check_images(x, pair(self.strides, "strides"))
        x = self.cast(x)
        sampler = self.sampler(strides=self.strides, **self.numerics, name="sampler")
        pool = self.window_shape, self.padding
        return sampled_maxima(sampler, x, *pool, phase, train=train, temperature=temperature)


class SampledConv(Layer):
    """A convolution followed by a sampler, [N, H, W, C] to [N, H / stride, W / stride, features].

    Attributes:
      padding: of the convolution at stride 1. With "VALID" and `Subsample` the convolution itself is strided.
    """

    features: int
    kernel_size: Pair
    strides: Pair = 2
    sampler: SamplerFactory = part(BlurPool)
    padding: WindowPadding = "CIRCULAR"
    kernel_init: Initializer = lecun_normal

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, temperature: Temperature = 1.0) -> jax.Array:
        """Convolve and sample. Raises `ShapeError` for maps that are too small."""
        strides = pair(self.strides, "strides")
        check_images(x, strides)

        def conv(strides: tuple[int, int], padding: WindowPadding) -> Conv:
            shape = (self.features, self.kernel_size, strides, padding)
            return Conv(*shape, kernel_init=self.kernel_init, **self.numerics, name="conv")

        sampler = self.sampler(strides=self.strides, **self.numerics, name="sampler")
        if self.padding == "VALID" and isinstance(sampler, Subsample):
            return conv(strides, "VALID")(x)
        if self.padding == "CIRCULAR" and isinstance(sampler, LinearSampler) and sampler.circular():
            taps, strides = sampler.taps(self.cast(x), pair(self.kernel_size, "kernel_size"))
            return conv(strides, "VALID")(taps)
        return sampler(conv((1, 1), self.padding)(x), train=train, temperature=temperature)


class ActivatedStem(Layer):
    """Images [N, H, W, channels] to maps [N, H / stride, W / stride, features]: convolve, activate, sample.

    The convolution runs at full resolution, as the activation needs. `residual` adds the activation,
    times a learned gain that starts at 0, to the convolution ("activation_residual" of the original).

    Attributes:
      remat: unless "none", the gradient keeps the images only (`layers.batching`).
    """

    features: int
    kernel_size: Pair
    strides: Pair
    sampler: SamplerFactory
    activation: ModuleFactory
    padding: WindowPadding = "CIRCULAR"
    residual: bool = False
    kernel_init: Initializer = lecun_normal
    remat: Remat = "auto"

    def __call__(
        self, images: jax.Array, *, train: bool = False, temperature: Temperature = 1.0
    ) -> jax.Array:
        """Convolve, activate, sample. Raises `ShapeError` for images that are too small."""
        check_images(images, pair(self.strides, "strides"))
        images = self.cast(images)
        if not self._commutes():
            return self._forward(images, train, temperature)
        _, h, w, _ = images.shape
        at_once = images_at_once(images.shape[0], h * w * self.features * images.dtype.itemsize)
        # Convolving 3 channels again is cheaper on any backend than keeping maps of full resolution.
        remat: Remat = "none" if self.remat == "none" else "mlp"
        return over_images(self, ActivatedStem._forward, images, at_once=at_once, remat=remat)

    def _commutes(self) -> bool:
        """Whether a quadratic activation's filter and constant may leave the full-resolution map."""
        activation, sampler = self.activation(parent=None), self.sampler(parent=None)
        quadratic = isinstance(activation, LowpassPolynomial | LowpassGate)
        linear = isinstance(sampler, LinearSampler) and sampler.circular()
        return quadratic and linear and self.padding == "CIRCULAR"

    @nn.compact
    def _forward(self, images: jax.Array, train: bool = False, temperature: Temperature = 1.0) -> jax.Array:
        def conv(name: str) -> Conv:
            shape = (self.features, self.kernel_size, 1, self.padding)
            return Conv(*shape, kernel_init=self.kernel_init, **self.numerics, name=name)

        # A gate multiplies two convolutions of the images.
        convs = [conv(name) for name in ("conv", "gate_conv")[: 2 if is_gated(self.activation) else 1]]
        activation = self.activation(**self.numerics, name="activation")
        sampler = self.sampler(strides=self.strides, **self.numerics, name="sampler")
        gain = None
        if self.residual:
            gain = self.param("gain", nn.initializers.zeros, (1,), self.param_dtype)
        if isinstance(activation, LowpassPolynomial | LowpassGate) and self._commutes():
            return self._quadratic(images, convs, activation, sampler, gain)
        maps = [conv(images) for conv in convs]
        y, activated = maps[0], activation(jnp.concatenate(maps, axis=-1))
        if gain is not None:
            activated = y + gain.astype(y.dtype) * activated
        return sampler(activated, train=train, temperature=temperature)

    def _quadratic(
        self,
        images: jax.Array,
        convs: list[Conv],
        activation: LowpassPolynomial | LowpassGate,
        sampler: Sampler,
        gain: jax.Array | None,
    ) -> jax.Array:
        """`c0 + S(y (c1 + c2 v))`, with y and v the convolved images and low-passed images (of a gate: by
        its second convolution).

        The low-pass filter of v commutes with the convolution and is cheaper before it; the sampler S keeps
        constants.
        """
        lowpassed = ideal_lowpass(images, activation.cutoff, precision=self.exact)
        c0, c1, c2 = jnp.moveaxis(activation.scaled(self.features), -1, 0)
        if gain is not None:
            c0, c1, c2 = gain * c0, 1 + gain * c1, gain * c2
        accurate = accurate_dtype(images.dtype)
        y, v = convs[0](images).astype(accurate), convs[-1](lowpassed).astype(accurate)
        sampled = sampler((y * (c1 + c2 * v)).astype(images.dtype))
        return (c0 + sampled.astype(accurate)).astype(images.dtype)


class NormedStem(Layer):
    """What the stems of ResNets have in common: parts of the network, and the channels of its first stage.

    A stem gives its map, and the phase that it was sampled at in all (`layers.sampling.Phase`).
    """

    width: int
    sampler: SamplerFactory
    activation: ModuleFactory
    norm: ModuleFactory
    padding: Padding

    def activated(self, x: jax.Array, size: int, stride: int, train: bool) -> jax.Array:
        """Convolution, norm and activation; for use in the one compact method."""
        return normed_and_activated(self, conv_before_norm(self, self.width, size, stride)(x), train)


class ImageStem(NormedStem):
    """7 x 7 convolution, norm, activation, sample by 2, max pool, sample by 2: for ImageNet.

    Attributes:
      strided: the convolution itself has stride 2 and aliases ("pool_only" of BlurPool and APS).
      pool_size: of the max pool; 3 in torchvision, 2 in the others, 1 for none.
      pool_padding: of the max pool.
      sampler, first_sampler: after the max pool and before it (None: the same).
    """

    strided: bool = False
    pool_size: int = 2
    pool_padding: WindowPadding = "VALID"
    first_sampler: SamplerFactory | None = None
    total_stride: ClassVar[int] = 4

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, temperature: Temperature) -> tuple[jax.Array, Phase]:
        """[N, H, W, channels] to [N, H / 4, W / 4, width], and the phase."""
        first = (self.first_sampler or self.sampler)(strides=2, **self.numerics, name="first_sampler")
        in_convolution = self.strided or isinstance(first, Subsample)
        x, first_phase = self.convolved(x, 2 if in_convolution else 1, train), None
        if not in_convolution:
            x, first_phase = first.with_phase(x, train=train, temperature=temperature)
        pool = MaxBlurPool(self.pool_size, 2, self.pool_padding, self.sampler, **self.numerics, name="pool")
        x, pool_phase = pool.with_phase(x, train=train, temperature=temperature)
        return x, phase_in_turn(x.shape[0], (2, first_phase), (2, pool_phase))

    def convolved(self, x: jax.Array, stride: int, train: bool) -> jax.Array:
        """The activated map before the first sampler; for use in the one compact method."""
        return self.activated(x, 7, stride, train)


class DeepStem(ImageStem):
    """`ImageStem` with three 3 x 3 convolutions in place of the 7 x 7, each with norm and activation.

    He et al. 2019 (arXiv 1812.01187), section 4: ResNet-C and -D.

    Attributes:
      hidden_widths: channels of the convolutions before the last.
    """

    hidden_widths: tuple[int, ...] = (32, 32)

    def convolved(self, x: jax.Array, stride: int, train: bool) -> jax.Array:
        """See `ImageStem.convolved`: the first convolution has the stride."""
        for number, width in enumerate(self.hidden_widths, 1):
            x = conv_before_norm(self, width, 3, stride if number == 1 else 1, name=f"conv{number}")(x)
            x = normed_and_activated(self, x, train, number=number)
        return self.activated(x, 3, 1 if self.hidden_widths else stride, train)


class SmallStem(NormedStem):
    """3 x 3 convolution, norm and activation at full resolution: for CIFAR.

    Attributes:
      without_nyquist: removes that frequency from the images first, for an activation that is to commute
        with fractional shifts: here no sampler removes it later.
    """

    without_nyquist: bool = False
    total_stride: ClassVar[int] = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, temperature: Temperature) -> tuple[jax.Array, Phase]:
        """[N, H, W, channels] to [N, H, W, width]; the phase is None."""
        if self.without_nyquist:
            x = remove_nyquist(x, self.exact)
        return self.activated(x, 3, 1, train), None

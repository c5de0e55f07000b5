"""Stems of ConvNeXts and ResNets with an injected sampler."""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.layers.activation import LowpassPolynomial, expansion
from aliasfree_jax.layers.batching import Remat, images_at_once, over_images
from aliasfree_jax.layers.block import conv_before_norm, normed_and_activated
from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.gates import LowpassGate
from aliasfree_jax.layers.layer import Initializer, Layer, ModuleFactory, accurate_dtype, lecun_normal, part
from aliasfree_jax.layers.sampled import MaxBlurPool
from aliasfree_jax.layers.sampling import (
    LinearSampler,
    Phase,
    Sampler,
    SamplerFactory,
    Subsample,
    Temperature,
    phase_in_turn,
)
from aliasfree_jax.ops.padding import Padding, WindowPadding
from aliasfree_jax.ops.resample import ideal_lowpass, remove_nyquist
from aliasfree_jax.ops.shapes import Pair, check_images, pair


class ActivatedStem(Layer):
    """Convolution at full resolution, activation, sampler: images to `[N, H / stride, W / stride, features]`.

    The activation is evaluated at full resolution, so that the sampler's filter can remove its high
    frequencies.

    Attributes:
      features: output channels.
      kernel_size: size of the kernel.
      strides: strides of the sampler.
      sampler: the sampler, a module class or `Factory`.
      activation: the activation, a module class or `Factory`.
      padding: padding of the convolution.
      residual: whether the activation, times a learned gain that starts at 0, is added to the convolution
        (`"activation_residual"` of the original).
      kernel_init: initializer of the kernel.
      remat: unless "none", the gradient stores only the images (`layers.batching`).

    Source: Michaeli et al. 2023 (arXiv 2303.08085), the stem in its code.
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
        """Convolves, activates and samples.

        Raises:
          ShapeError: the images are too small.
        """
        check_images(images, pair(self.strides, "strides"))
        images = self.cast(images)
        if not self._commutes():
            return self._forward(images, train, temperature)
        _, h, w, _ = images.shape
        at_once = images_at_once(images.shape[0], h * w * self.features * images.dtype.itemsize)
        # Recomputing a convolution of 3 channels is cheaper on every backend than storing its full-size map.
        remat: Remat = "none" if self.remat == "none" else "mlp"
        return over_images(self, ActivatedStem._forward, images, at_once=at_once, remat=remat)

    def _commutes(self) -> bool:
        """Whether the filter and the constant of a quadratic activation can be moved to cheaper places."""
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
        convs = [conv(name) for name in ("conv", "gate_conv")[: expansion(self.activation)]]
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
        """Computes `c0 + S(y (c1 + c2 v))`.

        Here y is the convolved images and v the convolved low-passed images (for a gate, convolved by its
        second convolution). The low-pass filter commutes with the convolution and is cheaper before it. The
        sampler S preserves constants.
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
    """Base class of the stems of ResNets.

    A stem returns its map and the phase of all its samplings together (`layers.sampling.Phase`).

    Attributes:
      width: channels of the first stage.
      sampler: sampler of the network.
      activation: activation of the network.
      norm: norm of the network.
      padding: padding of the convolutions.
      conv: convolution of the network.
      without_nyquist: whether to remove the Nyquist frequency from the images.
    """

    width: int
    sampler: SamplerFactory
    activation: ModuleFactory
    norm: ModuleFactory
    padding: Padding
    conv: ModuleFactory = part(Conv)
    without_nyquist: bool = False

    def cleaned(self, x: jax.Array) -> jax.Array:
        """Returns the images, without their Nyquist frequency if `without_nyquist` is set."""
        return remove_nyquist(x, self.exact) if self.without_nyquist else x

    def activated(
        self, x: jax.Array, width: int, size: int, stride: int, train: bool, number: int | str = ""
    ) -> jax.Array:
        """Convolution to `width`, norm and activation. Call it in the module's compact method."""
        features = width * expansion(self.activation)
        conv = conv_before_norm(self, features, size, stride, name=f"conv{number}", conv=self.conv)
        return normed_and_activated(self, conv(x), train, number=number)


class ImageStem(NormedStem):
    """Stem for ImageNet: 7 x 7 convolution, norm, activation, sampling by 2, max pool, sampling by 2.

    Attributes:
      width: channels of the first stage.
      sampler: sampler after the max pool.
      activation: activation of the network.
      norm: norm of the network.
      padding: padding of the convolutions.
      strided: whether the convolution itself has stride 2 and aliases (`"pool_only"` of BlurPool and APS).
      pool_size: window of the max pool: 3 in torchvision, 2 in the other code bases, 1 for no max pool.
      pool_padding: padding of the max pool.
      first_sampler: sampler before the max pool. None: the same as `sampler`.
      without_nyquist: whether to remove the Nyquist frequency from the images. A norm of each image needs
        this, if it shall commute with fractional shifts: they change the energy at this frequency.
      total_stride: stride of the whole stem.

    Source: He et al. 2016 (arXiv 1512.03385), table 1; the samplers as in Zhang 2019 (arXiv 1904.11486) and
    Chaman & Dokmanic 2021 (arXiv 2011.14214).
    """

    strided: bool = False
    pool_size: int = 2
    pool_padding: WindowPadding = "VALID"
    first_sampler: SamplerFactory | None = None
    total_stride: ClassVar[int] = 4

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, temperature: Temperature) -> tuple[jax.Array, Phase]:
        """`[N, H, W, channels]` to `[N, H / 4, W / 4, width]`, and the phase."""
        first = (self.first_sampler or self.sampler)(strides=2, **self.numerics, name="first_sampler")
        in_convolution = self.strided or isinstance(first, Subsample)
        x, first_phase = self.convolved(self.cleaned(x), 2 if in_convolution else 1, train), None
        if not in_convolution:
            x, first_phase = first.with_phase(x, train=train, temperature=temperature)
        pool = MaxBlurPool(self.pool_size, 2, self.pool_padding, self.sampler, **self.numerics, name="pool")
        x, pool_phase = pool.with_phase(x, train=train, temperature=temperature)
        return x, phase_in_turn(x.shape[0], (2, first_phase), (2, pool_phase))

    def convolved(self, x: jax.Array, stride: int, train: bool) -> jax.Array:
        """Returns the activated map before the first sampler. Call it in the module's compact method."""
        return self.activated(x, self.width, 7, stride, train)


class DeepStem(ImageStem):
    """`ImageStem` with three 3 x 3 convolutions instead of the 7 x 7, each with norm and activation.

    Attributes:
      hidden_widths: channels of the convolutions before the last one.

    Source: ResNet-C and -D, He et al. 2019 (arXiv 1812.01187), section 4.
    """

    hidden_widths: tuple[int, ...] = (32, 32)

    def convolved(self, x: jax.Array, stride: int, train: bool) -> jax.Array:
        """See `ImageStem.convolved`. The first convolution has the stride."""
        for number, width in enumerate(self.hidden_widths, 1):
            strides = stride if number == 1 else 1
            x = self.activated(x, width, 3, strides, train, number)
        return self.activated(x, self.width, 3, 1 if self.hidden_widths else stride, train)


class SmallStem(NormedStem):
    """Stem for CIFAR: 3 x 3 convolution, norm and activation at full resolution.

    Attributes:
      without_nyquist: whether to remove the Nyquist frequency from the images. An activation that shall
        commute with fractional shifts needs this, because no sampler of this stem removes the frequency
        later.
      total_stride: stride of the stem.

    Source: He et al. 2016 (arXiv 1512.03385), section 4.2.
    """

    total_stride: ClassVar[int] = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool, temperature: Temperature) -> tuple[jax.Array, Phase]:
        """`[N, H, W, channels]` to `[N, H, W, width]`; the phase is None."""
        return self.activated(self.cleaned(x), self.width, 3, 1, train), None

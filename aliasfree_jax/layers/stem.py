"""The stem with an activation at full resolution, before it samples."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.layers.activation import LowpassPolynomial, arity
from aliasfree_jax.layers.batching import Remat, images_at_once, over_images
from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.gate import LowpassGate
from aliasfree_jax.layers.initializers import Initializer, lecun_normal
from aliasfree_jax.layers.layer import Layer, ModuleFactory, accurate_dtype
from aliasfree_jax.layers.sampling import LinearSampler, SamplerFactory, Temperature
from aliasfree_jax.ops.padding import WindowPadding
from aliasfree_jax.ops.resample import ideal_lowpass
from aliasfree_jax.ops.shapes import Pair, check_images, pair


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
        convs = [conv(name) for name in ("conv", "gate_conv")[: arity(self.activation)]]
        activation = self.activation(**self.numerics, name="activation")
        sampler: Any = self.sampler(strides=self.strides, **self.numerics, name="sampler")
        gain = None
        if self.residual:
            gain = self.param("gain", nn.initializers.zeros, (1,), self.param_dtype)
        if isinstance(activation, LowpassPolynomial | LowpassGate) and self._commutes():
            return self._quadratic(images, convs, activation, sampler, gain)
        maps = [conv(images) for conv in convs]
        y, activated = maps[0], activation(jnp.concatenate(maps, axis=-1))
        if gain is not None:
            activated = y + gain.astype(y.dtype) * activated
        y = sampler(activated, train=train, temperature=temperature)
        return y

    def _quadratic(
        self,
        images: jax.Array,
        convs: list[Conv],
        activation: LowpassPolynomial | LowpassGate,
        sampler: LinearSampler,
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

"""Layers of vision transformers that see neighbouring patches: stems, local interaction, positions."""

from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.activation import FinerGrid, expansion
from aliasfree_jax.layers.batching import images_at_once, over_images
from aliasfree_jax.layers.convolution import Conv, DepthwiseConv
from aliasfree_jax.layers.gates import BandlimitedGate
from aliasfree_jax.layers.layer import Initializer, Layer, ModuleFactory, fan_in_uniform, normal
from aliasfree_jax.layers.sampled import SampledConv
from aliasfree_jax.layers.sampling import IdealDownsample, SamplerFactory, Temperature
from aliasfree_jax.ops.padding import Padding
from aliasfree_jax.ops.shapes import check_images


class _Stage(NamedTuple):
    number: str
    features: int  # of the convolution, before the activation
    activation: ModuleFactory
    train: bool
    temperature: Temperature


class PatchStem(Layer):
    """Stem of XCiT: 3 x 3 convolutions that sample by 2, each with norm and activation.

    Every activation sees the sampled map. The channels double from stage to stage.

    Attributes:
      width: channels of the last stage.
      sampler: sampler of every stage.
      activation: activation of every stage.
      norm: norm of every stage.
      padding: padding of the convolutions.
      patch_size: total stride, a power of 2.
      first_activation: activation of the first stage. None: `activation`.
      last_activation: activation of the last stage. None: `activation`.

    Source: El-Nouby et al. 2021 (arXiv 2106.09681), section 3.3.
    """

    width: int
    sampler: SamplerFactory
    activation: ModuleFactory
    norm: ModuleFactory
    padding: Padding = "CIRCULAR"
    patch_size: int = 16
    first_activation: ModuleFactory | None = None
    last_activation: ModuleFactory | None = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, temperature: Temperature = 1.0) -> jax.Array:
        """`[N, H, W, channels]` to `[N, H / patch_size, W / patch_size, width]`.

        Raises:
          ConfigError: `patch_size` is not a power of 2, or `width` is not a multiple of half of it.
        """
        last = self.patch_size.bit_length() - 2
        if last < 0 or self.patch_size != 2 << last or self.width % (1 << last):
            raise ConfigError(
                f"patch_size = {self.patch_size} and width = {self.width}: the stem samples by 2 in every "
                "stage and doubles its channels. patch_size must be 2, 4, 8 and so on, and width a multiple "
                "of half of it."
            )
        for number in range(last + 1):
            activation = (number == 0 and self.first_activation) or self.activation
            activation = (number == last and self.last_activation) or activation
            features = (self.width >> (last - number)) * expansion(activation)
            compute = self.activated_stage if self.activates_first(number) else self.sampled_stage
            x = compute(x, _Stage(f"{number + 1}", features, activation, train, temperature))
        return x

    @nn.nowrap
    def activates_first(self, number: int) -> bool:
        """Whether a stage, counted from 0, activates before it samples."""
        return False

    def sampled_stage(self, x: jax.Array, stage: _Stage) -> jax.Array:
        """Convolves, samples, normalises and activates."""
        fields: dict[str, Any] = {"sampler": self.sampler, "padding": self.padding, "use_bias": False}
        conv = SampledConv(stage.features, 3, 2, **fields, **self.numerics, name=f"conv{stage.number}")
        x = self._normed(conv(x, train=stage.train, temperature=stage.temperature), stage)
        y: jax.Array = stage.activation(**self.numerics, name=f"activation{stage.number}")(x)
        return y

    def activated_stage(self, x: jax.Array, stage: _Stage) -> jax.Array:
        """Convolves, normalises, activates and samples."""
        check_images(x, (2, 2))
        x, at_once = self.cast(x), x.shape[0]
        # In training, a batch norm needs the whole batch. A loop would lose the key of a learned sampler.
        if not (stage.train or self.has_rng("gumbel")):
            # A convolution's patches are about as large as its result.
            values = x.shape[1] * x.shape[2] * 2 * stage.features
            at_once = images_at_once(at_once, values * x.dtype.itemsize)

        def compute(stem: PatchStem, x: jax.Array) -> jax.Array:
            return stem._activated(x, stage)

        return over_images(self, compute, x, at_once=at_once, remat="auto")

    def _activated(self, x: jax.Array, stage: _Stage) -> jax.Array:
        fields: dict[str, Any] = {"padding": self.padding, "use_bias": False}
        conv = Conv(stage.features, 3, **fields, **self.numerics, name=f"conv{stage.number}")
        activate = stage.activation(**self.numerics, name=f"activation{stage.number}")
        sampler = self.sampler(strides=2, **self.numerics, name=f"sampler{stage.number}")
        bandlimited = isinstance(activate, BandlimitedGate)
        if bandlimited:  # it commutes with a circular convolution, whose result has more channels
            x = activate.lowpass(x)
        x = self._normed(conv(x), stage)
        if isinstance(activate, FinerGrid) and isinstance(sampler, IdealDownsample):
            return activate.between(x, kept=(-(-x.shape[1] // 2), -(-x.shape[2] // 2)))
        activated = activate.pointwise(x) if bandlimited else activate(x)
        y: jax.Array = sampler(activated, train=stage.train, temperature=stage.temperature)
        return y

    def _normed(self, x: jax.Array, stage: _Stage) -> jax.Array:
        norm = self.norm(**self.numerics, name=f"norm{stage.number}")
        y: jax.Array = norm(x, train=stage.train)
        return y


class ActivatedPatchStem(PatchStem):
    """`PatchStem` that activates at full resolution and then samples.

    An ideal sampler and an activation on a finer grid are one step: the activation returns to the sampled
    grid. The filter of a `BandlimitedGate` runs before the convolution, on fewer channels.

    Source: Michaeli et al. 2025 (arXiv 2510.22673); the gate is this package's.
    """

    @nn.nowrap
    def activates_first(self, number: int) -> bool:
        """Every stage does."""
        return True


class FirstActivatedPatchStem(PatchStem):
    """`PatchStem` whose first stage is that of `ActivatedPatchStem`.

    Only a product before the first low-pass filter can move the image's high frequencies into the band that
    the filter keeps. The later stages sample first, which is faster.

    Source: this package.
    """

    @nn.nowrap
    def activates_first(self, number: int) -> bool:
        """The first stage does."""
        return number == 0


class LocalPatchInteraction(Layer):
    """Two depthwise 3 x 3 convolutions with an activation and a norm between them.

    For a gate, two convolutions compute its two halves.

    Attributes:
      activation: the activation, a module class or `Factory`.
      norm: the norm after the activation.
      padding: padding of the convolutions.

    Source: El-Nouby et al. 2021 (arXiv 2106.09681), section 3.3.
    """

    activation: ModuleFactory
    norm: ModuleFactory
    padding: Padding = "CIRCULAR"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C]` to `[N, H, W, C]`."""

        def conv(name: str) -> DepthwiseConv:
            init = fan_in_uniform(9)
            return DepthwiseConv(3, self.padding, kernel_init=init, **self.numerics, name=name)

        halves = [conv(name)(x) for name in ("conv1", "gate_conv")[: expansion(self.activation)]]
        y = self.activation(**self.numerics, name="activation")(jnp.concatenate(halves, axis=-1))
        y = self.norm(**self.numerics, name="norm")(y, train=train)
        return conv("conv2")(y)


class FourierPositions(Layer):
    """Adds a linear map of sines and cosines of the positions. It breaks shift invariance.

    Attributes:
      frequencies: number of features per axis, half of them sines.
      kernel_init: initializer of the linear map.

    Source: El-Nouby et al. 2021 (arXiv 2106.09681), appendix; Vaswani et al. 2017 (arXiv 1706.03762).
    """

    frequencies: int = 32
    kernel_init: Initializer = normal(0.02)
    temperature: ClassVar[float] = 10_000.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, C]` to `[N, H, W, C]`."""
        x = self.cast(x)
        check_images(x)
        rows, columns = (self._features(side) for side in x.shape[1:3])
        grid = np.broadcast_to
        shape = (len(rows), len(columns), self.frequencies)
        features = np.concatenate([grid(rows[:, None], shape), grid(columns[None], shape)], axis=-1)
        linear = nn.Dense(x.shape[-1], kernel_init=self.kernel_init, **self.numerics, name="linear")
        return x + linear(jnp.asarray(features, x.dtype))

    def _features(self, side: int) -> np.ndarray:
        """Sines and cosines in turn of the positions 1 to `side`, scaled to 2 pi: `[side, frequencies]`."""
        angles = 2 * np.pi * np.arange(1, side + 1) / (side + 1e-6)
        pairs = np.arange(self.frequencies // 2)
        turns = angles[:, None] / self.temperature ** (2 * pairs / self.frequencies)
        return np.stack([np.sin(turns), np.cos(turns)], axis=-1).reshape(side, self.frequencies)

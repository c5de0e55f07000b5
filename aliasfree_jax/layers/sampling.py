"""Downsamplers, behind one interface, and the convolution that samples through one.

A sampler is a module `sampler(x, phase=None, train=False, temperature=1.0) -> (y, phase)`: the map
[N, H, W, C] sampled by its `stride`, and the polyphase components it chose (None where there is nothing
to choose), which another branch or an upsampler can reuse. Samplers that are linear and
shift-invariant before they drop samples commute with circular convolutions; `LinearSampler.taps` uses
that to filter the narrower side and to convolve on the coarse grid only.
"""

import warnings
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.convolution import Conv, Initializer
from aliasfree_jax.layers.numerics import Numerics, accurate_dtype
from aliasfree_jax.ops.blur import blur
from aliasfree_jax.ops.padding import Padding, WindowPadding, pad, same_padding
from aliasfree_jax.ops.polyphase import polyphase_downsample
from aliasfree_jax.ops.resample import ideal_downsample, ideal_lowpass, ideal_strided_taps

Phase = tuple[jax.Array, ...] | None
"""One array a step of sampling (`steps_of`): integers [N], or weights [N, K] of the K components."""

Temperature = jax.Array | float
SamplerFactory = Callable[..., nn.Module]


def steps_of(stride: int) -> list[int]:
    """The prime factors of a stride, in which polyphase sampling takes it: 4 is 2 and 2, as in APS.

    Raises:
      ConfigError: a stride below 1.
    """
    if stride < 1:
        raise ConfigError(f"strides are 1, 2, 3, ..., got {stride}.")
    factors, candidate = [], 2
    while stride > 1:
        while stride % candidate == 0:
            factors.append(candidate)
            stride //= candidate
        candidate += 1
    return factors


def warn_uneven(x: jax.Array, stride: int, remedy: str) -> None:
    """Warns, once a trace, that an exact sampler is not exact on the map `x` [N, H, W, C]."""
    if x.shape[1] % stride or x.shape[2] % stride:
        warnings.warn(
            f"a map of {x.shape[1]} x {x.shape[2]} is sampled by {stride}, which does not divide it: "
            "the network is not exactly shift-equivariant at this image size. "
            f"Multiples of its total stride are{remedy}.",
            stacklevel=1,  # the callers are flax's wrappers
        )


class FilteredSampler(nn.Module):
    """A filter, then every `stride`-th sample; or the samples of a phase that another branch chose.

    Samplers are called as `sampler(x, phase, train=..., temperature=...)`: batch statistics of learned
    filters and the temperature of learned selections need the last two.
    """

    stride: int = 2
    numerics: Numerics = Numerics()

    def filter(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """The filtered map at full size."""
        return x

    def sample(self, x: jax.Array, train: bool) -> jax.Array:
        """The filtered map at phase 0."""
        return self.filter(x, train=train)[:, :: self.stride, :: self.stride]

    def __call__(
        self, x: jax.Array, phase: Phase = None, *, train: bool = False, temperature: Temperature = 1.0
    ) -> tuple[jax.Array, Phase]:
        """[N, H, W, C] to [N, ceil(H / stride), ceil(W / stride), C], and the `phase` passed in."""
        if phase is None:
            return self.sample(x, train), None
        y = self.filter(x, train=train)
        for factor, index in zip(steps_of(self.stride), phase, strict=True):
            y = polyphase_downsample(y, phase=index, stride=(factor, factor))[0]
        return y, phase


class LinearSampler(FilteredSampler):
    """A shift-invariant linear filter, then sampling."""

    def circular(self) -> bool:
        """Whether the filter is circular, so that it commutes with circular convolutions."""
        return True

    def taps(self, x: jax.Array, count: int) -> tuple[jax.Array, int]:
        """The filtered map as a circular convolution of `count` taps and this stride is to read it.

        Returns a map and a stride: the convolution over its full windows with that stride has the
        outputs of one at stride 1 with circular padding, followed by this sampler.
        """
        before = same_padding(count)[0]
        y = self.filter(x)
        lengths = [(-(-side // self.stride) - 1) * self.stride + count for side in x.shape[1:3]]
        rows, columns = (
            (before, max(n - before - side, 0)) for n, side in zip(lengths, x.shape[1:3], strict=True)
        )
        return pad(y, (rows, columns), "circular")[:, : lengths[0], : lengths[1]], self.stride


class Subsample(LinearSampler):
    """Every `stride`-th sample, nothing else: what strided convolutions do. Aliases."""


class BlurSampler(LinearSampler):
    """Binomial blur of `size` taps, then every `stride`-th sample (Zhang 2019)."""

    size: int = 3
    padding: Padding = "circular"

    def filter(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """The blurred map."""
        return blur(x, self.size, padding=self.padding)

    def circular(self) -> bool:
        """Whether the blur is circular."""
        return self.padding == "circular"

    def sample(self, x: jax.Array, train: bool) -> jax.Array:
        """The blurred map at phase 0, without computing the rest."""
        return blur(x, self.size, self.stride, self.padding)


class IdealSampler(LinearSampler):
    """Ideal low-pass filter at 1 / stride, then sampling: exact for every fractional shift.

    Exact where the stride divides the map, like the original; with `any_size` for every map
    (`ops.resample.ideal_downsample`).
    """

    any_size: bool = False

    def _warn(self, x: jax.Array) -> None:
        if not self.any_size:
            warn_uneven(x, self.stride, "; any_size=True is exact for every size")

    def filter(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """The low-passed map at full size."""
        return ideal_lowpass(x, 1 / self.stride, precision=self.numerics.precision)

    def taps(self, x: jax.Array, count: int) -> tuple[jax.Array, int]:
        """See `LinearSampler.taps`; one matrix an axis filters and lays the windows side by side."""
        self._warn(x)
        first, precision = -same_padding(count)[0], self.numerics.precision
        y = ideal_strided_taps(
            x, self.stride, taps=count, first=first, any_size=self.any_size, precision=precision
        )
        return y, count

    def sample(self, x: jax.Array, train: bool) -> jax.Array:
        """The low-passed map at phase 0, without computing the rest."""
        self._warn(x)
        return ideal_downsample(x, self.stride, any_size=self.any_size, precision=self.numerics.precision)


class NormPreservingSampler(nn.Module):
    """A linear sampler whose filtered map is scaled back to the norm of its input ("scale_l2").

    One factor a sample and channel: |x| / (|filter(x)| + 1e-6), norms over all positions.
    """

    inner: Callable[..., LinearSampler]
    stride: int = 2
    numerics: Numerics = Numerics()

    @nn.compact
    def __call__(
        self, x: jax.Array, phase: Phase = None, *, train: bool = False, temperature: Temperature = 1.0
    ) -> tuple[jax.Array, Phase]:
        """[N, H, W, C] to [N, ceil(H / stride), ceil(W / stride), C]."""
        inner = self.inner(stride=self.stride, numerics=self.numerics, name="inner")
        if not isinstance(inner, LinearSampler):
            raise ConfigError(f"only linear samplers can preserve norms, got {type(inner).__name__}.")

        def norm(z: jax.Array) -> jax.Array:
            power = jnp.sum(z.astype(accurate_dtype(z.dtype)) ** 2, axis=(1, 2), keepdims=True)
            return jnp.sqrt(jnp.maximum(power, jnp.finfo(power.dtype).tiny))  # gradient 0, not nan, at 0

        y, phase = inner(x, phase)
        return y * (norm(x) / (norm(inner.filter(x)) + 1e-6)).astype(y.dtype), phase


class SampledConv(nn.Module):
    """A convolution followed by a sampler (`padding` "circular", ...), or plainly strided ("none")."""

    features: int
    kernel_size: int
    stride: int
    sampler: SamplerFactory
    padding: WindowPadding = "circular"
    kernel_init: Initializer = nn.initializers.normal(0.02)
    numerics: Numerics = Numerics()

    def _conv(self, stride: int, padding: WindowPadding) -> Conv:
        return Conv(
            self.features,
            self.kernel_size,
            stride,
            padding,
            kernel_init=self.kernel_init,
            numerics=self.numerics,
            name="conv",
        )

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False, temperature: Temperature = 1.0) -> jax.Array:
        """[N, H, W, C] to [N, H / stride, W / stride, features]."""
        sampler = self.sampler(stride=self.stride, numerics=self.numerics, name="sampler")
        if self.padding == "none" and isinstance(sampler, Subsample):
            return self._conv(self.stride, "none")(x)
        if self.padding == "circular" and isinstance(sampler, LinearSampler) and sampler.circular():
            taps, stride = sampler.taps(x, self.kernel_size)
            return self._conv(stride, "none")(taps)
        return sampler(self._conv(1, self.padding)(x), train=train, temperature=temperature)[0]

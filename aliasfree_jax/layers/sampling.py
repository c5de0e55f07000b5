"""Downsamplers behind one interface, and the upsamplers that can take their phases.

A sampler is called as any layer, `y = sampler(x)`, and gives the map [N, H, W, C] sampled by its `strides`.
`y, phase = sampler.with_phase(x)` also gives the polyphase components it chose (None where there is nothing
to choose), which another branch or an upsampler can reuse: `sampler.with_phase(z, phase)`. Samplers that are
linear and shift-invariant before they drop samples commute with circular convolutions; `LinearSampler.taps`
uses that to filter the narrower side and to convolve on the coarse grid only.

An upsampler is called as `upsampler(x, phase) -> y`. Writing samples back at the phase they came from, then
filtering, commutes with integer circular shifts together with the sampler: the decoder of a network for dense
prediction.
"""

import itertools
import warnings
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.layer import Layer, accurate_dtype, part
from aliasfree_jax.ops.blurring import blur
from aliasfree_jax.ops.padding import WindowPadding, pad, same_padding
from aliasfree_jax.ops.polyphase import polyphase_downsample, polyphase_upsample
from aliasfree_jax.ops.resample import ideal_downsample, ideal_lowpass, ideal_strided_taps, ideal_upsample
from aliasfree_jax.ops.shapes import Pair, check_images, pair

Phase = tuple[jax.Array, ...] | None
"""One array a step of sampling (`steps_of`): integers [N], or weights [N, K] of the K components."""

Temperature = jax.Array | float
SamplerFactory = Callable[..., "Sampler"]


def _prime_factors(number: int) -> list[int]:
    factors, candidate = [], 2
    while number > 1:
        while number % candidate == 0:
            factors.append(candidate)
            number //= candidate
        candidate += 1
    return factors


def steps_of(strides: Pair) -> list[tuple[int, int]]:
    """The steps of rows and columns in which polyphase sampling takes its strides, as in APS.

    They are the prime factors: 4 is (2, 2) and (2, 2).

    Raises:
      ConfigError: a stride below 1.
    """
    rows, columns = map(_prime_factors, pair(strides, "strides"))
    return list(itertools.zip_longest(rows, columns, fillvalue=1))


def phase_in_turn(images: int, *samplings: tuple[Pair, Phase]) -> Phase:
    """The phase of several samplings, one after the other, as one; None where none of them chose any.

    Args:
      images: how many there are.
      samplings: strides and phase of each. One without a choice kept phase 0.
    """
    if all(phase is None for _, phase in samplings):
        return None
    kept = jnp.zeros(images, jnp.int32)
    steps = ([kept for _ in steps_of(strides)] if phase is None else phase for strides, phase in samplings)
    return tuple(itertools.chain.from_iterable(steps))


def warn_uneven(x: jax.Array, strides: tuple[int, int], remedy: str) -> None:
    """Warns, once a trace, that an exact sampler is not exact on the map `x` [N, H, W, C]."""
    if x.shape[1] % strides[0] or x.shape[2] % strides[1]:
        by = strides[0] if strides[0] == strides[1] else f"{strides[0]} x {strides[1]}"
        warnings.warn(
            f"a map of {x.shape[1]} x {x.shape[2]} is sampled by {by}, which does not divide it: "
            "the network is not exactly shift-equivariant at this image size. "
            f"Multiples of its total stride are{remedy}.",
            stacklevel=1,  # the callers are flax's wrappers
        )


class Sampler(Layer):
    """What all samplers have in common.

    Attributes:
      strides: every how many-th row and column is kept.
    """

    strides: Pair = 2

    def __call__(self, x: jax.Array, *, train: bool = False, temperature: Temperature = 1.0) -> jax.Array:
        """The sampled map, [N, H, W, C] to [N, ceil(H / stride), ceil(W / stride), C].

        Args:
          train: uses and updates the batch statistics of learned filters.
          temperature: of learned selections in training.

        Raises:
          ShapeError: not floating-point [N, H, W, C], or sides smaller than the strides.
        """
        return self.with_phase(x, train=train, temperature=temperature)[0]

    def with_phase(
        self, x: jax.Array, phase: Phase = None, *, train: bool = False, temperature: Temperature = 1.0
    ) -> tuple[jax.Array, Phase]:
        """The sampled map, and the phase it was sampled at: the one that is passed, if any."""
        raise NotImplementedError

    @nn.nowrap
    def checked(self, x: jax.Array) -> jax.Array:
        """`x` in the layer's dtype. Raises `ShapeError` for maps that it cannot sample."""
        check_images(x, pair(self.strides, "strides"))
        return self.cast(x)


class FilteredSampler(Sampler):
    """A filter, then every `strides`-th sample; or the samples of a phase that another branch chose."""

    def filter(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """The filtered map at full size."""
        return x

    def sample(self, x: jax.Array, train: bool) -> jax.Array:
        """The filtered map at phase 0."""
        rows, columns = pair(self.strides, "strides")
        return self.filter(x, train=train)[:, ::rows, ::columns]

    def with_phase(
        self, x: jax.Array, phase: Phase = None, *, train: bool = False, temperature: Temperature = 1.0
    ) -> tuple[jax.Array, Phase]:
        """See `Sampler.with_phase`."""
        x = self.checked(x)
        if phase is None:
            return self.sample(x, train), None
        y = self.filter(x, train=train)
        for factors, index in zip(steps_of(self.strides), phase, strict=True):
            y = polyphase_downsample(y, phase=index, strides=factors)[0]
        return y, phase


class LinearSampler(FilteredSampler):
    """A shift-invariant linear filter, then sampling."""

    @nn.nowrap
    def circular(self) -> bool:
        """Whether the filter is circular, so that it commutes with circular convolutions."""
        return True

    def taps(self, x: jax.Array, window: tuple[int, int]) -> tuple[jax.Array, tuple[int, int]]:
        """The filtered map as a circular convolution with this window and these strides is to read it.

        Returns a map and strides: the convolution over its full windows with those strides has the
        outputs of one at stride 1 with circular padding, followed by this sampler.
        """
        strides = pair(self.strides, "strides")
        y = self.filter(x)
        axes = list(zip(x.shape[1:3], window, strides, strict=True))
        lengths = [(-(-side // stride) - 1) * stride + count for side, count, stride in axes]
        before = [same_padding(count)[0] for count in window]
        rows, columns = (
            (first, max(length - first - side, 0))
            for first, length, side in zip(before, lengths, x.shape[1:3], strict=True)
        )
        return pad(y, (rows, columns), "CIRCULAR")[:, : lengths[0], : lengths[1]], strides


class Subsample(LinearSampler):
    """Every `strides`-th sample, nothing else: what strided convolutions do. Aliases."""


class BlurPool(LinearSampler):
    """Binomial blur of `kernel_size` taps, then every `strides`-th sample (Zhang 2019, arXiv 1904.11486).

    Attributes:
      kernel_size: 1 to 7 taps; antialiased-cnns takes 4 for its published networks.
      padding: circular, as the shifts of this package are; antialiased-cnns pads by "REFLECT".
    """

    kernel_size: Pair = 3
    padding: WindowPadding = "CIRCULAR"

    def filter(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """The blurred map."""
        return blur(x, self.kernel_size, padding=self.padding)

    @nn.nowrap
    def circular(self) -> bool:
        """Whether the blur is circular."""
        return self.padding == "CIRCULAR"

    def sample(self, x: jax.Array, train: bool) -> jax.Array:
        """The blurred map at phase 0, without computing the rest."""
        return blur(x, self.kernel_size, self.strides, self.padding)


class IdealDownsample(LinearSampler):
    """Ideal low-pass filter at 1 / stride, then sampling: exact for every fractional shift.

    Michaeli et al. 2023 (arXiv 2303.08085), section 3.1. Exact where the stride divides the map, like the
    original; with `any_size` for every map (`ops.ideal_downsample`).
    """

    any_size: bool = False

    def _warn(self, x: jax.Array) -> None:
        if not self.any_size:
            warn_uneven(x, pair(self.strides, "strides"), "; any_size=True is exact for every size")

    def filter(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """The low-passed map at full size."""
        return ideal_lowpass(x, self._cutoffs(), precision=self.exact)

    def _cutoffs(self) -> tuple[float, float]:
        rows, columns = pair(self.strides, "strides")
        return 1 / rows, 1 / columns

    def taps(self, x: jax.Array, window: tuple[int, int]) -> tuple[jax.Array, tuple[int, int]]:
        """See `LinearSampler.taps`; one matrix an axis filters and lays the windows side by side."""
        self._warn(x)
        first = -same_padding(window[0])[0], -same_padding(window[1])[0]
        y = ideal_strided_taps(
            x, self.strides, taps=window, first=first, any_size=self.any_size, precision=self.exact
        )
        return y, window

    def sample(self, x: jax.Array, train: bool) -> jax.Array:
        """The low-passed map at phase 0, without computing the rest."""
        self._warn(x)
        return ideal_downsample(x, self.strides, any_size=self.any_size, precision=self.exact)


class NormPreserving(Sampler):
    """A linear sampler whose filtered map is scaled back to the norm of its input ("scale_l2").

    One factor a sample and channel: |x| / (|filter(x)| + 1e-6), norms over all positions.

    Attributes:
      inner: the sampler.
    """

    inner: SamplerFactory = part(BlurPool)

    @nn.compact
    def with_phase(
        self, x: jax.Array, phase: Phase = None, *, train: bool = False, temperature: Temperature = 1.0
    ) -> tuple[jax.Array, Phase]:
        """See `Sampler.with_phase`."""
        x = self.checked(x)
        inner = self.inner(strides=self.strides, **self.numerics, name="inner")
        if not isinstance(inner, LinearSampler):
            raise ConfigError(f"only linear samplers can preserve norms, got {type(inner).__name__}.")

        def norm(z: jax.Array) -> jax.Array:
            power = jnp.sum(z.astype(accurate_dtype(z.dtype)) ** 2, axis=(1, 2), keepdims=True)
            return jnp.sqrt(jnp.maximum(power, jnp.finfo(power.dtype).tiny))  # gradient 0, not nan, at 0

        y, phase = inner.with_phase(x, phase)
        return y * (norm(x) / (norm(inner.filter(x)) + 1e-6)).astype(y.dtype), phase


class PolyphaseUpsample(Layer):
    """Zeros between the samples, then a filter: the mirror image of a sampler of the same `inner`.

    ApsUp of truly_shift_invariant_cnns (there with gain 1), LPU of learnable_polyphase_sampling, and blur
    upsampling, by the choice of `inner`.

    Attributes:
      inner: sampler whose filter runs after each step; `Subsample` leaves the zeros.
      gain: factor for each step; None: the number of phases, with which constants keep their value.
    """

    strides: Pair = 2
    inner: SamplerFactory = part(Subsample)
    gain: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array, phase: Phase = None, *, train: bool = False) -> jax.Array:
        """[N, h, w, C] to [N, stride h, stride w, C]; without `phase` the samples stand at phase 0."""
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
    """Ideal interpolation, exact for fractional shifts; a phase moves the result by whole pixels."""

    strides: Pair = 2

    def __call__(self, x: jax.Array, phase: Phase = None, *, train: bool = False) -> jax.Array:
        """[N, h, w, C] to [N, stride h, stride w, C]; without `phase` the samples stand at phase 0."""
        check_images(x)
        y = ideal_upsample(self.cast(x), self.strides, precision=self.exact)
        if phase is None:
            return y
        row = column = jnp.zeros_like(phase[0])
        rows = columns = 1
        for (down, right), index in zip(steps_of(self.strides), phase, strict=True):
            row, column = row + rows * (index % down), column + columns * (index // down)
            rows, columns = rows * down, columns * right
        return jax.vmap(lambda image, r, c: jnp.roll(image, (r, c), axis=(0, 1)))(y, row, column)

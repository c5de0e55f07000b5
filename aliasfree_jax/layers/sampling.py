"""Downsamplers with one interface.

`y = sampler(x)` samples the map `[N, H, W, C]` by its `strides`. `y, phase = sampler.with_phase(x)` also
returns the chosen polyphase components, or None if nothing was chosen. Another branch can reuse the phase:
`sampler.with_phase(z, phase)`. So can an upsampler (`layers.upsampling`).

A sampler that is linear and shift-invariant before it drops samples commutes with circular convolutions.
`LinearSampler.taps` uses this to filter the side with fewer channels and to convolve only on the coarse grid.
"""

import itertools
import warnings
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.layer import Layer, accurate_dtype, part
from aliasfree_jax.ops.blurring import blur
from aliasfree_jax.ops.padding import WindowPadding, pad, same_padding
from aliasfree_jax.ops.polyphase import polyphase_downsample
from aliasfree_jax.ops.resample import (
    ideal_downsample,
    ideal_lowpass,
    ideal_resample,
    ideal_strided_taps,
)
from aliasfree_jax.ops.shapes import Pair, check_images, pair

Phase = tuple[jax.Array, ...] | None
"""One array per sampling step (`steps_of`): integers `[N]`, or weights `[N, K]` of the K components."""

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
    """Returns the steps (rows, columns) into which polyphase sampling splits its strides, as in APS.

    The steps are the prime factors: 4 gives (2, 2) and (2, 2).

    Raises:
      ConfigError: a stride is below 1.
    """
    rows, columns = map(_prime_factors, pair(strides, "strides"))
    return list(itertools.zip_longest(rows, columns, fillvalue=1))


def first_places(phase: tuple[jax.Array, ...], strides: Pair) -> tuple[jax.Array, jax.Array]:
    """Returns the row and the column `[N]` of each image's first sample, for one integer per step."""
    row = column = jnp.zeros_like(phase[0])
    rows = columns = 1
    for (down, right), index in zip(steps_of(strides), phase, strict=True):
        row, column = row + rows * (index % down), column + columns * (index // down)
        rows, columns = rows * down, columns * right
    return row, column


def phase_in_turn(images: int, *samplings: tuple[Pair, Phase]) -> Phase:
    """Joins the phases of several consecutive samplings. Returns None if none of them chose a phase.

    Args:
      images: number of images.
      samplings: strides and phase of each sampling. A sampling without a choice kept phase 0.
    """
    if all(phase is None for _, phase in samplings):
        return None
    kept = jnp.zeros(images, jnp.int32)
    steps = ([kept for _ in steps_of(strides)] if phase is None else phase for strides, phase in samplings)
    return tuple(itertools.chain.from_iterable(steps))


def warn_uneven(x: jax.Array, strides: tuple[int, int], remedy: str) -> None:
    """Warns, once per trace, that an exact sampler is not exact on the map `x` `[N, H, W, C]`."""
    if x.shape[1] % strides[0] or x.shape[2] % strides[1]:
        by = strides[0] if strides[0] == strides[1] else f"{strides[0]} x {strides[1]}"
        warnings.warn(
            f"a map of {x.shape[1]} x {x.shape[2]} is sampled by {by}, which does not divide it: "
            "the network is not exactly shift-equivariant at this image size. "
            f"Use images whose sides are multiples of the network's total stride{remedy}.",
            stacklevel=1,  # the callers are Flax's wrappers
        )


class Sampler(Layer):
    """Base class of all samplers.

    Attributes:
      strides: sampling strides of rows and columns.
    """

    strides: Pair = 2

    def __call__(self, x: jax.Array, *, train: bool = False, temperature: Temperature = 1.0) -> jax.Array:
        """Samples the map: `[N, H, W, C]` to `[N, ceil(H / stride), ceil(W / stride), C]`.

        Args:
          train: uses and updates the batch statistics of learned filters.
          temperature: temperature of learned selections in training.

        Raises:
          ShapeError: `x` is not floating-point `[N, H, W, C]`, or its sides are smaller than the strides.
        """
        return self.with_phase(x, train=train, temperature=temperature)[0]

    def with_phase(
        self, x: jax.Array, phase: Phase = None, *, train: bool = False, temperature: Temperature = 1.0
    ) -> tuple[jax.Array, Phase]:
        """Returns the sampled map and its phase. A given phase is used instead of choosing one."""
        raise NotImplementedError

    @nn.nowrap
    def checked(self, x: jax.Array) -> jax.Array:
        """Returns `x` in the layer's dtype.

        Raises:
          ShapeError: the map cannot be sampled.
        """
        check_images(x, pair(self.strides, "strides"))
        return self.cast(x)


class FilteredSampler(Sampler):
    """Base class: a filter, then every `strides`-th sample, or the samples of a given phase."""

    def filter(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns the filtered map at full size."""
        return x

    def sample(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the filtered map at phase 0."""
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
    """Base class: a shift-invariant linear filter, then sampling."""

    @nn.nowrap
    def circular(self) -> bool:
        """Whether the filter is circular. It then commutes with circular convolutions."""
        return True

    def taps(self, x: jax.Array, window: tuple[int, int]) -> tuple[jax.Array, tuple[int, int]]:
        """Returns the filtered map in the form that a following circular convolution reads.

        The result is a map and strides. The convolution over the full windows of this map, with these
        strides, equals the circular convolution at stride 1 followed by this sampler.
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
    """Keeps every `strides`-th sample, as strided convolutions do. It aliases.

    It is exact for shifts by multiples of the strides only.

    Attributes:
      strides: sampling strides.

    Source: standard strided sampling; the baseline of all papers here.
    """


class BlurPool(LinearSampler):
    """Blurs with a binomial filter, then keeps every `strides`-th sample.

    It is exact for shifts by multiples of the strides, and approximately for other shifts.

    Attributes:
      strides: sampling strides.
      kernel_size: taps of the filter, 1 to 7. The published networks of antialiased-cnns use 4.
      padding: how the map continues beyond its border.

    Source: Zhang 2019 (arXiv 1904.11486), section 3.2.

    Differs from the original: the default padding is circular, like the shifts of this package;
    antialiased-cnns uses "REFLECT".
    """

    kernel_size: Pair = 3
    padding: WindowPadding = "CIRCULAR"

    def filter(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns the blurred map."""
        return blur(x, self.kernel_size, padding=self.padding)

    @nn.nowrap
    def circular(self) -> bool:
        """Whether the blur is circular."""
        return self.padding == "CIRCULAR"

    def sample(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the blurred map at phase 0, without computing the other samples."""
        return blur(x, self.kernel_size, self.strides, self.padding)


class IdealDownsample(LinearSampler):
    """Ideal low-pass filter at 1 / stride of the Nyquist frequency, then sampling.

    It is exact for every fractional shift if the strides divide the sides of the map, like the original.

    Attributes:
      strides: sampling strides.
      any_size: whether maps of every size are sampled evenly, which is exact for every size
        (`ops.ideal_downsample`).

    Source: Michaeli et al. 2023 (arXiv 2303.08085), section 3.1; `any_size` is this package's.
    """

    any_size: bool = False

    def _warn(self, x: jax.Array) -> None:
        if not self.any_size:
            warn_uneven(x, pair(self.strides, "strides"), ", or any_size=True, which is exact for every size")

    def filter(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns the low-passed map at full size."""
        if self.any_size:
            coarse = ideal_downsample(x, self.strides, any_size=True, precision=self.exact)
            return ideal_resample(coarse, (x.shape[1], x.shape[2]), precision=self.exact)
        return ideal_lowpass(x, self._cutoffs(), precision=self.exact)

    def _cutoffs(self) -> tuple[float, float]:
        rows, columns = pair(self.strides, "strides")
        return 1 / rows, 1 / columns

    def taps(self, x: jax.Array, window: tuple[int, int]) -> tuple[jax.Array, tuple[int, int]]:
        """See `LinearSampler.taps`. One matrix per axis filters and arranges the windows side by side."""
        self._warn(x)
        strides = pair(self.strides, "strides")
        overlapping = window[0] > strides[0] and window[1] > strides[1]
        if overlapping and not self.any_size:  # the windows share the samples of the filtered map
            return super().taps(x, window)
        first = -same_padding(window[0])[0], -same_padding(window[1])[0]
        y = ideal_strided_taps(
            x, self.strides, taps=window, first=first, any_size=self.any_size, precision=self.exact
        )
        return y, window

    def sample(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the low-passed map at phase 0, without computing the other samples."""
        self._warn(x)
        return ideal_downsample(x, self.strides, any_size=self.any_size, precision=self.exact)


class NormPreserving(Sampler):
    """A linear sampler that rescales the filtered map to the norm of its input.

    Each image and channel has one factor, |x| / (|filter(x)| + 1e-6), with norms over all positions. The
    layer is exact for the same shifts as its inner sampler.

    Attributes:
      strides: sampling strides.
      inner: the linear sampler: `Subsample`, `BlurPool` or `IdealDownsample`.

    Source: Michaeli et al. 2023 (arXiv 2303.08085), `"scale_l2"` in its code.
    """

    inner: SamplerFactory = part(BlurPool)

    @nn.compact
    def with_phase(
        self, x: jax.Array, phase: Phase = None, *, train: bool = False, temperature: Temperature = 1.0
    ) -> tuple[jax.Array, Phase]:
        """See `Sampler.with_phase`.

        Raises:
          ConfigError: the inner sampler is not linear.
          ShapeError: the map cannot be sampled.
        """
        x = self.checked(x)
        inner = self.inner(strides=self.strides, **self.numerics, name="inner")
        if not isinstance(inner, LinearSampler):
            raise ConfigError(
                f"NormPreserving needs a linear sampler, such as BlurPool, got {type(inner).__name__}."
            )

        def norm(z: jax.Array) -> jax.Array:
            power = jnp.sum(z.astype(accurate_dtype(z.dtype)) ** 2, axis=(1, 2), keepdims=True)
            return jnp.sqrt(jnp.maximum(power, jnp.finfo(power.dtype).tiny))  # gradient 0 instead of NaN at 0

        y, phase = inner.with_phase(x, phase)
        return y * (norm(x) / (norm(inner.filter(x)) + 1e-6)).astype(y.dtype), phase

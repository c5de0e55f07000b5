"""Activations. All are modules `activation(x)`, with or without parameters.

The polynomials' learned coefficients start at the quadratic that fits GELU best.
"""

from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.layers.layer import Layer, accurate_dtype
from aliasfree_jax.ops.activation import (
    GELU_QUADRATIC,
    Scale,
    lowpass_polynomial,
    polynomial,
    polynomial_grid,
    scaled_coefficients,
    up_polynomial_down,
)
from aliasfree_jax.ops.resample import ideal_lowpass, ideal_resample


class Identity(Layer):
    """No activation, where a network takes one."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., C], as it is."""
        return self.cast(x)


class Gelu(Layer):
    """The exact GELU, x Phi(x)."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., C] to [..., C]."""
        return jax.nn.gelu(self.cast(x), approximate=False)


class Relu(Layer):
    """max(x, 0)."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., C] to [..., C]."""
        return jax.nn.relu(self.cast(x))


class Relu6(Layer):
    """min(max(x, 0), 6)."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., C] to [..., C]."""
        return jax.nn.relu6(self.cast(x))


class Scaled(Layer):
    """What polynomials and gates have in common.

    Attributes:
      in_scale, out_scale: initial scales; learned (shape [1]) if `train_scale`, constants otherwise.
      arity: maps that it takes for each that it gives.
    """

    in_scale: float = 1.0
    out_scale: float = 1.0
    train_scale: bool = False
    arity: ClassVar[int] = 1

    def scales(self) -> tuple[Scale, Scale]:
        """`in_scale` and `out_scale`; to be read in the one compact method."""

        def scale(name: str, value: float) -> Scale:
            if not self.train_scale:
                return value
            return self.param(name, nn.initializers.constant(value), (1,), self.param_dtype)

        return scale("in_scale", self.in_scale), scale("out_scale", self.out_scale)


def arity(activation: Callable[..., nn.Module]) -> int:
    """Maps that an activation takes for each that it gives: 2 for gates, else 1."""
    return int(getattr(activation(parent=None), "arity", 1))


class FinerGrid(Layer):
    """Interpolation to the smallest grid where an activation of this degree is exact, and the way back.

    `up`, `pointwise` and `down` are the three steps of such an activation, for a caller with more to do on
    the fine grid (`layers.mlp`); a call is free to take them in one.
    """

    @property
    def degree(self) -> int:
        """Of the polynomial in the map's values."""
        return 2

    def up(self, x: jax.Array) -> jax.Array:
        """[N, H, W, C] on the fine grid."""
        grid = polynomial_grid((x.shape[1], x.shape[2]), self.degree)
        return ideal_resample(self.cast(x), grid, precision=self.exact)

    def pointwise(self, x: jax.Array) -> jax.Array:
        """The activation at every sample of [..., C], wherever the samples are."""
        raise NotImplementedError

    def down(self, x: jax.Array, shape: tuple[int, int]) -> jax.Array:
        """Low-pass filter and return from the fine grid to `shape` (rows, columns)."""
        return ideal_resample(x, shape, precision=self.exact)


class Polynomial(Scaled):
    """A learned polynomial for each channel: `out_scale P_c(in_scale x)`.

    Attributes:
      initial: coefficients of the powers 0, 1, 2, ...
    """

    initial: tuple[float, ...] = GELU_QUADRATIC

    @property
    def degree(self) -> int:
        """The highest power."""
        return len(self.initial) - 1

    @nn.compact
    def parameters(self, channels: int) -> tuple[jax.Array, Scale, Scale]:
        """The coefficients [channels, d + 1] and both scales."""
        in_scale, out_scale = self.scales()
        rows = jnp.asarray(self.initial, self.param_dtype)
        return self.param("coefficients", lambda _: jnp.tile(rows, (channels, 1))), in_scale, out_scale

    def pointwise(self, x: jax.Array) -> jax.Array:
        """The polynomial at every sample of [..., C], wherever the samples are."""
        return polynomial(self.cast(x), *self.parameters(x.shape[-1]))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., C] to [..., C]; aliases, unless the input is band-limited accordingly."""
        return self.pointwise(x)


class UpPolynomial(Polynomial, FinerGrid):
    """The polynomial on the smallest grid where it is exact: commutes with every fractional shift."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, H, W, C] to [N, H, W, C]; one kernel or matrix products (`ops.choices`)."""
        return up_polynomial_down(self.cast(x), *self.parameters(x.shape[-1]), precision=self.exact)


class LowpassPolynomial(Polynomial):
    """A quadratic whose square has one low-passed factor: exact before a low-pass filter (the stem).

    `cutoff` 3/4 suits a following sampling by 4, 1/2 one by 2 (`ops.activation.lowpass_polynomial`).
    """

    cutoff: float = 0.75

    def scaled(self, channels: int) -> jax.Array:
        """The coefficients [channels, 3] of 1, u and u v, with both scales multiplied in."""
        coefficients, in_scale, out_scale = self.parameters(channels)
        return scaled_coefficients(coefficients, in_scale, out_scale, accurate_dtype(coefficients.dtype))

    def __call__(self, x: jax.Array, lowpassed: jax.Array | None = None) -> jax.Array:
        """[N, H, W, C] to [N, H, W, C].

        `lowpassed` is `ideal_lowpass(x, cutoff)` where the caller has a cheaper way to it.
        """
        x = self.cast(x)
        if lowpassed is None:
            lowpassed = ideal_lowpass(x, self.cutoff, precision=self.exact)
        return lowpass_polynomial(x, lowpassed, self.scaled(x.shape[-1]))

"""Activations. All are modules `activation(x)`, with or without parameters.

The polynomials' learned coefficients start at the quadratic that fits GELU best. Gates multiply a map by
another one: of degree 2 like a quadratic, and exact where it is. A polynomial of each channel has squares
only; products of two linear maps have every pair of channels, as the networks of products MONet (Chrysos et
al. 2024) do, at the price of no further resampling.
"""

from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ShapeError
from aliasfree_jax.layers.layer import Layer, accurate_dtype
from aliasfree_jax.ops.activation import (
    GELU_QUADRATIC,
    Scale,
    gate,
    lowpass_polynomial,
    polynomial,
    polynomial_grid,
    scaled_coefficients,
    up_gate_down,
)
from aliasfree_jax.ops.resample import ideal_lowpass, ideal_resample
from aliasfree_jax.ops.shapes import check_images


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


class ScaledActivation(Layer):
    """What polynomials and gates have in common: every image and, but for gates, every channel is alone.

    Attributes:
      in_scale, out_scale: initial scales; learned (shape [1]) if `train_scale`, constants otherwise.
      gated: whether it takes twice the channels that it gives.
    """

    in_scale: float = 1.0
    out_scale: float = 1.0
    train_scale: bool = False
    gated: ClassVar[bool] = False

    def scales(self) -> tuple[Scale, Scale]:
        """`in_scale` and `out_scale`; to be read in the one compact method."""

        def scale(name: str, value: float) -> Scale:
            if not self.train_scale:
                return value
            return self.param(name, nn.initializers.constant(value), (1,), self.param_dtype)

        return scale("in_scale", self.in_scale), scale("out_scale", self.out_scale)


def is_gated(activation: Callable[..., nn.Module]) -> bool:
    """Whether an activation multiplies two halves of its channels: it takes twice as many as it gives."""
    return bool(getattr(activation(parent=None), "gated", False))


class FinerGrid(Layer):
    """An activation on the smallest grid where it is exact: it commutes with every fractional shift.

    It is mixed into an activation that has `pointwise`.
    """

    @property
    def degree(self) -> int:
        """Of the polynomial in the map's values."""
        return 2

    def between(
        self,
        x: jax.Array,
        before: Callable[[jax.Array], jax.Array] = lambda x: x,
        behind: Callable[[jax.Array], jax.Array] = lambda x: x,
    ) -> jax.Array:
        """`behind(activation(before(x)))` on the finer grid, [N, H, W, C] to [N, H, W, C'].

        Linear layers with bias commute with the interpolation to that grid and the low-pass filter on the way
        back, so it is the same as `behind(self(before(x)))`.
        """
        x = self.cast(x)
        check_images(x)
        shape = (x.shape[1], x.shape[2])
        fine = ideal_resample(x, polynomial_grid(shape, self.degree), precision=self.exact)
        return ideal_resample(behind(self.pointwise(before(fine))), shape, precision=self.exact)

    def pointwise(self, x: jax.Array) -> jax.Array:
        """The activation at every sample of [..., C], wherever the samples are."""
        raise NotImplementedError


class Polynomial(ScaledActivation):
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
        """[N, H, W, C] to [N, H, W, C]."""
        return self.between(x)


class LowpassPolynomial(Polynomial):
    """A quadratic whose square has one low-passed factor: exact before a low-pass filter (the stem).

    `cutoff` 3/4 suits a following sampling by 4, 1/2 one by 2 (`ops.activation.lowpass_polynomial`).
    """

    cutoff: float = 0.75

    def scaled(self, channels: int) -> jax.Array:
        """The coefficients [channels, 3] of 1, u and u v, with both scales multiplied in."""
        coefficients, in_scale, out_scale = self.parameters(channels)
        return scaled_coefficients(coefficients, in_scale, out_scale, accurate_dtype(coefficients.dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, H, W, C] to [N, H, W, C]."""
        x = self.cast(x)
        lowpassed = ideal_lowpass(x, self.cutoff, precision=self.exact)
        return lowpass_polynomial(x, lowpassed, self.scaled(x.shape[-1]))


def _halves(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    if x.shape[-1] % 2:
        raise ShapeError(f"a gate multiplies two halves of the channels: {x.shape[-1]} is odd.")
    first, second = jnp.split(x, 2, axis=-1)
    return first, second


class Gate(ScaledActivation):
    """`out_scale x (1 + in_scale y)` of the two halves x, y of the channels; aliases.

    For an MLP, whose first layer makes both halves: [N, H, W, 2 C] to [N, H, W, C].
    """

    gated: ClassVar[bool] = True

    @nn.compact
    def parameters(self) -> tuple[Scale, Scale]:
        """Both scales."""
        return self.scales()

    def pointwise(self, x: jax.Array) -> jax.Array:
        """The gate at every sample of [..., 2 C], wherever the samples are."""
        x, by = _halves(self.cast(x))
        return gate(x, by, *self.parameters())

    def __call__(self, x: jax.Array) -> jax.Array:
        """[..., 2 C] to [..., C].

        Raises:
          ShapeError: an odd number of channels.
        """
        return self.pointwise(x)


class UpGate(Gate, FinerGrid):
    """The gate on the smallest grid where it is exact: commutes with every fractional shift."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, H, W, 2 C] to [N, H, W, C]."""
        check_images(x)
        x, by = _halves(self.cast(x))
        return up_gate_down(x, by, *self.parameters(), precision=self.exact)


class UpSelfGate(ScaledActivation):
    """`out_scale x (1 + in_scale V x)` on the grid where it is exact, V learned: for any network.

    V [C, C] starts at 0: products of products from block to block would otherwise outgrow every number format
    before the network has learned to keep them small.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, H, W, C] to [N, H, W, C]."""
        # V commutes with the interpolation; on the coarse grid it has fewer samples.
        x = self.cast(x)
        numerics = {**self.numerics, "precision": self.exact}
        linear = nn.Dense(x.shape[-1], kernel_init=nn.initializers.zeros, **numerics, name="linear")
        return up_gate_down(x, linear(x).astype(x.dtype), *self.scales(), precision=self.exact)


class LowpassGate(Gate):
    """The gate with its second factor low-passed: exact before a low-pass filter (the stem).

    `cutoff` as for `LowpassPolynomial`.
    """

    cutoff: float = 0.75

    def scaled(self, channels: int) -> jax.Array:
        """The coefficients [channels, 3] of 1, x and x y, as those of a `LowpassPolynomial`."""
        in_scale, out_scale = self.parameters()
        inner, outer = (jnp.asarray(scale).reshape(()) for scale in (in_scale, out_scale))
        row = jnp.stack([jnp.zeros_like(outer), outer, outer * inner])
        return jnp.tile(row.astype(accurate_dtype(row.dtype)), (channels, 1))

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, H, W, 2 C] to [N, H, W, C]."""
        check_images(x)
        x, by = _halves(self.cast(x))
        return gate(x, ideal_lowpass(by, self.cutoff, precision=self.exact), *self.parameters())

"""Activations. All of them are modules `activation(x)`, with or without parameters.

The learned coefficients of polynomials start at the quadratic that fits GELU best. `layers/gates.py` has
products of two maps.
"""

from collections.abc import Callable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.layer import Layer, accurate_dtype
from aliasfree_jax.ops.activation import (
    GELU_QUADRATIC,
    Scale,
    lowpass_polynomial,
    polynomial,
    polynomial_grid,
    scaled_coefficients,
)
from aliasfree_jax.ops.resample import ideal_lowpass, ideal_resample
from aliasfree_jax.ops.shapes import check_images


class Identity(Layer):
    """Does nothing: for networks that expect an activation."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns `x` `[..., C]` unchanged."""
        return self.cast(x)


class Gelu(Layer):
    """The exact GELU, x Phi(x)."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., C]` to `[..., C]`."""
        return jax.nn.gelu(self.cast(x), approximate=False)


class Relu(Layer):
    """The ReLU, max(x, 0)."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., C]` to `[..., C]`."""
        return jax.nn.relu(self.cast(x))


class Relu6(Layer):
    """The ReLU6, min(max(x, 0), 6)."""

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., C]` to `[..., C]`."""
        return jax.nn.relu6(self.cast(x))


class ScaledActivation(Layer):
    """Base class of polynomials and gates.

    Each image is processed separately, and each channel too, except in gates.

    Attributes:
      in_scale: initial input scale. Learned (shape `[1]`) if `train_scale` is set, otherwise constant.
      out_scale: initial output scale, like `in_scale`.
      train_scale: whether the scales are learned.
      gated: whether the activation needs two input channels per output channel.
    """

    in_scale: float = 1.0
    out_scale: float = 1.0
    train_scale: bool = False
    gated: ClassVar[bool] = False

    def scales(self) -> tuple[Scale, Scale]:
        """Returns `in_scale` and `out_scale`. Call it in the module's compact method."""

        def scale(name: str, value: float) -> Scale:
            if not self.train_scale:
                return value
            return self.param(name, nn.initializers.constant(value), (1,), self.param_dtype)

        return scale("in_scale", self.in_scale), scale("out_scale", self.out_scale)


def is_gated(activation: Callable[..., nn.Module]) -> bool:
    """Whether an activation needs two input channels per output channel."""
    return bool(getattr(activation(parent=None), "gated", False))


def expansion(activation: Callable[..., nn.Module]) -> int:
    """Number of input channels of an activation per output channel: 2 for gates."""
    return 2 if is_gated(activation) else 1


class FinerGrid(Layer):
    """Mixin that evaluates an activation on the smallest grid where it is exact.

    The result commutes with every fractional shift. The activation must have the method `pointwise`.

    Attributes:
      nyquist: whether the map's Nyquist frequency passes. The grid is smaller without it.
    """

    nyquist: ClassVar[bool] = True

    @property
    def degree(self) -> int:
        """Degree of the polynomial."""
        return 2

    def between(
        self,
        x: jax.Array,
        before: Callable[[jax.Array], jax.Array] = lambda x: x,
        after: Callable[[jax.Array], jax.Array] = lambda x: x,
        kept: tuple[int, int] | None = None,
    ) -> jax.Array:
        """Computes `after(activation(before(x)))` on the finer grid: `[N, H, W, C]` to `[N, H, W, C']`.

        Linear layers with bias commute with the interpolation to that grid and with the low-pass filter on
        the way back. So the result equals `after(self(before(x)))`.

        Args:
          before: linear layer before the activation.
          after: linear layer after the activation.
          kept: rows and columns of the result. Fewer than those of `x` also sample the result, like
            `ops.ideal_resample`. None: those of `x`.
        """
        x = self.cast(x)
        check_images(x)
        shape = (x.shape[1], x.shape[2])
        how: Any = {"nyquist": self.nyquist, "method": "auto", "precision": self.exact}
        fine = ideal_resample(x, self.grid(shape, kept), **how)
        return ideal_resample(after(self.pointwise(before(fine))), kept or shape, **how)

    @nn.nowrap
    def grid(self, shape: tuple[int, int], kept: tuple[int, int] | None = None) -> tuple[int, int]:
        """Returns the grid for a map of `shape`, see `ops.activation.polynomial_grid`."""
        return polynomial_grid(shape, self.degree, kept, self.nyquist)

    def pointwise(self, x: jax.Array) -> jax.Array:
        """Applies the activation to every sample of `[..., C]`, on any grid."""
        raise NotImplementedError


class UpGelu(Gelu, FinerGrid):
    """The exact GELU on a grid of twice the size, low-passed back.

    GELU has no highest frequency, so it still aliases. It commutes with shifts by half a sample of its map,
    and only approximately with others.

    Source: Michaeli et al. 2025 (arXiv 2510.22673).
    """

    @nn.nowrap
    def grid(self, shape: tuple[int, int], kept: tuple[int, int] | None = None) -> tuple[int, int]:
        """Returns twice the size of the map."""
        return 2 * shape[0], 2 * shape[1]

    def pointwise(self, x: jax.Array) -> jax.Array:
        """Applies GELU to every sample of `[..., C]`, on any grid."""
        return super().__call__(x)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, C]` to `[N, H, W, C]`."""
        return self.between(x)


class Polynomial(ScaledActivation):
    """Applies a learned polynomial to each channel: `out_scale * P_c(in_scale x)`.

    It aliases, unless the input has a small enough band. It commutes with shifts by whole pixels.

    Attributes:
      initial: initial coefficients of the powers 0, 1, 2, and so on.
      in_scale: initial factor on the input. Learned (shape `[1]`) if `train_scale` is set.
      out_scale: initial factor on the result, like `in_scale`.
      train_scale: whether both factors are learned.

    Source: Michaeli et al. 2023 (arXiv 2303.08085), section 3.2.
    """

    initial: tuple[float, ...] = GELU_QUADRATIC

    @property
    def degree(self) -> int:
        """The highest power."""
        return len(self.initial) - 1

    @nn.compact
    def parameters(self, channels: int) -> tuple[jax.Array, Scale, Scale]:
        """Returns the coefficients `[channels, d + 1]` and both scales."""
        in_scale, out_scale = self.scales()
        rows = jnp.asarray(self.initial, self.param_dtype)
        return self.param("coefficients", lambda _: jnp.tile(rows, (channels, 1))), in_scale, out_scale

    def pointwise(self, x: jax.Array) -> jax.Array:
        """Applies the polynomial to every sample of `[..., C]`, on any grid."""
        return polynomial(self.cast(x), *self.parameters(x.shape[-1]))

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., C]` to `[..., C]`. Aliases, unless the input has a small enough band."""
        return self.pointwise(x)


class UpPolynomial(Polynomial, FinerGrid):
    """Applies a learned polynomial to each channel on a finer grid, without aliasing.

    The map is interpolated to the smallest grid where the polynomial is exact, and low-passed back. The
    layer commutes with every fractional shift. Its fields are those of `Polynomial`.

    Source: Michaeli et al. 2023 (arXiv 2303.08085), section 3.2.
    """

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, C]` to `[N, H, W, C]`."""
        return self.between(x)


class LowpassPolynomial(Polynomial):
    """Quadratic in which one factor of the square is low-passed; exact before a low-pass filter.

    It needs no finer grid, so it is cheaper than `UpPolynomial`. Use it before a sampler with a low-pass
    filter, such as in the stem. Its other fields are those of `Polynomial`.

    Attributes:
      cutoff: cutoff of the low-pass filter, a fraction of the Nyquist frequency. 3/4 is exact before
        sampling by 4, 1/2 before sampling by 2 (`ops.lowpass_polynomial`).

    Source: Michaeli et al. 2023 (arXiv 2303.08085), the stem in its code.
    """

    cutoff: float = 0.75

    def scaled(self, channels: int) -> jax.Array:
        """Returns the coefficients `[channels, 3]` of 1, u and u v, with both scales multiplied in.

        Raises:
          ConfigError: there are not three coefficients.
        """
        if self.degree != 2:
            raise ConfigError(f"a low-pass polynomial has 3 coefficients, got {self.degree + 1}.")
        coefficients, in_scale, out_scale = self.parameters(channels)
        return scaled_coefficients(coefficients, in_scale, out_scale, accurate_dtype(coefficients.dtype))

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, C]` to `[N, H, W, C]`."""
        x = self.cast(x)
        lowpassed = ideal_lowpass(x, self.cutoff, precision=self.exact)
        return lowpass_polynomial(x, lowpassed, self.scaled(x.shape[-1]))

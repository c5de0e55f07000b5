"""Gates: activations that multiply two maps.

Gates have degree 2 like a quadratic and are exact on the same grid. A polynomial of each channel contains
only squares of channels. A product of two linear maps contains every pair of channels, as in the product
networks MONet (Cheng et al. 2024), and needs no additional resampling.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ShapeError
from aliasfree_jax.layers.activation import FinerGrid, ScaledActivation
from aliasfree_jax.layers.layer import accurate_dtype
from aliasfree_jax.ops.activation import Scale, gate, up_gate_down
from aliasfree_jax.ops.resample import ideal_lowpass
from aliasfree_jax.ops.shapes import check_images


def _halves(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    if x.shape[-1] % 2:
        raise ShapeError(
            f"a gate multiplies two halves of the channels and needs an even number, got {x.shape[-1]}."
        )
    first, second = jnp.split(x, 2, axis=-1)
    return first, second


class Gate(ScaledActivation):
    """Multiplies the two halves x, y of the channels: `out_scale * x * (1 + in_scale * y)`.

    It is made for MLPs, whose first layer computes both halves: `[N, H, W, 2 C]` to `[N, H, W, C]`. It
    aliases and commutes with shifts by whole pixels.

    Attributes:
      in_scale: initial factor on y. Learned (shape `[1]`) if `train_scale` is set.
      out_scale: initial factor on the result, like `in_scale`.
      train_scale: whether both factors are learned.

    Source: bilinear gated linear units (Shazeer 2020, arXiv 2002.05202) and MONet (Cheng et al. 2024,
    arXiv 2401.17992).
    """

    gated: ClassVar[bool] = True

    @nn.compact
    def parameters(self) -> tuple[Scale, Scale]:
        """Returns both scales."""
        return self.scales()

    def pointwise(self, x: jax.Array) -> jax.Array:
        """Applies the gate to every sample of `[..., 2 C]`, on any grid."""
        return self.product(*_halves(self.cast(x)))

    def product(self, x: jax.Array, by: jax.Array) -> jax.Array:
        """Multiplies two maps `[..., C]`, on any grid."""
        return gate(x, by, *self.parameters())

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[..., 2 C]` to `[..., C]`.

        Raises:
          ShapeError: the number of channels is odd.
        """
        return self.pointwise(x)


class UpGate(Gate, FinerGrid):
    """Multiplies the two halves of the channels on a finer grid, without aliasing.

    Both halves are interpolated to the smallest grid where the product is exact, and the product is
    low-passed back. The layer commutes with every fractional shift. It removes the Nyquist frequency of even
    sides, which no alias-free sampler leaves (`ops.up_gate_down`). Its fields are those of `Gate`.

    Source: this package, for the products of bilinear gated linear units (Shazeer 2020, arXiv 2002.05202)
    and MONet (Cheng et al. 2024, arXiv 2401.17992).
    """

    nyquist: ClassVar[bool] = False

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, 2 C]` to `[N, H, W, C]`."""
        check_images(x)
        x, by = _halves(self.cast(x))
        return up_gate_down(x, by, *self.parameters(), precision=self.exact)


class UpSelfGate(ScaledActivation):
    """Multiplies the map by a linear map of itself on a finer grid: `out_scale * x * (1 + in_scale * V x)`.

    It replaces any activation, because it keeps the number of channels, and commutes with every fractional
    shift. Like `UpGate` it removes the Nyquist frequency of even sides. The learned matrix V `[C, C]` starts
    at 0. With other initial values, products of products from block to block overflow every number format
    before training can keep them small.

    Attributes:
      in_scale: initial factor on V x. Learned (shape `[1]`) if `train_scale` is set.
      out_scale: initial factor on the result, like `in_scale`.
      train_scale: whether both factors are learned.

    Source: this package, after bilinear gated linear units (Shazeer 2020, arXiv 2002.05202) and MONet
    (Cheng et al. 2024, arXiv 2401.17992).
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, C]` to `[N, H, W, C]`."""
        # V commutes with the interpolation, and the coarse grid has fewer samples.
        x = self.cast(x)
        numerics = {**self.numerics, "precision": self.exact}
        linear = nn.Dense(x.shape[-1], kernel_init=nn.initializers.zeros, **numerics, name="linear")
        return up_gate_down(x, linear(x).astype(x.dtype), *self.scales(), precision=self.exact)


class LowpassGate(Gate):
    """Gate whose second factor is low-passed; exact before a low-pass filter, such as in the stem.

    Its other fields are those of `Gate`.

    Attributes:
      cutoff: see `LowpassPolynomial`.

    Source: this package, after the low-pass polynomial of Michaeli et al. 2023 (arXiv 2303.08085).
    """

    cutoff: float = 0.75

    def scaled(self, channels: int) -> jax.Array:
        """Returns the coefficients `[channels, 3]` of 1, x and x y, like `LowpassPolynomial.scaled`."""
        in_scale, out_scale = self.parameters()
        inner, outer = (jnp.asarray(scale).reshape(()) for scale in (in_scale, out_scale))
        row = jnp.stack([jnp.zeros_like(outer), outer, outer * inner])
        return jnp.tile(row.astype(accurate_dtype(row.dtype)), (channels, 1))

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, 2 C]` to `[N, H, W, C]`."""
        check_images(x)
        x, by = _halves(self.cast(x))
        return self.product(x, ideal_lowpass(by, self.cutoff, precision=self.exact))


class BandlimitedGate(Gate):
    """Gate whose factors are both low-passed; exact before a low-pass filter, such as in a stem.

    `LowpassGate` removes more of one factor and nothing of the other. Here both factors keep most of their
    high frequencies, whose products a following filter keeps. Its other fields are those of `Gate`.

    Attributes:
      cutoff: cutoff of both filters, a fraction of the Nyquist frequency. 3/4 is exact before sampling by 2,
        7/8 before sampling by 4: the highest frequency of the product is then aliased to the first one that
        the sampler removes.

    Source: this package.
    """

    cutoff: float = 0.75

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, 2 C]` to `[N, H, W, C]`."""
        return self.pointwise(self.lowpass(x))

    @nn.nowrap
    def lowpass(self, x: jax.Array) -> jax.Array:
        """Low-passes a map `[N, H, W, C]`. A linear layer may follow, before `pointwise`."""
        check_images(x)
        return ideal_lowpass(self.cast(x), self.cutoff, precision=self.exact)

"""Gates: activations that multiply a map by another one. Degree 2 like a quadratic, and exact where it is.

A polynomial of each channel has squares only; products of two linear maps have every pair of channels, as the
networks of products MONet (Chrysos et al. 2024) do, at the price of no further resampling.
"""

from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ShapeError
from aliasfree_jax.layers.activation import FinerGrid, Scaled
from aliasfree_jax.layers.layer import accurate_dtype
from aliasfree_jax.ops.activation import Scale
from aliasfree_jax.ops.gating import gate, up_gate_down
from aliasfree_jax.ops.resample import ideal_lowpass
from aliasfree_jax.ops.shapes import check_images


def _halves(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    if x.shape[-1] % 2:
        raise ShapeError(f"a gate multiplies two halves of the channels: {x.shape[-1]} is odd.")
    first, second = jnp.split(x, 2, axis=-1)
    return first, second


class Gate(Scaled):
    """`out_scale x (1 + in_scale y)` of the two halves x, y of the channels; aliases.

    For an MLP, whose first layer makes both halves: [N, H, W, 2 C] to [N, H, W, C].
    """

    arity: ClassVar[int] = 2

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
        in_scale, out_scale = self.parameters()
        return up_gate_down(x, by, in_scale, out_scale, precision=self.exact)


class UpSelfGate(Scaled):
    """`out_scale x (1 + in_scale V x)` on the grid where it is exact, V learned: for any network.

    V [C, C] starts at 0: products of products from block to block would otherwise outgrow every number format
    before the network has learned to keep them small.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, H, W, C] to [N, H, W, C]."""
        # V commutes with the interpolation; on the coarse grid it has fewer samples.
        x = self.cast(x)
        linear = nn.Dense(
            x.shape[-1],
            kernel_init=nn.initializers.zeros,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            precision=self.exact,
            name="linear",
        )
        by = linear(x)
        in_scale, out_scale = self.scales()
        return up_gate_down(x, by.astype(x.dtype), in_scale, out_scale, precision=self.exact)


class LowpassGate(Gate):
    """The gate with its second factor low-passed: exact before a low-pass filter (the stem).

    `cutoff` as for `layers.activation.LowpassPolynomial`.
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

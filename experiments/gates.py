"""Alternative gates, for the experiments that chose the gate of `convnext_afg_*`."""

from typing import ClassVar

import flax.linen as nn
import jax

from aliasfree_jax.layers import Layer, SpatialNorm, UpGate
from aliasfree_jax.models import register_part


class NormedUpGate(Layer):
    """`UpGate`, followed by an alias-free norm on the original grid, where the variance is exact."""

    gated: ClassVar[bool] = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps `[N, H, W, 2 C]` to `[N, H, W, C]`."""
        gate = UpGate(7.0, 7.0, True, **self.numerics, name="gate")
        y: jax.Array = SpatialNorm(**self.numerics, name="norm")(gate(x))
        return y


register_part("activation", "normed_up_gate", NormedUpGate)

"""Two layers as one, on the way from the first to the second: what fine-tuning into another network needs."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ShapeError
from aliasfree_jax.layers.layer import Factory, Layer, ModuleFactory, accurate_dtype

BlendShare = jax.Array | float
"""How much of the second layer there is: 0 (none) to 1 (it alone)."""


class Blend(Layer):
    """`(1 - share) start(x) + share end(x)`; parameters of the same name are one parameter.

    The variables are those of both layers together, under the names that either has by itself: where the
    start has none that the end has not, they are the end's.

    Attributes:
      start, end: layers that are called alike.
      share: of the end.
      lead: by how many pixels the windows of `end` begin before those of `start`; `end` sees its input
        rolled back by as many rows and columns, so that both results are of the same place.
    """

    start: ModuleFactory
    end: ModuleFactory
    share: BlendShare
    lead: int = 0

    @nn.compact
    def __call__(self, x: jax.Array, **options: Any) -> jax.Array:
        """The weighted sum.

        Raises:
          ShapeError: the layers' results differ in shape.
        """
        # Each layer finds the whole scope free, and its parameters where the other has made them.
        layers: list[Any] = [
            layer(**self.numerics, parent=self._scope().rewound()) for layer in (self.start, self.end)
        ]
        rolled = jnp.roll(x, (-self.lead, -self.lead), axis=(1, 2)) if self.lead else x
        first, last = layers[0](x, **options), layers[1](rolled, **options)
        if first.shape != last.shape:
            raise ShapeError(
                f"{self.name!r} blends maps of {first.shape[1:3]} and {last.shape[1:3]}: image sides must be "
                "multiples of the network's total stride, and a stem whose stride is not its kernel's size "
                'needs a start with padded windows (train.blend.start = "convnext_circular").'
            )
        accurate = accurate_dtype(first.dtype)
        share = jnp.asarray(self.share, accurate)
        blended = (1 - share) * first.astype(accurate) + share * last.astype(accurate)
        return blended.astype(first.dtype)

    def _scope(self) -> nn.module.Scope:
        assert self.scope is not None  # within a call there is one
        return self.scope


def blend(start: ModuleFactory, end: ModuleFactory, share: BlendShare, *, lead: int = 0) -> ModuleFactory:
    """A factory of the `Blend` of two layers; of the one layer if both are the same."""
    if start == end:
        return end
    return Factory(Blend, start=start, end=end, share=share, lead=lead)

"""Atrous spatial pyramid pooling (Chen et al. 2017, arXiv 1706.05587, section 3.3), exact on the circle."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.layers.block import normed_and_activated
from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.layer import Layer, ModuleFactory, accurate_dtype, kaiming_normal_fan_in
from aliasfree_jax.ops.padding import Padding


class ASPP(Layer):
    """Looks at a map at several scales: `[N, H, W, C]` to `[N, H, W, features]`.

    The parallel branches are a 1 x 1 convolution, one 3 x 3 convolution per dilation rate, and the mean of
    the map. Each branch has a norm and an activation. A 1 x 1 convolution joins them. Circular branches
    commute with circular shifts at every size, also if a rate exceeds the map.

    Attributes:
      features: channels of the result and of each branch.
      rates: dilations of the 3 x 3 convolutions.
      paddings: padding of each 3 x 3 convolution.
      activation: activation of every branch.
      norm: norm of every branch.
      dropout_rate: dropout rate of the result in training.

    Source: Chen et al. 2017 (arXiv 1706.05587), section 3.3; circular padding is this package's.
    """

    features: int
    rates: tuple[int, ...]
    paddings: tuple[Padding, ...]
    activation: ModuleFactory
    norm: ModuleFactory
    dropout_rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        """Returns the joined map. Draws from the rng stream "dropout" in training."""
        branches = [self._branch(x, "point", train)]
        for number, (rate, padding) in enumerate(zip(self.rates, self.paddings, strict=True), 1):
            branches.append(self._branch(x, f"rate{number}", train, rate, padding))
        mean = jnp.mean(x.astype(accurate_dtype(x.dtype)), axis=(1, 2), keepdims=True).astype(x.dtype)
        mean = self._branch(mean, "mean", train)
        branches.append(jnp.broadcast_to(mean, branches[0].shape))
        x = self._branch(jnp.concatenate(branches, axis=-1), "project", train)
        y: jax.Array = nn.Dropout(self.dropout_rate, deterministic=not train, name="dropout")(x)
        return y

    def _branch(
        self, x: jax.Array, name: str, train: bool, rate: int = 0, padding: Padding = "ZERO"
    ) -> jax.Array:
        conv = Conv(
            self.features,
            3 if rate else 1,
            padding=padding if rate else "VALID",
            kernel_dilation=rate or 1,
            use_bias=False,
            kernel_init=kaiming_normal_fan_in,
            **self.numerics,
            name=f"{name}_conv",
        )
        return normed_and_activated(self, conv(x), train, f"{name}_")

"""Stochastic depth (Huang et al. 2016, arXiv 1603.09382)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.layer import Layer


class DropPath(Layer):
    """Zeroes whole samples of a residual branch with probability `rate`, scaling the others up.

    Draws from the rng stream "drop_path" in training; the identity otherwise and at rate 0.
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[N, ...] to [N, ...]. Raises `ConfigError` unless 0 <= rate < 1."""
        if not 0.0 <= self.rate < 1.0:
            raise ConfigError(f"drop path rates lie in [0, 1), got {self.rate}.")
        x = self.cast(x)
        if not train or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        kept = jax.random.bernoulli(self.make_rng("drop_path"), keep, shape)
        return jnp.where(kept, x / keep, jnp.zeros((), x.dtype))

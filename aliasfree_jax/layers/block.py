"""What the blocks of networks have in common: convolution, norm and activation; stochastic depth."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.layer import Initializer, Layer, kaiming_normal_fan_out


def conv_before_norm(
    of: Any,
    features: int,
    size: int,
    stride: int = 1,
    *,
    name: str = "conv",
    groups: int = 1,
    dilation: int = 1,
    kernel_init: Initializer = kaiming_normal_fan_out,
) -> Conv:
    """A square convolution without bias in the layer `of`, with its `padding` and number formats."""
    return Conv(
        features,
        size,
        stride,
        of.padding if size > 1 else "VALID",
        feature_group_count=groups,
        kernel_dilation=dilation,
        use_bias=False,
        kernel_init=kernel_init,
        **of.numerics,
        name=name,
    )


def normed_and_activated(
    of: Any, x: jax.Array, train: bool, prefix: str = "", number: int | str = ""
) -> jax.Array:
    """The `norm` and then the `activation` of the layer `of`, under these names with prefix and number."""
    x = of.norm(**of.numerics, name=f"{prefix}norm{number}")(x, train=train)
    y: jax.Array = of.activation(**of.numerics, name=f"{prefix}activation{number}")(x)
    return y


class DropPath(Layer):
    """Stochastic depth (Huang et al. 2016, arXiv 1603.09382): the branch of some images is left out.

    Zeroes whole samples of a residual branch with probability `rate`, scaling the others up.
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

"""Building blocks of networks: convolution before a norm, norm with activation, stochastic depth."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.layer import Initializer, Layer, ModuleFactory, kaiming_normal_fan_out


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
    conv: ModuleFactory = Conv,
) -> Any:
    """Square convolution without bias in the layer `of`, with its `padding` and number formats."""
    return conv(
        features=features,
        kernel_size=size,
        strides=stride,
        padding=of.padding if size > 1 else "VALID",
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
    """Applies the `norm` and then the `activation` of the layer `of`, named by prefix and number."""
    x = of.norm(**of.numerics, name=f"{prefix}norm{number}")(x, train=train)
    y: jax.Array = of.activation(**of.numerics, name=f"{prefix}activation{number}")(x)
    return y


class DropPath(Layer):
    """Stochastic depth: zeroes a residual branch for randomly chosen images in training.

    Each image's branch is zeroed with probability `rate`; the others are divided by 1 - rate. Training
    draws from the rng stream `"drop_path"`. In evaluation and at rate 0 the layer is the identity.

    Attributes:
      rate: probability, in [0, 1).

    Source: Huang et al. 2016 (arXiv 1603.09382).
    """

    rate: float

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, ...]` to `[N, ...]`.

        Raises:
          ConfigError: the rate is outside [0, 1).
        """
        if not 0.0 <= self.rate < 1.0:
            raise ConfigError(f"drop path rates must lie in [0, 1), got {self.rate}.")
        x = self.cast(x)
        if not train or self.rate == 0.0:
            return x
        keep = 1.0 - self.rate
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        kept = jax.random.bernoulli(self.make_rng("drop_path"), keep, shape)
        return jnp.where(kept, x / keep, jnp.zeros((), x.dtype))

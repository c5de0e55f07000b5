"""Initial values of the originals, where flax has none with the same distribution."""

import flax.linen as nn
import jax
import jax.numpy as jnp

Initializer = nn.initializers.Initializer


def fan_in_uniform(fan_in: int) -> Initializer:
    """Uniform in +-1 / sqrt(fan_in): PyTorch's default, of kernels and of their biases alike."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> jax.Array:
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


# Kaiming normal with fan_out, as ResNet, VGG and MobileNet-v2 initialise convolutions; not truncated.
# jax counts the fan of [k, k, C / groups, F] as k^2 F, which is PyTorch's for grouped convolutions too.
kaiming_normal_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
kaiming_normal_fan_in = nn.initializers.variance_scaling(2.0, "fan_in", "normal")

"""Initial values of the originals; unlike JAX's initializers they compare and pickle by value."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

Initializer = nn.initializers.Initializer


@dataclasses.dataclass(frozen=True)
class InitializerOf:
    """The initializer that `maker(*arguments)` makes."""

    maker: Callable[..., Initializer]
    arguments: tuple[Any, ...]

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        """Values of this shape."""
        return self.maker(*self.arguments)(key, shape, dtype)


def _fan_in_uniform(fan_in: int) -> Initializer:
    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def fan_in_uniform(fan_in: int) -> Initializer:
    """Uniform in +-1 / sqrt(fan_in): PyTorch's default, of kernels and of their biases alike."""
    return InitializerOf(_fan_in_uniform, (fan_in,))


def normal(stddev: float) -> Initializer:
    """Normal with this deviation."""
    return InitializerOf(nn.initializers.normal, (stddev,))


def _variance_scaling(*arguments: Any) -> Initializer:
    return InitializerOf(nn.initializers.variance_scaling, arguments)


# Kaiming normal with fan_out, as ResNet, VGG and MobileNet-v2 initialise convolutions; not truncated.
# jax counts the fan of [k, k, C / groups, F] as k^2 F, which is PyTorch's for grouped convolutions too.
kaiming_normal_fan_out = _variance_scaling(2.0, "fan_out", "normal")
kaiming_normal_fan_in = _variance_scaling(2.0, "fan_in", "normal")
lecun_normal = _variance_scaling(1.0, "fan_in", "truncated_normal")  # of Flax's own layers

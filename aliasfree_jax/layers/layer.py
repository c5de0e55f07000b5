"""What all layers have in common: Flax's fields for number formats; parts and initial values by value."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ShapeError
from aliasfree_jax.ops.resample import Precision

ModuleFactory = Callable[..., nn.Module]
Initializer = nn.initializers.Initializer


class Layer(nn.Module, kw_only=True):
    """A module with Flax's fields for how it computes, which are given by keyword.

    Attributes:
      dtype: of maps and products; None takes that of the inputs and parameters. Statistics of norms and
        polynomials always use at least float32.
      param_dtype: of the parameters.
      precision: of products, as in `jax.lax.Precision`. None: "highest" for ideal filters, polynomials and
        gates, whose exactness rests on it; JAX's default for everything else.
    """

    dtype: Any = None
    param_dtype: Any = jnp.float32
    precision: Precision = None

    @property
    def numerics(self) -> dict[str, Any]:
        """The three fields, as a layer hands them to its parts."""
        return {"dtype": self.dtype, "param_dtype": self.param_dtype, "precision": self.precision}

    @property
    def exact(self) -> Precision:
        """The precision of ideal filters."""
        return "highest" if self.precision is None else self.precision

    @nn.nowrap
    def cast(self, x: jax.Array) -> jax.Array:
        """`x` in the layer's `dtype`, if it has one. Raises `ShapeError` for integers."""
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ShapeError(
                f"expected floating-point values, got {x.dtype}{list(x.shape)}: x.astype(float)."
            )
        return x if self.dtype is None else x.astype(self.dtype)


@dataclasses.dataclass(frozen=True, init=False)
class Factory:
    """A module class with some of its fields: `Factory(BlurPool, kernel_size=4)` is called with the others.

    Two of them with the same fields are equal, and so are the layers that hold them; those of
    `functools.partial` are not, and `jax.jit` compiles again for every new one.
    """

    module: ModuleFactory
    fields: tuple[tuple[str, Any], ...]

    def __init__(self, module: ModuleFactory, /, **fields: Any) -> None:
        """`fields`: of the module, hashable."""
        object.__setattr__(self, "module", module)
        object.__setattr__(self, "fields", tuple(sorted(fields.items())))

    def __call__(self, **fields: Any) -> nn.Module:
        """The module with its fields and these."""
        return self.module(**{**dict(self.fields), **fields})


def part(default: ModuleFactory) -> Any:
    """A field for an injected part.

    A plain default would be an attribute of the class as well. Flax's `ToNNX` takes such an attribute for a
    method, and then cannot hold the variables of a submodule with the field's name.
    """
    return dataclasses.field(default_factory=lambda: default)


def accurate_dtype(dtype: Any) -> Any:
    """`dtype`, or float32 if that is wider: where sums of many values are accumulated."""
    return jnp.promote_types(dtype, jnp.float32)


@dataclasses.dataclass(frozen=True)
class InitializerOf:
    """The initializer that `maker(*arguments)` makes; unlike JAX's it compares and pickles by value."""

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

"""Base class of all layers, factories of parts, and initializers that compare by value."""

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
    """Base class of all layers: a Flax module with keyword fields for its number formats.

    Attributes:
      dtype: dtype of maps and products. None: the dtype of the inputs and parameters. Norm statistics and
        polynomials always use at least float32.
      param_dtype: dtype of the parameters.
      precision: precision of products, as in `jax.lax.Precision`. None: "highest" for ideal filters,
        polynomials and gates, which are exact only with it, and JAX's default for everything else.

    Source: this package; the fields are those of `flax.linen` layers.
    """

    dtype: Any = None
    param_dtype: Any = jnp.float32
    precision: Precision = None

    @property
    def numerics(self) -> dict[str, Any]:
        """The three number-format fields, to be passed on to submodules."""
        return {"dtype": self.dtype, "param_dtype": self.param_dtype, "precision": self.precision}

    @property
    def exact(self) -> Precision:
        """The precision of ideal filters."""
        return "highest" if self.precision is None else self.precision

    @nn.nowrap
    def cast(self, x: jax.Array) -> jax.Array:
        """Returns `x` in the layer's `dtype`, or unchanged if `dtype` is None.

        Raises:
          ShapeError: `x` is not floating-point.
        """
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ShapeError(
                f"expected floating-point values, got {x.dtype}{list(x.shape)}: convert with x.astype(float)."
            )
        return x if self.dtype is None else x.astype(self.dtype)


@dataclasses.dataclass(frozen=True, init=False)
class Factory:
    """A module class together with some of its fields; calling it with the other fields builds the module.

    `Factory(BlurPool, kernel_size=4)` builds `BlurPool` layers with `kernel_size=4`. Two factories with the
    same fields are equal, and so are the layers that contain them. Objects of `functools.partial` are never
    equal, so `jax.jit` would compile again for every new one.

    Attributes:
      module: the module class.
      fields: names and values of the fields, sorted by name.

    Source: this package.
    """

    module: ModuleFactory
    fields: tuple[tuple[str, Any], ...]

    def __init__(self, module: ModuleFactory, /, **fields: Any) -> None:
        """Stores the module class and its fields.

        Args:
          module: the module class.
          fields: fields of the module; the values must be hashable.
        """
        object.__setattr__(self, "module", module)
        object.__setattr__(self, "fields", tuple(sorted(fields.items())))

    def __call__(self, **fields: Any) -> nn.Module:
        """Builds the module with the stored fields and these; these take precedence."""
        return self.module(**{**dict(self.fields), **fields})


def part(default: ModuleFactory) -> Any:
    """Declares a field for an injected part.

    A plain default would also be an attribute of the class. Flax's `ToNNX` treats such an attribute as a
    method, and then cannot store the variables of a submodule with the name of the field.
    """
    return dataclasses.field(default_factory=lambda: default)


def accurate_dtype(dtype: Any) -> Any:
    """Returns `dtype` or float32, whichever is wider: for sums of many values."""
    return jnp.promote_types(dtype, jnp.float32)


@dataclasses.dataclass(frozen=True)
class InitializerOf:
    """The initializer `maker(*arguments)`. Unlike JAX's, it compares and pickles by value."""

    maker: Callable[..., Initializer]
    arguments: tuple[Any, ...]

    def __call__(self, key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        """Returns initial values of this shape."""
        return self.maker(*self.arguments)(key, shape, dtype)


def _fan_in_uniform(fan_in: int) -> Initializer:
    def init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
        bound = fan_in**-0.5
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return init


def fan_in_uniform(fan_in: int) -> Initializer:
    """Uniform in `+-1 / sqrt(fan_in)`: PyTorch's default for kernels and biases."""
    return InitializerOf(_fan_in_uniform, (fan_in,))


def normal(stddev: float) -> Initializer:
    """Normal with this standard deviation."""
    return InitializerOf(nn.initializers.normal, (stddev,))


def _variance_scaling(*arguments: Any) -> Initializer:
    return InitializerOf(nn.initializers.variance_scaling, arguments)


# Kaiming normal with fan_out, not truncated: the initial values of ResNet, VGG and MobileNet-v2. JAX computes
# the fan of [k, k, C / groups, F] as k^2 F, like PyTorch, also for grouped convolutions.
kaiming_normal_fan_out = _variance_scaling(2.0, "fan_out", "normal")
kaiming_normal_fan_in = _variance_scaling(2.0, "fan_in", "normal")
lecun_normal = _variance_scaling(1.0, "fan_in", "truncated_normal")  # the default of Flax's layers

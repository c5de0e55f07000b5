"""Normalisation layers over NHWC maps, with one call signature: `norm(x, train=...)`.

Whether a norm keeps shift equivariance: statistics over channels at each pixel ("channel") are a
pointwise non-linearity and alias; statistics over the whole map ("spatial", "batch", "instance",
"group") do not.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ShapeError
from aliasfree_jax.layers.layer import Layer, accurate_dtype
from aliasfree_jax.ops.shapes import check_images

_EPSILON = 1e-5  # of batch, instance and group norms


class ChannelNorm(Layer):
    """Layer norm over the channels of each pixel (ConvNeXt; type "C" of alias_free_convnets)."""

    epsilon: float = 1e-6
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[..., C] to [..., C]."""
        return _layer_norm(self, x, -1)


class SpatialNorm(Layer):
    """Alias-free layer norm (type "CHW2"): mean over channels at each pixel, one variance a sample.

    The variance is the mean over channels and positions of the centred squares, a number that no
    shift changes; so the layer is linear but for one scalar. Michaeli et al. 2023, section 3.3.
    """

    epsilon: float = 1e-6
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[N, H, W, C] to [N, H, W, C]."""
        check_images(x)
        return _layer_norm(self, x, (1, 2, 3))


def _layer_norm(of: ChannelNorm | SpatialNorm, x: jax.Array, axes: int | tuple[int, ...]) -> jax.Array:
    """`x` less its mean over channels, by the deviation over these axes; with the parameters of `of`."""
    x = of.cast(x)
    scale, bias = _scale_and_bias(of, x.shape[-1])
    accurate = x.astype(accurate_dtype(x.dtype))
    centred = accurate - jnp.mean(accurate, axis=-1, keepdims=True)
    variance = jnp.mean(centred**2, axis=axes, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + of.epsilon) * scale + bias).astype(x.dtype)


def _scale_and_bias(of: Any, channels: int) -> tuple[jax.Array, jax.Array]:
    scale = of.param("scale", of.scale_init, (channels,), of.param_dtype)
    return scale, of.param("bias", nn.initializers.zeros, (channels,), of.param_dtype)


def _as_flax(of: Any) -> dict[str, Any]:
    """Fields of the norm of Flax that `of` is made of."""
    fields = {name: getattr(of, name) for name in ("dtype", "param_dtype", "scale_init")}
    # The "fast" variance E[x^2] - E[x]^2 loses all digits where the mean is large.
    return {**fields, "epsilon": _EPSILON, "use_fast_variance": False, "name": "norm"}


class BatchNorm(Layer):
    """Batch norm with PyTorch's constants: momentum 0.1 there is 0.9 here, epsilon 1e-5.

    Under `jit` over a mesh the statistics are those of the global batch. With a `group`, every so many
    consecutive images have statistics of their own ("ghost" batch norm, Hoffer et al. 2017, arXiv
    1705.08741): with the images of a device, what PyTorch's data-parallel training computes, but for the
    running statistics, which are the mean over all groups there are and not those of the first device. No
    device then waits for others, and the number of devices does not change the result. PyTorch's running
    variance is the unbiased one, n / (n - 1) times ours: it differs in training only.

    Attributes:
      group: images with common statistics in training; 0: all of the (micro-)batch.
      momentum: of the running statistics, in Flax's convention.
    """

    scale_init: nn.initializers.Initializer = nn.initializers.ones
    group: int = 0
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[N, H, W, C] to [N, H, W, C]; running statistics in the collection "batch_stats".

        Raises:
          ShapeError: in training, N is no multiple of `group`.
        """
        check_images(x)
        if self.group and train:
            return _GroupedBatchNorm(
                self.group, self.momentum, self.scale_init, **self.numerics, name="norm"
            )(self.cast(x))
        return nn.BatchNorm(momentum=self.momentum, **_as_flax(self))(x, use_running_average=not train)


class _GroupedBatchNorm(Layer):
    """The training half of `BatchNorm` with groups, with the variables of flax's `nn.BatchNorm`."""

    group: int
    momentum: float
    scale_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        images, *_, channels = x.shape
        if images % self.group:
            raise ShapeError(
                f"batch norm with group = {self.group} cannot divide {images} images: let the group divide "
                "the images of a micro-batch, better those of each device."
            )
        scale, bias = _scale_and_bias(self, channels)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,))
        running_variance = self.variable("batch_stats", "var", jnp.ones, (channels,))
        accurate = x.astype(accurate_dtype(x.dtype))
        grouped = accurate.reshape(images // self.group, self.group, *x.shape[1:])
        mean = jnp.mean(grouped, axis=(1, 2, 3), keepdims=True)
        variance = jnp.mean((grouped - mean) ** 2, axis=(1, 2, 3), keepdims=True)
        if not self.is_initializing():
            for running, now in ((running_mean, mean), (running_variance, variance)):
                running.value = self.momentum * running.value + (1 - self.momentum) * now.mean((0, 1, 2, 3))
        normal = (grouped - mean) * jax.lax.rsqrt(variance + _EPSILON)
        return (normal.reshape(x.shape) * scale + bias).astype(x.dtype)


class InstanceNorm(Layer):
    """Normalises each channel of each sample over its positions; no parameters, epsilon 1e-5."""

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[N, H, W, C] to [N, H, W, C]."""
        check_images(x)
        x = self.cast(x)
        accurate: Any = x.astype(accurate_dtype(x.dtype))
        centred = accurate - jnp.mean(accurate, axis=(1, 2), keepdims=True)
        variance = jnp.mean(centred**2, axis=(1, 2), keepdims=True)
        return (centred * jax.lax.rsqrt(variance + _EPSILON)).astype(x.dtype)


class GroupNorm(Layer):
    """Normalises groups of neighbouring channels over their positions, epsilon 1e-5."""

    num_groups: int
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """[N, H, W, C] to [N, H, W, C].

        Raises:
          ShapeError: C is no multiple of `num_groups`.
        """
        check_images(x)
        if self.num_groups < 1 or x.shape[-1] % self.num_groups:
            raise ShapeError(
                f"a group norm with num_groups = {self.num_groups} cannot divide {x.shape[-1]} channels: let "
                "it divide the channels of every layer."
            )
        return nn.GroupNorm(self.num_groups, **_as_flax(self))(x)

"""Normalisation layers for NHWC maps, all called as `norm(x, train=...)`.

A norm with statistics over the channels of each pixel ("channel") is a pointwise non-linearity and aliases.
Norms with statistics over the whole map ("spatial", "position", "batch", "bounded_batch", "instance",
"group") do not.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ShapeError
from aliasfree_jax.layers.layer import Layer, accurate_dtype
from aliasfree_jax.ops.shapes import check_images

_EPSILON = 1e-5  # batch, instance and group norms


class ChannelNorm(Layer):
    """Layer norm over the channels of each pixel. It aliases.

    It commutes with shifts by whole pixels.

    Attributes:
      epsilon: added to the variance.
      scale_init: initializer of the scale.

    Source: Ba et al. 2016 (arXiv 1607.06450), as in ConvNeXt (Liu et al. 2022, arXiv 2201.03545); type "C"
    of `alias_free_convnets`.
    """

    epsilon: float = 1e-6
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[..., C]` to `[..., C]`. `train` has no effect."""
        return _layer_norm(self, x, -1)


class SpatialNorm(Layer):
    """Alias-free layer norm: mean over the channels at each pixel, one variance per image.

    The variance is the mean of the centred squares over channels and positions. No shift changes this
    number. So the layer is linear, except for one scalar per image, and commutes with fractional shifts.

    Attributes:
      epsilon: added to the variance.
      scale_init: initializer of the scale.

    Source: Michaeli et al. 2023 (arXiv 2303.08085), section 3.3; type "CHW2" of its code.
    """

    epsilon: float = 1e-6
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C]` to `[N, H, W, C]`. `train` has no effect."""
        check_images(x)
        return _layer_norm(self, x, (1, 2, 3))


class PositionNorm(Layer):
    """Alias-free layer norm: mean over the positions for each channel, one variance per image.

    The variance is the mean of the centred squares over channels and positions. The layer commutes with
    fractional shifts, like `SpatialNorm`, from which it differs only in the mean.

    Attributes:
      epsilon: added to the variance.
      scale_init: initializer of the scale.

    Source: Michaeli et al. 2025 (arXiv 2510.22673), "layer_af" of its code.

    Differs from the paper: the paper's text has the mean over channels. Its code and weights have this one.
    """

    epsilon: float = 1e-6
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, token: jax.Array | None = None, *, train: bool = False) -> Any:
        """`[N, H, W, C]` to `[N, H, W, C]`. `train` has no effect.

        With a `token` `[N, 1, 1, C]`, which counts as one more position, it returns the map and the token.
        """
        check_images(x)
        x = self.cast(x)
        scale, bias = _scale_and_bias(self, x.shape[-1])
        parts = [part.astype(accurate_dtype(x.dtype)) for part in (x, token) if part is not None]
        positions = sum(part.shape[1] * part.shape[2] for part in parts)

        def mean(values: list[jax.Array]) -> Any:
            return sum(jnp.sum(part, axis=(1, 2), keepdims=True) for part in values) / positions

        centre = mean(parts)
        centred = [part - centre for part in parts]
        variance = jnp.mean(mean([part**2 for part in centred]), axis=-1, keepdims=True)
        factor = jax.lax.rsqrt(variance + self.epsilon)
        normed = [(part * factor * scale + bias).astype(x.dtype) for part in centred]
        return normed[0] if token is None else tuple(normed)


def _layer_norm(of: ChannelNorm | SpatialNorm, x: jax.Array, axes: int | tuple[int, ...]) -> jax.Array:
    """Subtracts the mean over channels and divides by the deviation over `axes`; parameters of `of`."""
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
    """Returns the fields of the Flax norm that implements `of`."""
    fields = {name: getattr(of, name) for name in ("dtype", "param_dtype", "scale_init")}
    # The "fast" variance E[x^2] - E[x]^2 loses all digits where the mean is large.
    return {**fields, "epsilon": _EPSILON, "use_fast_variance": False, "name": "norm"}


class BatchNorm(Layer):
    """Batch norm with PyTorch's constants: momentum 0.1 there is 0.9 here, epsilon is 1e-5.

    Under `jit` over a mesh, the statistics are those of the global batch. With `group`, each group of
    consecutive images has separate statistics ("ghost" batch norm). With the images of one device as a
    group, this is PyTorch's data-parallel training. Only the running statistics differ: here they average
    all groups, in PyTorch they are those of the first device. Devices then do not wait for each other, and
    their number does not change the result.

    PyTorch's running variance is unbiased: n / (n - 1) times the running variance here. The difference
    occurs in training only.

    Attributes:
      scale_init: initializer of the scale.
      group: number of images that share statistics in training. 0: the whole (micro-)batch.
      momentum: momentum of the running statistics, in Flax's convention.

    Source: Ioffe & Szegedy 2015 (arXiv 1502.03167); groups: Hoffer et al. 2017 (arXiv 1705.08741).
    """

    scale_init: nn.initializers.Initializer = nn.initializers.ones
    group: int = 0
    momentum: float = 0.9

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C]` to `[N, H, W, C]`; running statistics are in the collection `"batch_stats"`.

        Args:
          train: uses the statistics of the batch and updates the running ones.

        Raises:
          ShapeError: N is not a multiple of `group` in training.
        """
        check_images(x)
        if self.group and train:
            return _GroupedBatchNorm(
                self.group, self.momentum, self.scale_init, **self.numerics, name="norm"
            )(x)
        return nn.BatchNorm(momentum=self.momentum, **_as_flax(self))(x, use_running_average=not train)


class BoundedBatchNorm(BatchNorm):
    """Batch norm of maps that are first divided by their root mean square, one number for each image.

    A batch norm alone does not bound single images, and products of unbounded maps overflow. This one is for
    gates and polynomials, which multiply maps. The mean square is taken over positions and channels, and no
    shift changes it: the layer commutes with fractional shifts. Its fields and variables are those of
    `BatchNorm`, and epsilon is added to both squares.

    Source: this package; the division is that of Zhang & Sennrich 2019 (arXiv 1910.07467), for whole images.
    """

    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """See `BatchNorm`."""
        check_images(x)
        x = self.cast(x)
        accurate: Any = x.astype(accurate_dtype(x.dtype))
        square = jnp.mean(accurate**2, axis=(1, 2, 3), keepdims=True)
        normed = super().__call__(accurate * jax.lax.rsqrt(square + _EPSILON), train=train)
        return normed.astype(x.dtype)


class _GroupedBatchNorm(Layer):
    """`BatchNorm` with groups in training, with the variables of Flax's `nn.BatchNorm`."""

    group: int
    momentum: float
    scale_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        dtype, (images, *_, channels) = self.cast(x).dtype, x.shape
        if images % self.group:
            raise ShapeError(
                f"batch norm with group = {self.group} cannot divide {images} images into groups: "
                "choose a group that divides the images of a micro-batch, or better those of each device."
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
        return (normal.reshape(x.shape) * scale + bias).astype(dtype)


class InstanceNorm(Layer):
    """Normalises each channel of each image over its positions.

    It has no parameters; epsilon is 1e-5. It commutes with fractional shifts.

    Source: Ulyanov et al. 2016 (arXiv 1607.08022), as PyTorch's `InstanceNorm2d`.
    """

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C]` to `[N, H, W, C]`. `train` has no effect."""
        check_images(x)
        x = self.cast(x)
        accurate: Any = x.astype(accurate_dtype(x.dtype))
        centred = accurate - jnp.mean(accurate, axis=(1, 2), keepdims=True)
        variance = jnp.mean(centred**2, axis=(1, 2), keepdims=True)
        return (centred * jax.lax.rsqrt(variance + _EPSILON)).astype(x.dtype)


class GroupNorm(Layer):
    """Normalises groups of neighbouring channels over their positions; epsilon is 1e-5.

    It commutes with fractional shifts.

    Attributes:
      num_groups: number of groups. It must divide the channels.
      scale_init: initializer of the scale.

    Source: Wu & He 2018 (arXiv 1803.08494).
    """

    num_groups: int
    scale_init: nn.initializers.Initializer = nn.initializers.ones

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        """`[N, H, W, C]` to `[N, H, W, C]`. `train` has no effect.

        Raises:
          ShapeError: C is not a multiple of `num_groups`.
        """
        check_images(x)
        if self.num_groups < 1 or x.shape[-1] % self.num_groups:
            raise ShapeError(
                f"a group norm with num_groups = {self.num_groups} cannot divide {x.shape[-1]} channels: "
                "choose a number that divides the channels of every layer."
            )
        return nn.GroupNorm(self.num_groups, **_as_flax(self))(x)

"""Base class of all networks: checks of images, names of stages, pooling and the head."""

import dataclasses
from typing import Any, Literal

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.layers.layer import Initializer, Layer, accurate_dtype, fan_in_uniform
from aliasfree_jax.layers.sampling import Phase
from aliasfree_jax.ops.shapes import check_images

GlobalPool = Literal["mean", "max", ""]

_POOLS: dict[str, Any] = {"mean": jnp.mean, "max": jnp.max}


@flax.struct.dataclass
class Stage:
    """The output map of one stage of a network.

    Attributes:
      map: the map `[N, H / stride, W / stride, C]`.
      stride: pixels of the image per sample of the map.
      phase: phase at which the image was sampled on the way to this map, for a decoder. None: nothing was
        chosen, or the stage is one of `Network.stages`.

    Source: this package.
    """

    map: jax.Array
    stride: int = flax.struct.field(pytree_node=False)
    phase: Phase = None


class Network(Layer):
    """Base class of all networks: images `[N, H, W, channels]` to logits `[N, num_classes]`.

    Logits are float32 (float64 for float64 images). The map of every stage is sown as "stage0", "stage1"
    and so on in the collection "intermediates". The map that is pooled is sown as "features".

    Attributes:
      num_classes: number of classes. 0: the network returns the pooled features instead of logits.
      global_pool: how the last map becomes one vector: the "mean" or "max" of each channel. VGG and AlexNet
        pool to a small map instead, with the mean or max of each bin. "" returns the map itself and needs
        `num_classes=0`.

    Source: this package.
    """

    num_classes: int = 1000
    global_pool: GlobalPool = dataclasses.field(default="mean", kw_only=True)

    def __post_init__(self) -> None:
        """Checks the fields.

        Raises:
          ConfigError: `num_classes` is negative, or `global_pool` is "" with a head.
        """
        if self.num_classes < 0:
            raise ConfigError(f"num_classes must be at least 0 (0 returns features), got {self.num_classes}.")
        if self.global_pool == "" and self.num_classes > 0:
            raise ConfigError(
                'global_pool="" returns the last map, which a head cannot classify: use num_classes=0.'
            )
        super().__post_init__()

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """Pixels of the image per sample of the map, for every stage."""
        raise NotImplementedError

    @property
    def total_stride(self) -> int:
        """Pixels of the image per sample of the last map."""
        return self.stage_strides[-1]

    @property
    def smallest_side(self) -> int:
        """Smallest allowed side of an image, in pixels."""
        return self.total_stride

    @nn.nowrap
    def stages(self, variables: Any, images: jax.Array, **options: Any) -> list[Stage]:
        """Returns the maps of all stages with their strides, like `features_only` in timm, without phases.

        Args:
          variables: variables of the network.
          images: `[N, H, W, channels]`.
          options: options of the call, such as `temperature` and `rngs`.
        """
        _, sown = self.apply(variables, images, mutable=["intermediates"], **options)
        maps = sown["intermediates"]
        return [Stage(maps[f"stage{i}"][-1], stride) for i, stride in enumerate(self.stage_strides)]

    @nn.nowrap
    def prepared(self, images: jax.Array) -> jax.Array:
        """Returns the images in the network's `dtype`.

        Raises:
          ShapeError: the images are not floating-point `[N, H, W, C]` (`[N, C, H, W]` is detected), or too
            small.
        """
        check_images(images)
        count, height, width, channels = images.shape
        if height in (1, 3) and channels > 4:
            raise ShapeError(
                f"expected images [N, H, W, C], got {list(images.shape)}, which looks like PyTorch's "
                f"[N, C, H, W]. Pass [{count}, {width}, {channels}, {height}]: images.transpose(0, 2, 3, 1)."
            )
        if min(height, width) < self.smallest_side:
            raise ShapeError(
                f"images of {height} x {width} are too small: this network samples them by "
                f"{self.total_stride} in all. Use images of at least {self.smallest_side} pixels, or a "
                "network with fewer stages or strides (those named micro and cifar are made for 32 pixels)."
            )
        return self.cast(images)

    @nn.nowrap
    def pooled(self, x: jax.Array) -> jax.Array:
        """Sows the last map `[N, h, w, C]` and pools it by `global_pool`, in at least float32."""
        self.sow("intermediates", "features", x)
        x = x.astype(accurate_dtype(x.dtype))
        y: jax.Array = x if self.global_pool == "" else _POOLS[self.global_pool](x, axis=(1, 2))
        return y

    @nn.nowrap
    def dense(
        self,
        x: jax.Array,
        features: int,
        name: str,
        kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
    ) -> jax.Array:
        """A linear layer, by default with PyTorch's initial values.

        Call it in the module's compact method.
        """
        default = fan_in_uniform(x.shape[-1])
        layer = nn.Dense(
            features,
            kernel_init=kernel_init or default,
            bias_init=bias_init or default,
            param_dtype=self.param_dtype,
            precision=self.precision,
            name=name,
        )
        return layer(x)

    @nn.nowrap
    def classified(
        self,
        pooled: jax.Array,
        kernel_init: Initializer | None = None,
        bias_init: Initializer | None = None,
    ) -> jax.Array:
        """Returns logits of pooled features `[N, C]`, or the features if `num_classes` is 0. See `dense`."""
        if self.num_classes == 0:
            return pooled
        logits = self.dense(pooled, self.num_classes, "head", kernel_init, bias_init)
        return logits.astype(accurate_dtype(pooled.dtype))

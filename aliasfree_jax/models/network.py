"""What all networks have in common: how they take images, name their stages and end in a linear layer."""

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
    """The map [N, H / stride, W / stride, C] that a stage of a network ends with.

    Attributes:
      phase: that the image was sampled at on the way there, for a decoder; None where nothing was chosen.
    """

    map: jax.Array
    stride: int = flax.struct.field(pytree_node=False)
    phase: Phase = None


class Network(Layer):
    """Images [N, H, W, channels] to class logits [N, num_classes], in float32 (float64 for float64 images).

    Attributes:
      num_classes: 0 for the pooled features that the last linear layer would take.
      global_pool: how the last map becomes one vector: by the "mean" or the "max" of each channel (VGG's and
        AlexNet's linear layers take a small map: of each of its bins); "" for the map, with num_classes=0.

    The map of every stage is sown as "stage0", "stage1", ... in the collection "intermediates", the one
    that is pooled as "features".
    """

    num_classes: int = 1000
    global_pool: GlobalPool = dataclasses.field(default="mean", kw_only=True)

    def __post_init__(self) -> None:
        """Raises `ConfigError` for values that fit no network."""
        if self.num_classes < 0:
            raise ConfigError(
                f"num_classes is a number of classes, or 0 for features, got {self.num_classes}."
            )
        if self.global_pool == "" and self.num_classes > 0:
            raise ConfigError('global_pool="" gives the last map, which no head can take: use num_classes=0.')
        super().__post_init__()

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """Pixels of the image for each of the map, in every stage."""
        raise NotImplementedError

    @property
    def total_stride(self) -> int:
        """Pixels of the image for each of the last map."""
        return self.stage_strides[-1]

    @property
    def smallest_side(self) -> int:
        """Pixels that an image needs on each side."""
        return self.total_stride

    @nn.nowrap
    def stages(self, variables: Any, images: jax.Array, **options: Any) -> list[Stage]:
        """The maps of all stages with their strides, as timm's `features_only` gives them.

        Args:
          options: of the call, `temperature` say, and `rngs`.
        """
        _, sown = self.apply(variables, images, mutable=["intermediates"], **options)
        maps = sown["intermediates"]
        return [Stage(maps[f"stage{i}"][0], stride) for i, stride in enumerate(self.stage_strides)]

    @nn.nowrap
    def prepared(self, images: jax.Array) -> jax.Array:
        """The images in the network's `dtype`.

        Raises:
          ShapeError: not floating-point [N, H, W, C] ([N, C, H, W] is seen), or too small.
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
        """The last map [N, h, w, C] as `global_pool` has it, in float32 at least; the map is sown."""
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
        """A linear layer, by default with PyTorch's initial values; for use in the one compact method."""
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
        """Logits of pooled features [N, C]; the features themselves with num_classes=0. See `dense`."""
        if self.num_classes == 0:
            return pooled
        logits = self.dense(pooled, self.num_classes, "head", kernel_init, bias_init)
        return logits.astype(accurate_dtype(pooled.dtype))

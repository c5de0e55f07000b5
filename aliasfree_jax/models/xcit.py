"""XCiT (El-Nouby et al. 2021, arXiv 2106.09681) with injected parts.

A vision transformer with attention over channels. One network class covers the original, its circular and
adaptive polyphase variants, the Alias-Free ViT and the exact gated network (`XCITS`).
"""

import functools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.activation import Gelu, Identity
from aliasfree_jax.layers.attention import ClassAttention, CrossCovarianceAttention
from aliasfree_jax.layers.batching import Remat
from aliasfree_jax.layers.block import DropPath
from aliasfree_jax.layers.layer import Factory, Layer, ModuleFactory, accurate_dtype, normal, part
from aliasfree_jax.layers.mlp import Mlp, MlpGrid, hidden_width
from aliasfree_jax.layers.normalization import BatchNorm, ChannelNorm, PositionNorm
from aliasfree_jax.layers.patches import FourierPositions, LocalPatchInteraction, PatchStem
from aliasfree_jax.layers.sampling import SamplerFactory, Subsample, Temperature
from aliasfree_jax.models.family import Family, Options
from aliasfree_jax.models.network import Network
from aliasfree_jax.models.parts import with_cutoff
from aliasfree_jax.ops.padding import Padding

_INIT = normal(0.02)


def _scaled(of: Any, name: str, *maps: jax.Array) -> tuple[jax.Array, ...]:
    """Multiplies maps by the learned layer scale `name` of the module `of`."""
    init = nn.initializers.constant(of.layer_scale_init)
    scale = of.param(name, init, (maps[0].shape[-1],), of.param_dtype)
    return tuple(x * scale.astype(x.dtype) for x in maps)


class Block(Layer):
    """Adds attention, local patch interaction and MLP in turn, each on a normed map.

    It maps `[N, H, W, C]` to `[N, H, W, C]`.
    """

    attention: ModuleFactory
    interaction: ModuleFactory
    mlp: ModuleFactory
    norm: ModuleFactory
    drop_path_rate: float
    layer_scale_init: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the sum of `x` and its branches."""

        def normed(name: str) -> jax.Array:
            y: jax.Array = self.norm(**self.numerics, name=f"{name}_norm")(x, train=train)
            return y

        def added(y: jax.Array, name: str) -> jax.Array:
            (y,) = _scaled(self, f"{name}_scale", y)
            return x + DropPath(self.drop_path_rate, name=f"{name}_drop_path")(y, train=train)

        attention = self.attention(**self.numerics, name="attention")
        interaction = self.interaction(**self.numerics, name="interaction")
        x = added(attention(normed("attention")), "attention")
        x = added(interaction(normed("interaction"), train=train), "interaction")
        return added(self.mlp(**self.numerics, name="mlp")(normed("mlp")), "mlp")


class ClassBlock(Layer):
    """Updates a class token from a map.

    The MLP's sum reaches the token only. The map is doubled, as in the original.

    Attributes:
      normed_tokens: what the second norm replaces: "all", or "class" for the token only.
    """

    attention: ModuleFactory
    norm: ModuleFactory
    mlp: ModuleFactory
    normed_tokens: Literal["all", "class"]
    layer_scale_init: float

    @nn.compact
    def __call__(self, x: jax.Array, token: jax.Array, train: bool) -> tuple[jax.Array, jax.Array]:
        """Returns the new map `[N, H, W, C]` and token `[N, 1, 1, C]`."""

        def normed(name: str, x: jax.Array, token: jax.Array) -> tuple[jax.Array, jax.Array]:
            norm: Any = self.norm(**self.numerics, name=name)
            if isinstance(norm, PositionNorm):
                both: tuple[jax.Array, jax.Array] = norm(x, token)
                return both
            return norm(x, train=train), norm(token, train=train)

        scaled = functools.partial(_scaled, self)
        attention: Any = self.attention(**self.numerics, name="attention")
        y, summary = scaled("attention_scale", *attention(*normed("attention_norm", x, token)))
        x, token = x + y, token + summary
        x_normed, token = normed("mlp_norm", x, token)
        x = x_normed if self.normed_tokens == "all" else x
        (branch,) = scaled("mlp_scale", self.mlp(**self.numerics, name="mlp")(token))
        return 2 * x, token + branch


class XCiT(Network):
    """XCiT: classifies images `[N, H, W, channels]`, logits `[N, num_classes]`, float32.

    Variables are in "params", and in "batch_stats" with a batch norm. Training draws from the rng stream
    "drop_path", and from "gumbel" if the sampler is learned.

    Attributes:
      num_classes: see `Network`.
      width: channels.
      depth: number of blocks.
      num_heads: number of heads of every attention.
      patch_size: total stride, a power of 2.
      patch_stem: the stem: `layers.PatchStem`, `ActivatedPatchStem` or `FirstActivatedPatchStem`.
      sampler: sampler of the stem.
      activation: activation of the MLPs of the blocks.
      local_activation: activation of the local patch interaction. None: `activation`.
      stem_activation: activation of the stem. None: `activation`.
      stem_first_activation: activation of the stem's first stage. None: `stem_activation`.
      stem_last_activation: activation of the stem's last stage. None: `stem_activation`.
      norm: norm of the blocks and class blocks.
      conv_norm: norm of the stem and of the local patch interaction.
      padding: padding of all convolutions.
      positions: layer that adds the positions to the map. None: no positions.
      class_attention: attention of the class blocks, which collect the map into a class token. None: the
        map is pooled by `global_pool` instead, without class blocks.
      class_blocks: number of class blocks.
      normed_tokens: see `ClassBlock`.
      drop_path_rate: drop path rate of every block.
      layer_scale_init: initial gain of the residual branches.
      mlp_ratio: hidden channels of the MLPs per channel, see `ConvNeXt`.
      mlp_grid: see `layers.Mlp`.
      remat: see `ConvNeXt`.

    Source: El-Nouby et al. 2021 (arXiv 2106.09681); alias-free: Michaeli et al. 2025 (arXiv 2510.22673); the
    gated network is this package's.
    """

    num_classes: int = 1000
    width: int = 128
    depth: int = 12
    num_heads: int = 4
    patch_size: int = 16
    patch_stem: ModuleFactory = part(PatchStem)
    sampler: SamplerFactory = part(Subsample)
    activation: ModuleFactory = part(Gelu)
    local_activation: ModuleFactory | None = None
    stem_activation: ModuleFactory | None = None
    stem_first_activation: ModuleFactory | None = None
    stem_last_activation: ModuleFactory | None = part(Identity)
    norm: ModuleFactory = part(ChannelNorm)
    conv_norm: ModuleFactory = part(BatchNorm)
    padding: Padding = "ZERO"
    positions: ModuleFactory | None = part(FourierPositions)
    class_attention: ModuleFactory | None = part(ClassAttention)
    class_blocks: int = 2
    normed_tokens: Literal["all", "class"] = "all"
    drop_path_rate: float = 0.0
    layer_scale_init: float = 1.0
    mlp_ratio: float = 4.0
    mlp_grid: MlpGrid = "auto"
    remat: Remat = "auto"

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """See `Network`. The blocks are one stage."""
        return (self.patch_size,)

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, temperature: Temperature = 1.0
    ) -> jax.Array:
        """Returns class logits in float32 (float64 for float64 images).

        The last map is sown as "features" in the collection "intermediates".

        Args:
          images: floating-point `[N, H, W, channels]`.
          train: uses and updates batch statistics, and draws random numbers.
          temperature: temperature of learned samplers in training.

        Raises:
          ShapeError: the images are not floating-point `[N, H, W, C]`, or too small.
          ConfigError: the heads or the stages of the stem do not fit the width.
        """
        x = self._stem()(self.prepared(images), train=train, temperature=temperature)
        if self.positions is not None:
            x = self.positions(**self.numerics, name="positions")(x)
        attention = Factory(CrossCovarianceAttention, num_heads=self.num_heads)
        local = Factory(
            LocalPatchInteraction,
            activation=self.local_activation or self.activation,
            norm=self.conv_norm,
            padding=self.padding,
        )
        parts = (attention, local, self._mlp(self.activation), self.norm)
        block_type = nn.remat(Block, static_argnums=(2,)) if self.remat == "block" else Block
        for block in range(self.depth):
            fields = (*parts, self.drop_path_rate, self.layer_scale_init)
            x = block_type(*fields, **self.numerics, name=f"block{block}")(x, train)
        self.sow("intermediates", "stage0", x)
        pooled = self.pooled(x) if self._pools() else self._class_features(x, train)
        return self.classified(pooled, _INIT, nn.initializers.zeros)

    def _pools(self) -> bool:
        return self.class_attention is None or self.global_pool == ""

    def _stem(self) -> Any:
        activation = self.stem_activation or self.activation
        return self.patch_stem(
            width=self.width,
            sampler=self.sampler,
            activation=activation,
            norm=self.conv_norm,
            padding=self.padding,
            patch_size=self.patch_size,
            first_activation=self.stem_first_activation,
            last_activation=self.stem_last_activation,
            **self.numerics,
            name="stem",
        )

    def _mlp(self, activation: ModuleFactory) -> ModuleFactory:
        hidden = hidden_width(self.width, activation, self.mlp_ratio)
        fields: dict[str, Any] = {"activation": activation, "grid": self.mlp_grid, "remat": self.remat}
        return Factory(Mlp, hidden=hidden, kernel_init=_INIT, **fields)

    def _class_features(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the normed class token `[N, C]`, in at least float32."""
        assert self.class_attention is not None
        self.sow("intermediates", "features", x)
        width = x.shape[-1]
        token = self.param("class_token", _INIT, (width,), self.param_dtype).astype(x.dtype)
        token = jnp.broadcast_to(token, (x.shape[0], 1, 1, width))
        attention = Factory(self.class_attention, num_heads=self.num_heads)
        # The MLP sees the class token only, which does not move: GELU cannot alias there.
        parts = (attention, self.norm, self._mlp(Gelu), self.normed_tokens, self.layer_scale_init)
        for block in range(self.class_blocks):
            x, token = ClassBlock(*parts, **self.numerics, name=f"class_block{block}")(x, token, train)
        norm = ChannelNorm(param_dtype=self.param_dtype, precision=self.precision, name="norm")
        features: jax.Array = norm(token[:, 0, 0].astype(accurate_dtype(x.dtype)))
        return features


def _sizes() -> dict[str, Options]:
    widths = {"nano": (128, 4), "tiny": (192, 4), "small": (384, 8), "medium": (512, 8), "large": (768, 16)}
    depths = {12: ("nano", "tiny", "small"), 24: ("tiny", "small", "medium", "large")}
    sizes: dict[str, Options] = {
        f"{name}_{depth}_p{patch}": {
            "width": widths[name][0],
            "depth": depth,
            "num_heads": widths[name][1],
            "patch_size": patch,
            "layer_scale_init": 1.0 if depth == 12 else 1e-5,
        }
        for patch in (16, 8)
        for depth, names in depths.items()
        for name in names
    }
    # This package's, for images of about 32 pixels.
    sizes["micro"] = {"width": 64, "depth": 4, "num_heads": 4, "patch_size": 4}
    sizes["cifar"] = {"width": 128, "depth": 6, "num_heads": 4, "patch_size": 4}
    return sizes


SIZES = _sizes()
_CIRCULAR: Options = {"padding": "CIRCULAR", "positions": None}
_ALIAS_FREE: Options = {
    **_CIRCULAR,
    "sampler": "ideal",
    "norm": "position",
    "class_attention": "cross_covariance",
    "precision": "highest",
}
VARIANTS: dict[str, Options] = {
    # The same with circular padding and without positions: the baseline of the variants below. It aliases.
    "xcit_circular": _CIRCULAR,
    # Adaptive polyphase sampling: exact for integer shifts.
    "xcit_aps": {**_CIRCULAR, "patch_stem": "activated", "sampler": "polyphase"},
    # The Alias-Free ViT. Its GELU still aliases.
    "xcit_aft": {
        **_ALIAS_FREE,
        "patch_stem": "activated",
        "activation": "up_gelu",
        "stem_last_activation": None,
    },
    # Products instead of GELU: exact for every shift. Source: this package.
    "xcit_afg": {
        **_ALIAS_FREE,
        "patch_stem": "first_activated",
        "activation": "up_gate",
        "stem_activation": "lowpass_gate",
        "stem_first_activation": "bandlimited_gate",
    },
}


def _completed(options: dict[str, Any]) -> dict[str, Any]:
    """Adds the stem's cutoff, and checks what `Family` does not check."""
    if options.get("mlp_ratio", 4.0) <= 0:
        raise ConfigError(f"mlp_ratio must be positive, got {options['mlp_ratio']}.")
    if options.get("global_pool") == "max" and options.get("class_attention", "class") is not None:
        raise ConfigError(
            'global_pool="max" needs class_attention=None: the class token of this network replaces pooling.'
        )
    names = ("stem_activation", "stem_first_activation")
    return {**options, **{name: with_cutoff(options.get(name), 2) for name in names}}


XCITS = (
    # timm's nano networks norm the class token only.
    Family(
        XCiT,
        {
            name: {**size, "normed_tokens": "class"} if name.startswith("nano") else size
            for name, size in SIZES.items()
        },
        {"xcit": {}},
        "{variant}_{size}",
        gated=True,
        completed=_completed,
    ),
    Family(XCiT, SIZES, VARIANTS, "{variant}_{size}", gated=True, completed=_completed),
)

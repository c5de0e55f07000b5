"""ConvNeXt (Liu et al. 2022, arXiv 2201.03545) with injected sampling, activation, norm and padding.

One network class covers all variants. Plain, circular, adaptive polyphase and alias-free ConvNeXts differ
only in their parts (`CONVNEXTS`).
"""

import itertools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.activation import Gelu
from aliasfree_jax.layers.batching import Remat
from aliasfree_jax.layers.block import DropPath
from aliasfree_jax.layers.convolution import DepthwiseConv
from aliasfree_jax.layers.layer import Factory, Initializer, Layer, ModuleFactory, normal, part
from aliasfree_jax.layers.mlp import Mlp, MlpGrid, hidden_width
from aliasfree_jax.layers.normalization import ChannelNorm
from aliasfree_jax.layers.sampled import SampledConv
from aliasfree_jax.layers.sampling import SamplerFactory, Subsample, Temperature
from aliasfree_jax.layers.stems import ActivatedStem
from aliasfree_jax.models.family import LEARNED_SCALES, Family, Options
from aliasfree_jax.models.network import Network
from aliasfree_jax.models.parts import PARTS, fields_of, with_cutoff
from aliasfree_jax.ops.padding import Padding, check_padding


class Block(Layer):
    """Residual block: `x + DropPath(layer_scale * Mlp(norm(depthwise(x))))`.

    It maps `[N, H, W, C]` to `[N, H, W, C]`.
    """

    depthwise: ModuleFactory
    norm: ModuleFactory
    mlp: ModuleFactory
    drop_path_rate: float
    layer_scale_init: float

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Returns the sum of `x` and its branch."""
        channels = x.shape[-1]
        y = self.depthwise(**self.numerics, name="depthwise")(x)
        y = self.norm(**self.numerics, name="norm")(y, train=train)
        y = self.mlp(**self.numerics, name="mlp")(y)
        if self.layer_scale_init > 0:
            init = nn.initializers.constant(self.layer_scale_init)
            layer_scale = self.param("layer_scale", init, (channels,), self.param_dtype)
            y = y * layer_scale.astype(y.dtype)
        return x + DropPath(self.drop_path_rate, name="drop_path")(y, train=train)


class ConvNeXt(Network):
    """ConvNeXt: classifies images `[N, H, W, channels]`, logits `[N, num_classes]`, float32.

    Variables are in "params", and in `"batch_stats"` with a batch norm. Training draws from the rng stream
    `"drop_path"`, and from "gumbel" if the sampler is learned.

    Attributes:
      num_classes: see `Network`.
      depths: number of blocks of each stage.
      widths: channels of each stage.
      sampler: sampler of the stem and between stages.
      activation: activation of the blocks.
      norm: norm of the blocks, after the stem and between stages.
      final_norm: norm before the head.
      final_norm_position: "pooled" for a norm of the pooled vector, "map" for a norm of the map before
        pooling (timm's `head_norm_first`). A norm over channels aliases on the map.
      padding: padding of the 7 x 7 depthwise convolutions.
      sampled_padding: padding of the convolutions of the stem and between stages. "VALID" means full
        windows only.
      stem_kernel: size of the stem's kernel: 4 for ImageNet.
      stem_stride: stride of the stem: 4 for ImageNet, less for small images.
      downsampled_stages: stages that begin with a downsampling convolution: the "later" ones, or "all",
        which adds one to the first stage after the stem (timm's `patch_size` of 2).
      stem_activation: activation of the stem, see `ActivatedStem`. None: no activation.
      stem_residual: see `ActivatedStem`.
      drop_path_rate: drop path rate of the last block. It grows linearly from 0 over the blocks.
      layer_scale_init: initial gain of the residual branches. 0 or less: no gains.
      mlp_ratio: hidden channels of the MLPs per channel of the map. Gated MLPs have 2/3 of this number and
        compute it twice.
      init_std: standard deviation of the normal initial weights.
      head_init_scale: factor on the initial weights of the head.
      mlp_grid: see `Mlp`.
      remat: what the gradient recomputes instead of storing: "none", "mlp" (stem and MLPs, whose hidden
        maps are the largest), "block" (also whole blocks), or "auto" (`layers.batching`).

    Source: Liu et al. 2022 (arXiv 2201.03545); alias-free variants: Michaeli et al. 2023 (arXiv
    2303.08085), section 3; with APS: Chaman & Dokmanic 2021 (arXiv 2011.14214).
    """

    num_classes: int = 1000
    depths: tuple[int, ...] = (3, 3, 9, 3)
    widths: tuple[int, ...] = (96, 192, 384, 768)
    sampler: SamplerFactory = part(Subsample)
    activation: ModuleFactory = part(Gelu)
    norm: ModuleFactory = part(ChannelNorm)
    final_norm: ModuleFactory = part(ChannelNorm)
    final_norm_position: Literal["pooled", "map"] = "pooled"
    padding: Padding = "ZERO"
    sampled_padding: Padding | Literal["VALID"] = "VALID"
    stem_kernel: int = 4
    stem_stride: int = 4
    downsampled_stages: Literal["later", "all"] = "later"
    stem_activation: ModuleFactory | None = None
    stem_residual: bool = False
    drop_path_rate: float = 0.0
    layer_scale_init: float = 1e-6
    mlp_ratio: float = 4.0
    init_std: float = 0.02
    head_init_scale: float = 1.0
    mlp_grid: MlpGrid = "auto"
    remat: Remat = "auto"

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
        """
        x = self.prepared(images)
        # The original truncates at an absolute 2, a hundred deviations, which never happens.
        kernel_init = normal(self.init_std)
        depthwise = Factory(DepthwiseConv, padding=self.padding, kernel_init=kernel_init)
        mlp_fields = {"activation": self.activation, "grid": self.mlp_grid, "remat": self.remat}
        rates = iter(np.linspace(0, self.drop_path_rate, sum(self.depths)).tolist())
        block_type = nn.remat(Block, static_argnums=(2,)) if self.remat == "block" else Block
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            if stage == 0:
                stem = self._stem(width, kernel_init)(**self.numerics, name="stem")
                x = stem(x, train=train, temperature=temperature)
                x = self.norm(**self.numerics, name="stem_norm")(x, train=train)
            if stage >= self.first_downsampled:
                x = self.norm(**self.numerics, name=f"downsample{stage}_norm")(x, train=train)
                fields = self._sampled(width, 2, 2, kernel_init)
                down = SampledConv(**fields, **self.numerics, name=f"downsample{stage}")
                x = down(x, train=train, temperature=temperature)
            hidden = hidden_width(width, self.activation, self.mlp_ratio)
            mlp = Factory(Mlp, hidden=hidden, kernel_init=kernel_init, **mlp_fields)
            for block in range(depth):
                parts = (depthwise, self.norm, mlp, next(rates), self.layer_scale_init)
                x = block_type(*parts, **self.numerics, name=f"stage{stage}_block{block}")(x, train)
            self.sow("intermediates", f"stage{stage}", x)
        return self._classify(x, kernel_init, train)

    def _sampled(self, width: int, kernel: int, stride: int, kernel_init: Initializer) -> dict[str, Any]:
        """Fields of a convolution with the sampler."""
        fields = {"features": width, "kernel_size": kernel, "strides": stride, "kernel_init": kernel_init}
        return fields | {"sampler": self.sampler, "padding": self.sampled_padding}

    def _stem(self, width: int, kernel_init: Initializer) -> ModuleFactory:
        fields = self._sampled(width, self.stem_kernel, self.stem_stride, kernel_init)
        if self.stem_activation is None:
            return Factory(SampledConv, **fields)
        fields |= {"activation": self.stem_activation, "residual": self.stem_residual}
        return Factory(ActivatedStem, **fields, remat=self.remat)

    def _classify(self, x: jax.Array, kernel_init: Initializer, train: bool) -> jax.Array:
        def head_init(key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.Array:
            return self.head_init_scale * kernel_init(key, shape, dtype)

        norm = self.final_norm(param_dtype=self.param_dtype, precision=self.precision, name="norm")
        if self.final_norm_position == "map":
            pooled = self.pooled(norm(x, train=train))
        else:
            pooled = norm(self.pooled(x), train=train)
        return self.classified(pooled, head_init, nn.initializers.zeros)

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """See `Network`."""
        return tuple(
            self.stem_stride * 2 ** (stage + 1 - self.first_downsampled) for stage in range(len(self.depths))
        )

    @property
    def first_downsampled(self) -> int:
        """The first of the `downsampled_stages`."""
        return 0 if self.downsampled_stages == "all" else 1

    @property
    def smallest_side(self) -> int:
        """Smallest side at which the padding of the 7 x 7 convolutions, 3, fits every stage's map."""
        least = {"CIRCULAR": 3, "REFLECT": 4}.get(self.padding, 1)
        return next(s for s in itertools.count(self.total_stride) if min(self.map_sides(s)) >= least)

    def map_sides(self, side: int) -> list[int]:
        """Returns the side of the map in each stage, for images of `side` pixels."""
        sampled = [(self.stem_stride, self.stem_kernel)]
        sampled += [(2, 2)] * (len(self.depths) - self.first_downsampled)
        sides = []
        for stride, kernel in sampled:
            side = (side - kernel) // stride + 1 if self.sampled_padding == "VALID" else -(-side // stride)
            sides.append(side)
        return sides[1 - self.first_downsampled :]


# Depths and widths of the papers. atto to nano and xxlarge are timm's. micro and cifar are this package's,
# for images of about 32 pixels.
SIZES: dict[str, Options] = {
    "atto": {"depths": (2, 2, 6, 2), "widths": (40, 80, 160, 320)},
    "femto": {"depths": (2, 2, 6, 2), "widths": (48, 96, 192, 384)},
    "pico": {"depths": (2, 2, 6, 2), "widths": (64, 128, 256, 512)},
    "nano": {"depths": (2, 2, 8, 2), "widths": (80, 160, 320, 640)},
    "tiny": {"depths": (3, 3, 9, 3), "widths": (96, 192, 384, 768)},
    "small": {"depths": (3, 3, 27, 3), "widths": (96, 192, 384, 768)},
    "base": {"depths": (3, 3, 27, 3), "widths": (128, 256, 512, 1024)},
    "large": {"depths": (3, 3, 27, 3), "widths": (192, 384, 768, 1536)},
    "xlarge": {"depths": (3, 3, 27, 3), "widths": (256, 512, 1024, 2048)},
    "xxlarge": {"depths": (3, 4, 30, 3), "widths": (384, 768, 1536, 3072)},
    "micro": {"depths": (2, 2), "widths": (32, 64), "stem_stride": 4, "layer_scale_init": 0.1},
    "cifar": {"depths": (2, 2, 2), "widths": (48, 96, 192), "stem_stride": 2, "layer_scale_init": 0.1},
}

_CIRCULAR = {"padding": "CIRCULAR", "sampled_padding": "CIRCULAR"}
_ALIAS_FREE = {**_CIRCULAR, "sampler": "ideal", "norm": "spatial", "precision": "highest"}

VARIANTS: dict[str, Options] = {
    # The network of Liu et al.
    "convnext": {},
    # The same with circular padding: the baseline of Michaeli et al. It aliases.
    "convnext_circular": _CIRCULAR,
    # Adaptive polyphase sampling: exact for integer shifts.
    "convnext_aps": {**_CIRCULAR, "sampler": "polyphase"},
    # Alias-free: exact for every shift.
    "convnext_afc": {
        **_ALIAS_FREE,
        "activation": {"name": "up_polynomial", **LEARNED_SCALES},
        "stem_activation": {"name": "lowpass_polynomial", **LEARNED_SCALES},
        "stem_residual": True,
    },
    # Alias-free with products instead of quadratics: exact for every shift. Source: this package.
    "convnext_afg": {
        **_ALIAS_FREE,
        "activation": {"name": "up_gate", **LEARNED_SCALES},
        "stem_activation": {"name": "lowpass_gate", **LEARNED_SCALES},
    },
}


def _completed(options: dict[str, Any]) -> dict[str, Any]:
    """Adds the stem's cutoff, and checks what `Family` does not check."""
    if options.get("sampled_padding", "VALID") != "VALID":
        check_padding(options["sampled_padding"])
    if options.get("mlp_ratio", 4.0) <= 0:
        raise ConfigError(f"mlp_ratio must be positive, got {options['mlp_ratio']}.")
    final_norm = fields_of(options.get("final_norm", "channel"))
    on_map = options.get("final_norm_position") == "map"
    if final_norm and final_norm.get("name") in PARTS["norm"].keys() - {"channel"} and not on_map:
        raise ConfigError(
            f"the final_norm {final_norm['name']!r} needs a map: use final_norm_position='map', or the norm "
            "'channel' for the pooled vector."
        )
    stem = with_cutoff(options.get("stem_activation"), options.get("stem_stride", 4))
    return {**options, "stem_activation": stem}


CONVNEXTS = Family(ConvNeXt, SIZES, VARIANTS, "{variant}_{size}", gated=True, completed=_completed)

"""U-Net (Ronneberger et al. 2015, arXiv 1505.04597) with injected sampling, upsampling, activation and norm.

One network class covers the U-Nets of `truly_shift_invariant_cnns` (APS, BlurPool, instance norm and their
baseline), those of LPS, and the alias-free U-Nets of this package. The map of an alias-free U-Net moves
with the image by every fraction of a pixel.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.activation import Relu, expansion
from aliasfree_jax.layers.block import normed_and_activated
from aliasfree_jax.layers.convolution import Conv
from aliasfree_jax.layers.layer import Layer, ModuleFactory, accurate_dtype, fan_in_uniform, part
from aliasfree_jax.layers.normalization import BatchNorm
from aliasfree_jax.layers.sampled import sampled_maxima
from aliasfree_jax.layers.sampling import Phase, SamplerFactory, Subsample, Temperature
from aliasfree_jax.layers.upsampling import UpsampledConv, ZeroUpsample
from aliasfree_jax.models.family import Family, Options, blur_of, filter_size
from aliasfree_jax.models.network import Network
from aliasfree_jax.models.parts import fields_of
from aliasfree_jax.ops.padding import Padding
from aliasfree_jax.ops.resample import remove_nyquist


class DoubleConv(Layer):
    """3 x 3 convolution, norm and activation, twice: `[N, H, W, C]` to `[N, H, W, width]`.

    Attributes:
      hidden: channels between the two convolutions.
    """

    hidden: int
    width: int
    activation: ModuleFactory
    norm: ModuleFactory
    padding: Padding

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Convolves, normalises and activates twice."""
        for number, width in enumerate((self.hidden, self.width), 1):
            init = fan_in_uniform(9 * x.shape[-1])
            how: dict[str, Any] = {"kernel_init": init, "bias_init": init, **self.numerics}
            x = Conv(
                expansion(self.activation) * width, 3, padding=self.padding, **how, name=f"conv{number}"
            )(x)
            x = normed_and_activated(self, x, train, number=number)
        return x


class UNet(Network):
    """U-Net: maps images `[N, H, W, channels]` to maps `[N, H, W, num_classes]`, float32.

    Images may have any size. If a sampler rounded up, the upsampled map is cropped to the size of the map
    it is joined with. Ideal upsampling resamples evenly instead, which is exact.

    The maps of the encoder are sown as "stage0", "stage1" and so on. Variables are in "params", and in
    `"batch_stats"` with a batch norm. Training draws from the rng stream "gumbel" if the sampler is
    learned.

    Attributes:
      num_classes: channels of the result: classes of pixels, or values. 0: the features `[N, H, W, width]`
        before the last layer.
      widths: channels at full resolution, at half of it, and so on.
      sampler: sampler between the levels. A max pool of `pool_size` precedes it.
      upsampler: upsampler of the decoder. It receives the phase that the sampler of its level chose.
      activation: activation of the whole network.
      norm: norm of the whole network.
      padding: padding of the convolutions.
      pool_size: window of the max pools. 1 leaves them out; a maximum aliases.
      up_conv: whether a 2 x 2 convolution after each upsampler makes the width of the finer level.
        Otherwise the second 3 x 3 convolution before the upsampler does.
      without_nyquist: whether to remove the Nyquist frequency from the images. Activations that shall
        commute with fractional shifts need this, because no sampler removes it from the full resolution.

    Source: Ronneberger et al. 2015 (arXiv 1505.04597); APS: Chaman & Dokmanic 2021 (arXiv 2105.04040). The
    alias-free variants are this package's.
    """

    num_classes: int = 1
    widths: tuple[int, ...] = (64, 128, 256, 512, 1024)
    sampler: SamplerFactory = part(Subsample)
    upsampler: ModuleFactory = part(ZeroUpsample)
    activation: ModuleFactory = part(Relu)
    norm: ModuleFactory = part(BatchNorm)
    padding: Padding = "ZERO"
    pool_size: int = 2
    up_conv: bool = True
    without_nyquist: bool = False

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """See `Network`."""
        return tuple(2**stage for stage in range(len(self.widths)))

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, temperature: Temperature = 1.0
    ) -> jax.Array:
        """Returns the map in float32 (float64 for float64 images).

        The map before the last layer is sown as "features" in the collection "intermediates".

        Raises:
          ShapeError: the images are not floating-point `[N, H, W, C]`, or too small.
        """
        x = self.prepared(images)
        if self.without_nyquist:
            x = remove_nyquist(x, self.exact)
        skips: list[tuple[jax.Array, Phase]] = []
        for stage, width in enumerate(self.widths):
            if stage > 0:
                sampled, phase = self._sampled(x, train, temperature, f"down{stage}")
                skips.append((x, phase))
                x = sampled
            x = self._convolved(x, width, width, train, f"stage{stage}_convs")
            self.sow("intermediates", f"stage{stage}", x)
        for stage, (skip, phase) in reversed(list(enumerate(skips))):
            width = self.widths[stage]
            init = fan_in_uniform(4 * x.shape[-1])
            fields: dict[str, Any] = {"kernel_init": init, "bias_init": init, **self.numerics}
            features = width if self.up_conv else 0
            up = UpsampledConv(features, 2, self.upsampler, **fields, name=f"up{stage}")
            x = up(x, phase, shape=(skip.shape[1], skip.shape[2]), train=train)
            x = jnp.concatenate([skip, x], axis=-1)
            given = width if self.up_conv else self.widths[max(stage - 1, 0)]
            x = self._convolved(x, width, given, train, f"joined{stage}_convs")
        self.sow("intermediates", "features", x)
        return self.classified(x.astype(accurate_dtype(x.dtype)))

    def _convolved(self, x: jax.Array, hidden: int, width: int, train: bool, name: str) -> jax.Array:
        parts = (self.activation, self.norm, self.padding)
        return DoubleConv(hidden, width, *parts, **self.numerics, name=name)(x, train)

    def _sampled(
        self, x: jax.Array, train: bool, temperature: Temperature, name: str
    ) -> tuple[jax.Array, Phase]:
        """Max pool and sampler: returns the map and the chosen phase."""
        # "SAME" ignores positions outside the map, while zeros would win over negative values.
        padding = "SAME" if self.padding == "ZERO" else self.padding
        sampler = self.sampler(strides=2, **self.numerics, name=name)
        return sampled_maxima(sampler, x, self.pool_size, padding, train=train, temperature=temperature)


SIZES: dict[str, Options] = {
    "unet": {"widths": (64, 128, 256, 512, 1024)},
    "unet_3down": {"widths": (64, 128, 256, 512)},
    "unet_small": {"widths": (16, 32, 64, 128)},
    # For images of about 32 pixels.
    "unet_micro": {"widths": (16, 32, 64)},
}

_CIRCULAR = {"padding": "CIRCULAR"}
_BLUR = {"name": "blur", "kernel_size": 3, "padding": "CIRCULAR"}
# Max pooling aliases, so an alias-free network leaves it out. Squares of squares grow without bound unless a
# norm limits them for each image. Batch norms use statistics of other images: with them it does not train.
_ALIAS_FREE = {
    **_CIRCULAR,
    "norm": {"name": "group", "num_groups": 1},
    "sampler": {"name": "ideal", "any_size": True},
    "upsampler": "ideal",
    "pool_size": 1,
    "without_nyquist": True,
    "precision": "highest",
}

VARIANTS: dict[str, Options] = {
    # The usual U-Net in PyTorch.
    "": {},
    # truly_shift_invariant_cnns: the circular baseline, instance norm, BlurPool, an ideal filter instead of
    # the blur ("sinc_mode"), and APS. Upsampling here preserves constants. The original's gain of 1 leaves a
    # quarter of them at each level, which trains equally well with batch norms.
    "circular": _CIRCULAR,
    "instance": {**_CIRCULAR, "norm": "instance"},
    "blur": {**_CIRCULAR, "sampler": _BLUR, "upsampler": {"name": "transposed", "inner": _BLUR}},
    "sinc": {**_CIRCULAR, "sampler": "ideal", "upsampler": {"name": "transposed", "inner": "ideal"}},
    "aps": {
        **_CIRCULAR,
        "sampler": {"name": "polyphase", "inner": _BLUR},
        "upsampler": {"name": "polyphase", "inner": _BLUR},
    },
    # learnable_polyphase_sampling: LPD in the encoder, LPU in the decoder.
    "lps": {
        **_CIRCULAR,
        "sampler": "learned_polyphase",
        "upsampler": {"name": "polyphase", "inner": _BLUR},
    },
    # Source: this package. Exact for every circular shift, with polynomials or gates.
    "afc": {**_ALIAS_FREE, "activation": "up_polynomial"},
    "afg": {**_ALIAS_FREE, "activation": "up_gate"},
}


def _filter_size(options: dict[str, Any], size: int) -> dict[str, Any]:
    """Sets the blurs of the sampler and of the upsampler to `size` taps."""
    upsampler = fields_of(options.get("upsampler", "transposed"))
    if upsampler and (upsampler["name"] == "polyphase" or "inner" in upsampler):
        upsampler["inner"] = blur_of(size, upsampler.get("inner"))
        options = {**options, "upsampler": upsampler}
    return filter_size(options, size)


def _check(network: UNet, options: Options) -> None:
    if "global_pool" in options:
        raise ConfigError("global_pool is for networks that classify whole images: a U-Net returns a map.")


UNETS = Family(UNet, SIZES, VARIANTS, aliases={"filter_size": _filter_size}, gated=True, checked=_check)

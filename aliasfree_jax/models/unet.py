"""U-Net (Ronneberger et al. 2015, arXiv 1505.04597) with injected sampling, upsampling, activation and norm.

One network for those of truly_shift_invariant_cnns (APS, BlurPool, instance norm and their baseline), for
LPS, and for ours, which is alias-free: the map that it gives moves with the image by any part of a pixel.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.activation import Relu, is_gated
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
    """3 x 3 convolution, norm and activation, twice, [N, H, W, C] to [N, H, W, width].

    Attributes:
      hidden: channels between the two.
    """

    hidden: int
    width: int
    activation: ModuleFactory
    norm: ModuleFactory
    padding: Padding

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Convolve, normalise and activate."""
        maps = 2 if is_gated(self.activation) else 1
        for number, width in enumerate((self.hidden, self.width), 1):
            init = fan_in_uniform(9 * x.shape[-1])
            how: dict[str, Any] = {"kernel_init": init, "bias_init": init, **self.numerics}
            x = Conv(maps * width, 3, padding=self.padding, **how, name=f"conv{number}")(x)
            x = normed_and_activated(self, x, train, number=number)
        return x


class UNet(Network):
    """Images [N, H, W, channels] to maps [N, H, W, num_classes] of the same size, float32.

    Attributes:
      num_classes: channels of the result: classes of pixels, or values; 0 for the features [N, H, W, width]
        that the last layer would take.
      widths: channels at full resolution, at half of it, ...
      sampler: between these; a max pool of `pool_size` precedes it (1: none; its maximum aliases).
      upsampler: on the way back. It gets the phase that the sampler of its level chose.
      up_conv: whether a 2 x 2 convolution behind each upsampler gives the width of the finer level; if not,
        the second of the 3 x 3 convolutions before it does.
      activation, norm, padding: everywhere.
      without_nyquist: removes that frequency from the images first, for activations that are to commute
        with fractional shifts: no sampler removes it from the full resolution.

    Images may have any size. Where a sampler has rounded up, the upsampled map is cut to the size of the one
    it is joined to; with ideal upsampling it is read evenly instead, which is exact.

    "stage0", "stage1", ... are the maps on the way down. Variables: "params", and "batch_stats" with a batch
    norm. Training draws from the rng stream "gumbel" where the sampler is learned; `temperature` is its
    softmax's.
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
        """The map, in float32 (float64 for float64 inputs).

        The map before the last layer is sown as "features" in the collection "intermediates".

        Raises:
          ShapeError: not floating-point [N, H, W, C], or an image that is too small.
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
        """The max pool and the sampler; the phase that it chose."""
        # Behind the edge of the map are no values, not zeros: "SAME".
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
# Maximum pooling aliases: an alias-free network leaves it out. Squares of squares grow where nothing bounds
# them image by image: behind batch norms, whose statistics are those of other images, it does not train.
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
    # The ordinary one in PyTorch.
    "": {},
    # truly_shift_invariant_cnns: the baseline on the circle, with instance norm, BlurPool, the same with an
    # ideal filter ("sinc_mode"), and APS. Here constants keep their value on the way back; by the original's
    # gain of 1 a quarter is left at each level, which trains as well behind batch norms.
    "circular": _CIRCULAR,
    "instance": {**_CIRCULAR, "norm": "instance"},
    "blur": {**_CIRCULAR, "sampler": _BLUR, "upsampler": {"name": "transposed", "inner": _BLUR}},
    "sinc": {**_CIRCULAR, "sampler": "ideal", "upsampler": {"name": "transposed", "inner": "ideal"}},
    "aps": {
        **_CIRCULAR,
        "sampler": {"name": "polyphase", "inner": _BLUR},
        "upsampler": {"name": "polyphase", "inner": _BLUR},
    },
    # learnable_polyphase_sampling: LPD on the way down, LPU on the way back.
    "lps": {
        **_CIRCULAR,
        "sampler": "learned_polyphase",
        "upsampler": {"name": "polyphase", "inner": _BLUR},
    },
    # Ours: exact for every circular shift, by polynomials or by gates.
    "afc": {**_ALIAS_FREE, "activation": "up_polynomial"},
    "afg": {**_ALIAS_FREE, "activation": "up_gate"},
}


def _filter_size(options: dict[str, Any], size: int) -> dict[str, Any]:
    """The blurs of the sampler and of the upsampler, of `size` taps."""
    upsampler = fields_of(options.get("upsampler", "transposed"))
    if upsampler and (upsampler["name"] == "polyphase" or "inner" in upsampler):
        upsampler["inner"] = blur_of(size, upsampler.get("inner"))
        options = {**options, "upsampler": upsampler}
    return filter_size(options, size)


def _check(network: UNet, options: Options) -> None:
    if "global_pool" in options:
        raise ConfigError("global_pool is for networks that classify whole images: a U-Net gives a map.")


UNETS = Family(UNet, SIZES, VARIANTS, aliases={"filter_size": _filter_size}, gated=True, checked=_check)

"""DeepLabV3+ (Chen et al. 2018, arXiv 1802.02611) on the ResNets of this package, with injected parts.

Of learnable_polyphase_sampling (LPS) the network with LPD on the way down and LPU on the way back, and its
ordinary forms. What is different on purpose; `conversion` asks for the original's choice where it is an
option:

| | the original | here |
|---|---|---|
| `output_stride` | only chooses rates; the stride is always 32 | dilates the last stages (of LPS: if asked) |
| padding of the last rate | zeros: not equivariant beyond 576 pixels | as of all (`last_rate_padding`) |
| circular rates beyond the map | an error | right at every size |
| sides that 32 does not divide | an error with LPU | the result is cut to the image's size |
| strided stem with LPU | an error | the strided step stands at phase 0: not exact |
| LPU with LPS_convex | the softmax of a softmax | the weights of the LPD themselves |
| gain of LPU's filter | 1 unless antialias_scale = 2 | constants keep their value (`gain` of the upsampler) |
| momentum of the backbone's norms | 0.99 in Flax's convention | that of all norms |
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.layers.activation import Relu
from aliasfree_jax.layers.aspp import ASPP
from aliasfree_jax.layers.block import conv_before_norm, normed_and_activated
from aliasfree_jax.layers.layer import (
    Factory,
    ModuleFactory,
    accurate_dtype,
    kaiming_normal_fan_in,
    part,
)
from aliasfree_jax.layers.normalization import BatchNorm
from aliasfree_jax.layers.sampling import Phase, SamplerFactory, Temperature, steps_of
from aliasfree_jax.layers.upsampling import BilinearUpsample, UpsampledConv
from aliasfree_jax.models.family import Family, Options, blur_of
from aliasfree_jax.models.network import Network
from aliasfree_jax.models.parts import fields_of
from aliasfree_jax.models.resnet import CIFAR_RESNETS, RESNETS, ResNet
from aliasfree_jax.ops.bilinear import bilinear_resize
from aliasfree_jax.ops.padding import Padding

_OF_BACKBONES: Options = {"num_classes": 0, "global_pool": ""}
BILINEAR = {"name": "bilinear", "align_corners": False}


class DeepLabV3Plus(Network):
    """Images [N, H, W, channels] to maps [N, H, W, num_classes] of the same size, float32.

    ASPP reads the last map of the backbone. The decoder enlarges the result to the first stage's map, joins
    the two by a 3 x 3 convolution, and enlarges the classes' values to the image.

    Attributes:
      num_classes: channels of the result; 0 for the decoder's map [N, H / 4, W / 4, width].
      backbone: a ResNet without head: it has `with_stages`.
      upsampler: of both enlargements. It gets the phases that the samplers of the backbone chose, in training
        the weights of a learned choice.
      activation, norm, padding: of ASPP and decoder; those of the backbone are its own.
      rates: dilations of ASPP; the paper has 6, 12, 18 at an output stride of 16 and the double at 8.
      last_rate_padding: of the last of them, if it is another (LPS: always "ZERO").
      width, low_level_width: channels of ASPP and decoder, and of what the first stage's map becomes.
      dropout_rate: behind ASPP, in training.

    "stage0", ... are the maps of the backbone. Variables: "params", and "batch_stats" with a batch norm.
    Training draws from the rng streams "dropout" and, where the sampler is learned, "gumbel".
    """

    num_classes: int = 21
    backbone: ModuleFactory = part(Factory(ResNet, **_OF_BACKBONES))
    upsampler: ModuleFactory = part(Factory(BilinearUpsample, align_corners=False))
    activation: ModuleFactory = part(Relu)
    norm: ModuleFactory = part(BatchNorm)
    padding: Padding = "ZERO"
    rates: tuple[int, ...] = (6, 12, 18)
    last_rate_padding: Padding | None = None
    width: int = 256
    low_level_width: int = 48
    dropout_rate: float = 0.1

    @property
    def stage_strides(self) -> tuple[int, ...]:
        """See `Network`."""
        backbone: Any = self.backbone(parent=None)
        strides: tuple[int, ...] = backbone.stage_strides
        return strides

    @property
    def sampler(self) -> SamplerFactory:
        """Of the backbone."""
        backbone: Any = self.backbone(parent=None)
        sampler: SamplerFactory = backbone.sampler
        return sampler

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, temperature: Temperature = 1.0
    ) -> jax.Array:
        """The values of all classes for every pixel, in float32 (float64 for float64 images).

        The map before the last layer is sown as "features" in the collection "intermediates".

        Raises:
          ShapeError: not floating-point [N, H, W, C], or an image that is too small.
        """
        images = self.prepared(images)
        backbone: Any = self.backbone(**self.numerics, name="backbone")
        _, stages = backbone.with_stages(images, train=train, temperature=temperature)
        for number, stage in enumerate(stages):
            self.sow("intermediates", f"stage{number}", stage.map)
        low, high = stages[0], stages[-1]
        paddings = (*(self.padding for _ in self.rates[1:]), self.last_rate_padding or self.padding)
        fields = (self.width, self.rates, paddings, self.activation, self.norm, self.dropout_rate)
        x = ASPP(*fields, **self.numerics, name="aspp")(high.map, train=train)
        steps = len(steps_of(low.stride))
        phase = high.phase and high.phase[steps:]
        x = self._enlarged(x, phase, high.stride // low.stride, low.map, train, "decoder")
        y = self._convolved(low.map, self.low_level_width, 1, "low_level", train)
        x = self._convolved(jnp.concatenate([y, x], axis=-1), self.width, 3, "joined", train)
        self.sow("intermediates", "features", x)
        x = self.classified(x.astype(accurate_dtype(x.dtype)))
        return self._enlarged(x, low.phase, low.stride, images, train, "output") if self.num_classes else x

    def _convolved(self, x: jax.Array, width: int, size: int, name: str, train: bool) -> jax.Array:
        init = kaiming_normal_fan_in
        x = conv_before_norm(self, width, size, name=f"{name}_conv", kernel_init=init)(x)
        return normed_and_activated(self, x, train, f"{name}_")

    def _enlarged(
        self, x: jax.Array, phase: Phase, strides: int, to: jax.Array, train: bool, name: str
    ) -> jax.Array:
        """`x` at the size of the map `to`, `strides` times as fine."""
        if strides == 1:
            return x
        shape = to.shape[1], to.shape[2]
        upsampler: Any = self.upsampler(strides=strides, parent=None)
        if isinstance(upsampler, BilinearUpsample):  # to any size, of a pool that rounds down too
            return bilinear_resize(x, shape, align_corners=upsampler.align_corners)
        numerics = {**self.numerics, "dtype": x.dtype}
        up = UpsampledConv(0, strides, self.upsampler, **numerics, name=f"{name}_up")
        return up(x, phase, shape=shape, train=train)


_BACKBONES = {name: (family, *which) for family in (RESNETS, CIFAR_RESNETS) for name, which in family.names()}


def _with_backbone(options: dict[str, Any]) -> dict[str, Any]:
    """The backbone that the option names, as a factory."""
    fields = fields_of(options["backbone"])
    if fields is None:
        return options
    name = fields.pop("name", None)
    if name not in _BACKBONES:
        raise ConfigError(unknown("backbone", name, _BACKBONES))
    for field in ("dtype", "param_dtype", "precision", *_OF_BACKBONES):
        if field in fields:
            raise ConfigError(f"{field} is an option of the whole network: give it beside the backbone.")
    family, size, variant = _BACKBONES[name]
    network = family.build(size, variant, {**fields, **_OF_BACKBONES})
    own = {field.name for field in dataclasses.fields(network)} - {"name", "parent", *network.numerics}
    factory = Factory(type(network), **{field: getattr(network, field) for field in own})
    return {**options, "backbone": factory}


def _of_backbone(option: str) -> Callable[[dict[str, Any], Any], dict[str, Any]]:
    """Hands an option on to the backbone."""

    def rewrite(options: dict[str, Any], value: Any) -> dict[str, Any]:
        fields = fields_of(options["backbone"])
        if fields is None:
            raise ConfigError(f"{option} is for backbones given by name, got {options['backbone']!r}.")
        return {**options, "backbone": {**fields, option: value}}

    return rewrite


def _filter_size(options: dict[str, Any], size: int) -> dict[str, Any]:
    """The blurs of the backbone's samplers and of a polyphase upsampler, of `size` taps."""
    upsampler = fields_of(options["upsampler"])
    if upsampler and upsampler.get("name") == "polyphase":
        options = {**options, "upsampler": {**upsampler, "inner": blur_of(size, upsampler.get("inner"))}}
    return _of_backbone("filter_size")(options, size)


def _check(network: DeepLabV3Plus, options: Options) -> None:
    if "global_pool" in options:
        raise ConfigError("global_pool is for networks that classify whole images: a DeepLab gives a map.")


_CIRCULAR = {"padding": "CIRCULAR"}
_WRITTEN_BACK = {"name": "polyphase", "inner": {"name": "blur", "kernel_size": 3}}
# Parts of each variant, and options of its backbone. A blur follows the values that are written back: between
# them are zeros. None precedes the choice of a phase (`filter_size` adds one): every blur removes the Nyquist
# frequency, by which the means of the components differ, and of these a linear score then is a tie.
# These two sample as often as the classifiers do, as in LPS, so that weights of one find all their samplers;
# the others dilate their last stage.
_VARIANTS: dict[str, tuple[Options, Options]] = {
    "": ({"upsampler": BILINEAR}, {}),
    "blur": ({"upsampler": BILINEAR}, {}),
    "aps": ({**_CIRCULAR, "upsampler": _WRITTEN_BACK}, {"output_stride": None}),
    "lps": ({**_CIRCULAR, "upsampler": _WRITTEN_BACK}, {"output_stride": None}),
    # Ours: exact for every circular shift.
    "afc": (
        {**_CIRCULAR, "upsampler": "ideal", "activation": "up_polynomial", "precision": "highest"},
        {"any_size": True},
    ),
}
# Beside the ResNets for ImageNet a small one, for images of about 32 pixels.
_SIZES: dict[str, tuple[Options, Options]] = {
    **{name: ({}, {"output_stride": 16}) for name in RESNETS.sizes},
    "resnet20_cifar": ({"rates": (2, 4, 6), "width": 32, "low_level_width": 16}, {}),
}


def _family(variant: str) -> Family:
    parts, of_backbone = _VARIANTS[variant]
    sizes = {}
    for size, (options, more) in _SIZES.items():
        name = f"{size}_{variant}".rstrip("_")
        sizes[f"deeplabv3plus_{name}"] = {"backbone": {"name": name, **more, **of_backbone}, **options}
    return Family(
        DeepLabV3Plus,
        sizes,
        {"": parts},
        pattern="{size}",
        aliases={
            "any_size": _of_backbone("any_size"),
            "filter_size": _filter_size,
            "output_stride": _of_backbone("output_stride"),
        },
        completed=_with_backbone,
        checked=_check,
    )


DEEPLABS = tuple(map(_family, _VARIANTS))

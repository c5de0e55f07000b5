"""DeepLabV3+ (Chen et al. 2018, arXiv 1802.02611) on the ResNets of this package, with injected parts.

It covers the network of `learnable_polyphase_sampling` (LPS), with LPD in the encoder and LPU in the
decoder, and ordinary forms. Differences from the original, on purpose (`conversion` selects the original's
choice where it is an option):

| | the original | here |
|---|---|---|
| `output_stride` | only selects rates; the stride is always 32 | dilates the last stages (LPS: if asked) |
| padding of the last rate | zeros: not equivariant beyond 576 pixels | as all rates (`last_rate_padding`) |
| circular rates larger than the map | an error | exact at every size |
| sides that are not multiples of 32 | an error with LPU | the result is cropped to the size of the image |
| strided stem with LPU | an error | the strided step uses phase 0: not exact |
| LPU with `LPS_convex` | the softmax of a softmax | the weights of LPD |
| gain of LPU's filter | 1 unless `antialias_scale` = 2 | preserves constants (`gain` of the upsampler) |
| momentum of the backbone's norms | 0.99 in Flax's convention | the same as all norms |
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
    """DeepLabV3+: maps images `[N, H, W, channels]` to class maps `[N, H, W, num_classes]`, float32.

    ASPP reads the last map of the backbone. The decoder enlarges the result to the size of the first
    stage's map and joins both with a 3 x 3 convolution. Then it enlarges the class logits to the size of
    the image.

    The maps of the backbone are sown as "stage0", "stage1" and so on. Variables are in "params", and in
    `"batch_stats"` with a batch norm. Training draws from the rng stream "dropout", and from "gumbel" if
    the sampler is learned.

    Attributes:
      num_classes: channels of the result. 0: the decoder's map `[N, H / 4, W / 4, width]`.
      backbone: a ResNet without head. It needs the method `with_stages`.
      upsampler: upsampler of both enlargements. It receives the phases that the samplers of the backbone
        chose, and in training the weights of a learned choice.
      activation: activation of ASPP and decoder.
      norm: norm of ASPP and decoder.
      padding: padding of ASPP and decoder. The backbone has its own parts.
      rates: dilations of ASPP. The paper uses 6, 12, 18 at output stride 16 and twice these at output
        stride 8.
      last_rate_padding: padding of the last rate. None: the same as `padding`. LPS always uses "ZERO".
      width: channels of ASPP and decoder.
      low_level_width: channels to which the first stage's map is reduced.
      dropout_rate: dropout rate after ASPP, in training.

    Source: Chen et al. 2018 (arXiv 1802.02611); LPS: Rojas-Gomez et al. 2022 (arXiv 2210.08001).
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
        """The sampler of the backbone."""
        backbone: Any = self.backbone(parent=None)
        sampler: SamplerFactory = backbone.sampler
        return sampler

    @nn.compact
    def __call__(
        self, images: jax.Array, *, train: bool = False, temperature: Temperature = 1.0
    ) -> jax.Array:
        """Returns the class logits of every pixel in float32 (float64 for float64 images).

        The map before the last layer is sown as "features" in the collection "intermediates".

        Raises:
          ShapeError: the images are not floating-point `[N, H, W, C]`, or too small.
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
        """Returns `x` at the size of the map `to`, which is `strides` times as fine."""
        if strides == 1:
            return x
        shape = to.shape[1], to.shape[2]
        upsampler: Any = self.upsampler(strides=strides, parent=None)
        if isinstance(upsampler, BilinearUpsample):  # works for any size, also if a pool rounded down
            return bilinear_resize(x, shape, align_corners=upsampler.align_corners)
        numerics = {**self.numerics, "dtype": x.dtype}
        up = UpsampledConv(0, strides, self.upsampler, **numerics, name=f"{name}_up")
        return up(x, phase, shape=shape, train=train)


_BACKBONES = {name: (family, *which) for family in (RESNETS, CIFAR_RESNETS) for name, which in family.names()}


def _with_backbone(options: dict[str, Any]) -> dict[str, Any]:
    """Replaces a named backbone by its factory."""
    fields = fields_of(options["backbone"])
    if fields is None:
        return options
    name = fields.pop("name", None)
    if name not in _BACKBONES:
        raise ConfigError(unknown("backbone", name, _BACKBONES))
    for field in ("dtype", "param_dtype", "precision", *_OF_BACKBONES):
        if field in fields:
            raise ConfigError(
                f"{field} is an option of the whole network: set it outside of the backbone's options."
            )
    family, size, variant = _BACKBONES[name]
    network = family.build(size, variant, {**fields, **_OF_BACKBONES})
    own = {field.name for field in dataclasses.fields(network)} - {"name", "parent", *network.numerics}
    factory = Factory(type(network), **{field: getattr(network, field) for field in own})
    return {**options, "backbone": factory}


def _of_backbone(option: str) -> Callable[[dict[str, Any], Any], dict[str, Any]]:
    """Returns a rewrite that passes an option on to the backbone."""

    def rewrite(options: dict[str, Any], value: Any) -> dict[str, Any]:
        fields = fields_of(options["backbone"])
        if fields is None:
            raise ConfigError(f"{option} needs a backbone given by name, got {options['backbone']!r}.")
        return {**options, "backbone": {**fields, option: value}}

    return rewrite


def _filter_size(options: dict[str, Any], size: int) -> dict[str, Any]:
    """Sets the blurs of the backbone's samplers and of a polyphase upsampler to `size` taps."""
    upsampler = fields_of(options["upsampler"])
    if upsampler and upsampler.get("name") == "polyphase":
        options = {**options, "upsampler": {**upsampler, "inner": blur_of(size, upsampler.get("inner"))}}
    return _of_backbone("filter_size")(options, size)


def _check(network: DeepLabV3Plus, options: Options) -> None:
    if "global_pool" in options:
        raise ConfigError("global_pool is for networks that classify whole images: a DeepLab returns a map.")


_CIRCULAR = {"padding": "CIRCULAR"}
_WRITTEN_BACK = {"name": "polyphase", "inner": {"name": "blur", "kernel_size": 3}}
# Parts of each variant, and options of its backbone. In "aps" and "lps", a blur follows the upsampling, which
# leaves zeros between the samples. No blur precedes the choice of a phase (`filter_size` adds one). A blur
# removes the Nyquist frequency, and the means of the components differ only by it: linear scores would tie.
# "aps" and "lps" sample as often as the classifiers, as in LPS, so that a classifier's weights fit all
# samplers. The other variants dilate their last stage.
_VARIANTS: dict[str, tuple[Options, Options]] = {
    "": ({"upsampler": BILINEAR}, {}),
    "blur": ({"upsampler": BILINEAR}, {}),
    "aps": ({**_CIRCULAR, "upsampler": _WRITTEN_BACK}, {"output_stride": None}),
    "lps": ({**_CIRCULAR, "upsampler": _WRITTEN_BACK}, {"output_stride": None}),
    # Source: this package. Exact for every circular shift.
    "afc": (
        {**_CIRCULAR, "upsampler": "ideal", "activation": "up_polynomial", "precision": "highest"},
        {"any_size": True},
    ),
}
# The ResNets for ImageNet, and a small one for images of about 32 pixels.
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

"""The DeepLabV3+ of github.com/raymondyeh07/learnable_polyphase_sampling, on its ResNets for ImageNet.

A network is named "deeplabv3plus(ResNet18Custom)". Options are those of the backbone
(`learnable_polyphase_sampling`) and:

- `unpool`: "LPS_u" or "max_p_norm_u"; the default fits the pool. null is bilinear interpolation (the
  original's "deeplabv3plus_resnet_lps");
- `unpool_antialias_scale`: factor per axis of the filter after the unpool (`antialias_scale`), default 1;
- `output_stride`: 16 or 8. In the original it only sets the rates of ASPP. The backbone's stride is always
  32;
- `classifier_padding_mode`: padding of the head, default "zeros". The last rate is always padded with zeros.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from aliasfree_jax.conversion.cnn_entries import resnet
from aliasfree_jax.conversion.description import KIND, look
from aliasfree_jax.conversion.entries import (
    CONV,
    POINTWISE,
    Candidates,
    CodeBase,
    Entry,
    Options,
    batch_norm,
    check_options,
    chosen,
    linear,
)
from aliasfree_jax.conversion.learnable_polyphase_sampling import (
    LEGAL,
    MODELS,
    PADDINGS,
    SOURCE,
    filter_part,
    options_of,
    pool_entries,
    style,
    zeros_word,
)
from aliasfree_jax.conversion.learnable_polyphase_sampling import translate as translate_backbone
from aliasfree_jax.errors import ConversionError, unknown
from aliasfree_jax.models.deeplab import BILINEAR

NAME = "deeplabv3plus({})"
BACKBONES = {NAME.format(name): name for name in MODELS if name != "BasicClassifier"}
UNPOOLS = {"LPS": "LPS_u", "max_2_norm": "max_p_norm_u"}  # pool -> the unpool that uses its choices
RATES = {"16": (6, 12, 18), "8": (12, 24, 36)}
_OWN = {"unpool", "unpool_antialias_scale", "output_stride", "classifier_padding_mode"}
_OF_IMAGENET = ("inc_conv1_support", "apply_maxpool")
# Options that cannot be recognised from weights, with the original's defaults.
UNTRACED: Options = {"padding_mode": "circular", "classifier_padding_mode": "zeros", "output_stride": 16}


def _unpool(options: Options) -> str | None:
    pool = options.get("pool", "LPS")
    fitting = chosen(f"pool of {SOURCE}", pool, UNPOOLS)
    unpool: str | None = options.get("unpool", fitting)
    if unpool not in (fitting, None):
        raise ConversionError(
            unknown(f"unpool of {SOURCE} for the pool {pool}", unpool, (fitting,))
            + " null means bilinear interpolation."
        )
    if unpool and options.get("conv1_stride"):
        raise ConversionError(
            f"a {SOURCE} network with conv1_stride has no unpool, because its first step selects no phase. "
            "Use unpool null."
        )
    return unpool


def _upsampler(options: Options) -> dict[str, Any]:
    if _unpool(options) is None:
        return BILINEAR
    return {"name": "polyphase", "inner": filter_part(options), "gain": _gain(options)}


def _gain(options: Options) -> float:
    """Gain of the filter after an unpool. 1 without a filter."""
    return float(options.get("unpool_antialias_scale", 1)) ** 2 if options.get("antialias") else 1.0


def translate(model: str, options: Options) -> tuple[str, dict[str, Any]]:
    """Translates a network and its options to arguments of `create_model`.

    Raises:
      ConversionError: The network, an option or a value is unknown, or the network is a DeepLabV3, which has
        no decoder.
    """
    if not model.startswith("deeplabv3plus"):
        raise ConversionError(
            f"{model} of {SOURCE} cannot be converted. Of its segmentation networks, only DeepLabV3+ can."
        )
    check_options(SOURCE, options, LEGAL | _OWN)
    for name in _OF_IMAGENET:
        if not options.get(name, True):
            raise ConversionError(f"the DeepLabs of {SOURCE} need ResNets for ImageNet, got {name} = false.")
    backbone = chosen(f"network of {SOURCE}", model, BACKBONES)
    of_backbone = {name: value for name, value in options.items() if name not in {*_OWN, "num_classes"}}
    name, fields = translate_backbone(backbone, of_backbone)
    fields.pop("num_classes")
    return f"deeplabv3plus_{name}", {
        "num_classes": options.get("num_classes", 21),
        "backbone": {"name": name, **fields},
        "upsampler": _upsampler(options),
        "padding": chosen(
            f"classifier_padding_mode of {SOURCE}", options.get("classifier_padding_mode", "zeros"), PADDINGS
        ),
        "last_rate_padding": "ZERO",
        "rates": chosen(f"output_stride of {SOURCE}", str(options.get("output_stride", 16)), RATES),
    }


def _within(entries: Iterator[Entry], module: str) -> Iterator[Entry]:
    """The same entries with their paths inside `module`."""
    for entry in entries:
        collection, slash, path = entry.path.partition("/")
        yield dataclasses.replace(entry, path=f"{collection}/{module}/{path}") if slash else entry


def _convolved(key: str, path: str, number: int = 0) -> Iterator[Entry]:
    """A convolution, module `number` of a sequence, and the norm after it."""
    yield Entry(f"{key}.{number}.weight", f"params/{path}_conv/kernel", CONV)
    yield from batch_norm(f"{key}.{number + 1}", f"{path}_norm")


def _unpools(key: str, path: str, channels: int, steps: int, options: Options) -> Iterator[Entry]:
    """The unpools of an upsampling, from the coarsest map to the finest."""
    if _unpool(options) is None:
        return
    unpool = pool_entries(options, selects=False, filters=True)
    for number in range(steps):
        for entry in unpool(f"{key}.{number}", f"{path}/upsampler", channels):
            if entry.key.endswith(".filt") and entry.constant is not None:
                yield dataclasses.replace(entry, constant=entry.constant * np.float32(_gain(options)))
            else:
                step = f"/inner{steps - 1 - number}/"
                yield dataclasses.replace(entry, path=entry.path.replace("/inner0/", step))


def _entries(network: Any, model: str, options: Options) -> Iterator[Entry]:
    backbone: Any = network.backbone(parent=None)
    yield from _within(resnet(backbone, style(options, "backbone.")), "backbone")
    yield from _convolved("classifier.project", "low_level")
    aspp, rates = "classifier.aspp.convs", len(network.rates)
    yield from _convolved(f"{aspp}.0", "aspp/point")
    for number in range(1, rates + 1):
        yield from _convolved(f"{aspp}.{number}", f"aspp/rate{number}")
    yield from _convolved(f"{aspp}.{rates + 1}", "aspp/mean", 1)
    yield from _convolved("classifier.aspp.project", "aspp/project")
    yield from _convolved("classifier.classifier", "joined")
    yield from linear("classifier.classifier.3", "head", POINTWISE)
    yield from _unpools("classifier.unpool", "decoder_up", network.width, 3, options)
    yield from _unpools("unpool", "output_up", network.num_classes, 2, options)


def _candidates(network: Mapping[str, Any]) -> Candidates:
    if network[KIND] != "DeepLabV3Plus":
        yield from ((model, {}) for model in BACKBONES)
        return
    options = options_of(network["backbone"])
    written_back = network["upsampler"][KIND] == "PolyphaseUpsample"
    options["unpool"] = UNPOOLS[options["pool"]] if written_back else None
    # Gain None means that of all phases: 4.
    gain = look(network, "upsampler", "gain") or 4.0
    options["unpool_antialias_scale"] = 2 if gain == 4.0 else 1
    options["classifier_padding_mode"] = zeros_word(network["padding"])
    options["output_stride"] = 8 if network["rates"] == RATES["8"] else 16
    yield from ((model, options) for model in BACKBONES)


LPS_DEEPLAB = CodeBase(SOURCE, translate, _entries, _candidates, task=lambda model: "segmentation")

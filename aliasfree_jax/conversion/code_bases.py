"""Lists the code bases whose weights can be read and written, and finds our networks in them."""

import json
from dataclasses import dataclass, field
from typing import Any

from aliasfree_jax.checkpoint import ModelCard
from aliasfree_jax.conversion.alias_free_convnets import AFC
from aliasfree_jax.conversion.alias_free_vit import AFT
from aliasfree_jax.conversion.antialiased_cnns import BLURPOOL, TORCHVISION_CNNS
from aliasfree_jax.conversion.converting import listing
from aliasfree_jax.conversion.convnext_dialects import TORCHVISION_CONVNEXT, TRANSFORMERS_CONVNEXT
from aliasfree_jax.conversion.description import described, differences
from aliasfree_jax.conversion.entries import CodeBase, Entry, Options, chosen, united
from aliasfree_jax.conversion.learnable_polyphase_sampling import LPS_CLASSIFIERS
from aliasfree_jax.conversion.lps_deeplab import LPS_DEEPLAB
from aliasfree_jax.conversion.pytorch_resnet_cifar10 import AKAMASTER
from aliasfree_jax.conversion.resnet_dialects import TRANSFORMERS_RESNET
from aliasfree_jax.conversion.timm_chains import TIMM_DENSENET, TIMM_MOBILENET, TIMM_VGG
from aliasfree_jax.conversion.timm_convnext import TIMM_CONVNEXT
from aliasfree_jax.conversion.timm_resnet import TIMM_RESNET
from aliasfree_jax.conversion.timm_xcit import TIMM_XCIT
from aliasfree_jax.conversion.truly_shift_invariant_cnns import CIFAR_APS, IMAGENET_APS
from aliasfree_jax.conversion.truly_shift_invariant_unets import UNETS
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.models import create_model
from aliasfree_jax.references import is_reference

PLAIN = united(
    "torchvision",
    {**dict.fromkeys(("convnext_*", "ConvNeXt"), TORCHVISION_CONVNEXT), "*": TORCHVISION_CNNS},
)
LPS = united(LPS_CLASSIFIERS.source, {"deeplab*": LPS_DEEPLAB, "*": LPS_CLASSIFIERS}, filters="antialias")
TIMM = united(
    "timm",
    {
        "convnext*": TIMM_CONVNEXT,
        "vgg*": TIMM_VGG,
        "densenet*": TIMM_DENSENET,
        "mobilenetv2_*": TIMM_MOBILENET,
        "xcit_*": TIMM_XCIT,
        "*res*": TIMM_RESNET,
    },
    channels="in_chans",
)
TRANSFORMERS = united(
    "transformers",
    {"ConvNext*": TRANSFORMERS_CONVNEXT, "ResNet*": TRANSFORMERS_RESNET},
    classes="num_labels",
    channels="num_channels",
)
SOURCES = {
    base.source: base
    for base in (
        AFC,
        BLURPOOL,
        PLAIN,
        IMAGENET_APS,
        CIFAR_APS,
        UNETS,
        LPS,
        TIMM,
        TRANSFORMERS,
        AKAMASTER,
        AFT,
    )
}


def code_base(source: str) -> CodeBase:
    """Returns the code base with this name, else raises `ConversionError`."""
    return chosen("source", source, SOURCES)


def table(source: str, model: str, options: Options) -> list[Entry]:
    """Returns the state-dict entries of an original network."""
    return code_base(source).table(model, options)


@dataclass(frozen=True)
class _Nearest:
    """The network of a code base that is nearest to one of ours. `distance` 0 means equal."""

    distance: int
    lines: list[str]  # the differences
    model: str = ""
    options: dict[str, Any] = field(default_factory=dict)


_NONE = 1000  # too far: the message does not name this network


def _nearest(base: CodeBase, card: ModelCard) -> _Nearest:
    if card.shift_invariant or is_reference(card.model):
        return _Nearest(
            _NONE, ["this network is transformed or made by a user's function; no original network is"]
        )
    ours = described(create_model(card.model, **card.options))
    given = {base.classes: ours["num_classes"]}
    if base.channels:
        given[base.channels] = card.channels
    elif card.channels != 3:
        return _Nearest(_NONE, [f"channels of the images: ours {card.channels}, theirs 3"])
    compared = []
    for model, read_off in base.candidates(ours):
        options = {**given, **read_off}
        try:
            name, translated = base.translate(model, options)
        except ConversionError as error:
            compared.append(_Nearest(_NONE, [str(error)], model, options))
            continue
        found = differences(ours, described(create_model(name, **translated)))
        distance = sum(difference.weight for difference in found)
        compared.append(_Nearest(distance, list(map(str, found)), model, options))
    return min(compared, key=lambda nearest: nearest.distance)


def original_of(source: str, card: ModelCard) -> tuple[str, dict[str, Any]]:
    """Finds the original network that computes the same function as the network of `card`.

    Args:
      source: Name of the code base.
      card: Card of the network.

    Returns:
      Name and options of the network in `source`.

    Raises:
      ConversionError: The source is unknown, or it has no such network. The message lists how the nearest
        network differs and which sources have the network.
    """
    found = _nearest(code_base(source), card)
    if not found.distance:
        return found.model, found.options
    having = [
        other for other, base in SOURCES.items() if other != source and not _nearest(base, card).distance
    ]
    elsewhere = f"Pass --to={' or --to='.join(having)}." if having else "No other source has it either."
    named = f". The nearest is {found.model} {json.dumps(found.options)}"
    shown = listing("differences", found.lines)
    raise ConversionError(
        f"{source} has no network like {card.model}{named if found.distance < _NONE else ''}.{shown}\n"
        f"  {elsewhere}"
    )

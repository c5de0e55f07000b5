"""Which network a state dict belongs to: of a library, by names that it alone has, or else of an original."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from aliasfree_jax.conversion.code_bases import AKAMASTER, PLAIN, TIMM, TRANSFORMERS, UNETS
from aliasfree_jax.conversion.convnext_dialects import UNTRACED as CONVNEXT_UNTRACED
from aliasfree_jax.conversion.convnext_dialects import (
    recognise_torchvision_convnext,
    recognise_transformers_convnext,
)
from aliasfree_jax.conversion.entries import Options
from aliasfree_jax.conversion.pytorch_resnet_cifar10 import recognise_pytorch_resnet_cifar10
from aliasfree_jax.conversion.recognised_originals import Original, State, recognise_original
from aliasfree_jax.conversion.resnet_dialects import UNTRACED as RESNET_UNTRACED
from aliasfree_jax.conversion.resnet_dialects import recognise_transformers_resnet
from aliasfree_jax.conversion.timm_chains import recognise_timm_mobilenet, recognise_timm_vgg
from aliasfree_jax.conversion.timm_convnext import recognise_timm_convnext
from aliasfree_jax.conversion.truly_shift_invariant_unets import recognise_unet
from aliasfree_jax.conversion.weights import find_weights
from aliasfree_jax.errors import ConversionError

# Dialects that are recognised by names that no other code base has. The first that fits is taken.
_DIALECTS: tuple[tuple[str, Callable[[State], tuple[str, dict[str, Any]] | None]], ...] = (
    (TRANSFORMERS.source, recognise_transformers_convnext),
    (TRANSFORMERS.source, recognise_transformers_resnet),
    (PLAIN.source, recognise_torchvision_convnext),
    (TIMM.source, recognise_timm_convnext),
    (TIMM.source, recognise_timm_vgg),
    (TIMM.source, recognise_timm_mobilenet),
    (AKAMASTER.source, recognise_pytorch_resnet_cifar10),
    (UNETS.source, recognise_unet),
)
# Options of what is recognised that leave no trace in the weights, with the library's defaults.
UNTRACED: dict[str, Options] = {
    "ConvNextForImageClassification": CONVNEXT_UNTRACED,
    "ResNetForImageClassification": RESNET_UNTRACED,
}


def normalised(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The state dict in today's words.

    Without prefixes (`weights`), such as those of DataParallel, and without the masks of ideal filters
    (`rect`), which are made for one size of images; blur filters of 2019 (`ds.1.weight`) and DenseNet layers
    of 2017 (`norm.1.weight`) under their present names.
    """
    result: dict[str, np.ndarray] = {}
    arrays = {key: np.asarray(value) for key, value in state.items()}
    for key, value in find_weights(arrays).tensors.items() if arrays else ():
        if key.endswith(".rect"):
            continue
        key = re.sub(r"^features\.module\.", "features.", key)
        key = re.sub(r"\.ds\.1\.weight$", ".filt", key)
        key = re.sub(r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2.", key)
        result[key] = np.asarray(value)
    return result


def recognise(state_dict: State) -> Original:
    """(source, model, options) for `from_original`, without the options in `UNTRACED`.

    Raises:
      ConversionError: the keys belong to no network that can be recognised.
      UndecidedError: a network for CIFAR-10 that may be two.
    """
    try:
        for source, recognised in _DIALECTS:
            if found := recognised(state_dict):
                return source, *found
        return recognise_original(state_dict)
    except (KeyError, ValueError, IndexError, StopIteration) as error:  # keys or shapes that are not there
        if isinstance(error, ConversionError):
            raise
        shown = ", ".join(list(state_dict)[:5])
        lacking = f": no {error.args[0]}" if isinstance(error, KeyError) else ""
        raise ConversionError(
            f"these weights ({len(state_dict)} arrays: {shown}, ...) are none of the networks that can be "
            f"recognised{lacking}. If it is one of them, name its source, model and options "
            "(--source, --model and --options of python -m aliasfree_jax convert)."
        ) from error

"""Recognises the network of a state dict: by a library's unique key names, else as an original."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from aliasfree_jax.conversion.code_bases import AFT, AKAMASTER, PLAIN, TIMM, TRANSFORMERS, UNETS
from aliasfree_jax.conversion.convnext_dialects import UNTRACED as CONVNEXT_UNTRACED
from aliasfree_jax.conversion.convnext_dialects import (
    recognise_torchvision_convnext,
    recognise_transformers_convnext,
)
from aliasfree_jax.conversion.entries import Options
from aliasfree_jax.conversion.pytorch_resnet_cifar10 import recognise_pytorch_resnet_cifar10
from aliasfree_jax.conversion.recognised_originals import Original, State, recognise_original
from aliasfree_jax.conversion.recognised_xcit import recognise_alias_free_vit
from aliasfree_jax.conversion.resnet_dialects import UNTRACED as RESNET_UNTRACED
from aliasfree_jax.conversion.resnet_dialects import recognise_transformers_resnet
from aliasfree_jax.conversion.timm_chains import recognise_timm_mobilenet, recognise_timm_vgg
from aliasfree_jax.conversion.timm_convnext import recognise_timm_convnext
from aliasfree_jax.conversion.timm_xcit import recognise_timm_xcit
from aliasfree_jax.conversion.truly_shift_invariant_unets import recognise_unet
from aliasfree_jax.conversion.weights import find_weights
from aliasfree_jax.errors import ConversionError

# Functions that recognise networks by keys that no other code base has. The first match is used.
_DIALECTS: tuple[tuple[str, Callable[[State], tuple[str, dict[str, Any]] | None]], ...] = (
    (TRANSFORMERS.source, recognise_transformers_convnext),
    (TRANSFORMERS.source, recognise_transformers_resnet),
    (PLAIN.source, recognise_torchvision_convnext),
    (TIMM.source, recognise_timm_convnext),
    (TIMM.source, recognise_timm_xcit),
    (AFT.source, recognise_alias_free_vit),
    (TIMM.source, recognise_timm_vgg),
    (TIMM.source, recognise_timm_mobilenet),
    (AKAMASTER.source, recognise_pytorch_resnet_cifar10),
    (UNETS.source, recognise_unet),
)
# Options that cannot be recognised from the weights, with the library's defaults.
UNTRACED: dict[str, Options] = {
    "ConvNextForImageClassification": CONVNEXT_UNTRACED,
    "ResNetForImageClassification": RESNET_UNTRACED,
}


def normalised(state: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Brings the keys of a state dict into the current form.

    - Prefixes such as DataParallel's "module." are removed (see `weights`).
    - The masks of ideal filters (`rect`) are left out. They are made for one image size.
    - Blur filters of 2019 (`ds.1.weight`) and DenseNet layers of 2017 (`norm.1.weight`) get their present
      names.
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
    """Recognises a network from its keys and shapes.

    Returns:
      `(source, model, options)` for `from_original`, without the options in `UNTRACED`.

    Raises:
      ConversionError: No known network has these keys and shapes.
      UndecidedError: Several networks have these keys and shapes.
    """
    try:
        for source, recognised in _DIALECTS:
            if found := recognised(state_dict):
                return source, *found
        return recognise_original(state_dict)
    except (KeyError, ValueError, IndexError, StopIteration) as error:  # missing keys or shapes
        if isinstance(error, ConversionError):
            raise
        shown = ", ".join(list(state_dict)[:5])
        lacking = f" (no {error.args[0]})" if isinstance(error, KeyError) else ""
        raise ConversionError(
            f"these weights ({len(state_dict)} arrays: {shown}, ...) are not those of a network that can be "
            f"recognised{lacking}. If the network is supported, name its source, model and options "
            "(--source, --model and --options of python -m aliasfree_jax convert)."
        ) from error

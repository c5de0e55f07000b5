"""Which original network a state dict belongs to, read off its keys and shapes.

Sizes, activation and stem are there to read; what leaves no trace (scales of the polynomials that
are not learned, cutoffs, the norm's kind) is taken from the published training commands. Whoever trained
something else passes the network and its options instead.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from aliasfree_jax.conversion import alias_free_convnets
from aliasfree_jax.conversion.recognition_by_keys import recognise_by_keys
from aliasfree_jax.errors import ConversionError

State = Mapping[str, np.ndarray]
Original = tuple[str, str, dict[str, Any]]

_SCALES = {"in_scale": 7, "out_scale": 7, "train_scale": True}


def recognise(state_dict: State) -> Original:
    """(source, model, options) for `from_original`.

    Raises:
      ConversionError: the keys belong to no network that can be recognised.
    """
    other = recognise_by_keys(state_dict)
    if other is not None:
        return other
    try:
        sizes = _sizes(state_dict)
    except KeyError as error:
        shown = ", ".join(list(state_dict)[:5])
        raise ConversionError(
            f"these weights ({len(state_dict)} arrays: {shown}, ...) are none of the networks that can be "
            f"recognised: no {error.args[0]}. If it is one of them, name its source, model and options "
            "(--source, --model and --options of python -m aliasfree_jax convert)."
        ) from error
    model, options = _convnext(state_dict)
    return alias_free_convnets.SOURCE, model, {**sizes, **options}


def _count(keys: Iterable[str], pattern: str) -> int:
    return len({match[1] for key in keys if (match := re.match(pattern, key))})


def _sizes(state: State) -> dict[str, Any]:
    stages = _count(state, r"stages\.(\d+)\.")
    if not stages:
        raise KeyError("stages.*")
    return {
        "in_chans": _stem_kernel(state).shape[1],
        "num_classes": state["head.weight"].shape[0],
        "depths": [_count(state, rf"stages\.{stage}\.(\d+)\.") for stage in range(stages)],
        "dims": [state[f"stages.{stage}.0.norm.weight"].shape[0] for stage in range(stages)],
    }


def _stem_kernel(state: State) -> np.ndarray:
    circular = "downsample_layers.0.0.1.weight"
    return state[circular] if circular in state else state["downsample_layers.0.0.weight"]


def _convnext(state: State) -> tuple[str, dict[str, Any]]:
    """Model and options beyond the sizes."""
    if "downsample_layers.0.0.weight" in state:  # no padding module before the convolution
        if "stages.0.0.act.coef" not in state:
            return "convnext", {}
        return "convnext_poly", {"activation": "poly_per_channel", **_scales(state, "stages.0.0.act")}
    if "stages.0.0.mlp.pwconv1.weight" in state:
        return "convnext_afc", _afc(state)
    if "downsample_layers.0.3.weight" in state:
        filters = state.get("downsample_layers.0.1.filt")
        return "convnext_aps", {"blurpool_kwargs": {"filt_size": 1 if filters is None else filters.shape[-1]}}
    return "convnext_circ", {}


def _scales(state: State, prefix: str) -> dict[str, Any]:
    return {"activation_kwargs": _SCALES} if f"{prefix}.in_scale" in state else {}


def _afc(state: State) -> dict[str, Any]:
    filters = next((v for k, v in state.items() if k.endswith(".filt.filt")), None)
    blurpool = {"filter_type": "ideal"} if filters is None else {"filt_size": filters.shape[-1]}
    options: dict[str, Any] = {"blurpool_kwargs": {**blurpool, "scale_l2": False}}
    if "stages.0.0.mlp.act.coef" in state:
        options |= {
            "activation": "up_poly_per_channel",
            "normalization_type": "CHW2",
            **_scales(state, "stages.0.0.mlp.act"),
        }
    residual, plain = "downsample_layers.0.1.residual.0", "downsample_layers.0.1"
    for prefix, mode in ((residual, "activation_residual"), (plain, "activation")):
        if f"{prefix}.coef" in state:
            scales = _SCALES if f"{prefix}.in_scale" in state else {}
            options |= {
                "stem_mode": mode,
                "stem_activation": "lpf_poly_per_channel",
                "stem_activation_kwargs": {**scales, "cutoff": 0.75},
            }
    return options

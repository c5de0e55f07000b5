"""The ConvNeXts of timm: translation, tensor names and recognition."""

import dataclasses
import fnmatch
from collections.abc import Iterator, Mapping
from typing import Any

from aliasfree_jax.conversion.convnext_dialects import EPSILON, LAYER_SCALE, network_of
from aliasfree_jax.conversion.convnext_entries import Names, State, convnext, rank, read_off
from aliasfree_jax.conversion.description import KIND
from aliasfree_jax.conversion.entries import DENSE, POINTWISE, Candidates, CodeBase, Entry, Options
from aliasfree_jax.conversion.fields import (
    ACTIVATIONS,
    GLOBAL_POOLS,
    Fields,
    Only,
    activation_word,
    check_stages,
    pool_word,
)
from aliasfree_jax.errors import ConversionError, unknown
from aliasfree_jax.models.convnext import SIZES, ConvNeXt

_NAMES = Names(
    stem="stem.0",
    stem_norm="stem.1",
    downsample_norm="stages.{stage}.downsample.0",
    downsample="stages.{stage}.downsample.1",
    block="stages.{stage}.blocks.{block}",
    depthwise="conv_dw",
    norm="norm",
    expand="mlp.fc1",
    project="mlp.fc2",
    layer_scale="gamma",
    final_norm="head.norm",
    head="head.fc",
)
_FIELDS = Fields(
    translated={
        "depths": (3, 3, 9, 3),
        "dims": (96, 192, 384, 768),
        "num_classes": 1000,
        "patch_size": 4,
        "conv_mlp": False,
        "head_norm_first": False,
        "ls_init_value": LAYER_SCALE,
        "norm_eps": EPSILON,
        "act_layer": "gelu",
        "global_pool": "avg",
    },
    without_effect={"in_chans", "head_init_scale", "drop_rate", "drop_path_rate", "device", "dtype"},
    only={
        "patch_size": Only((4, 1, 2, 3, 5, 6, 7), "dilated convolutions"),
        "output_stride": Only((32,), "dilated convolutions"),
        "kernel_sizes": Only((7, (7, 7, 7, 7)), "depthwise kernels of other sizes than 7 x 7"),
        "stem_type": Only(("patch",), "a stem of overlapping patches"),
        "head_hidden_size": Only((None,), "a hidden layer in its head"),
        "conv_bias": Only((True,), "convolutions without bias"),
        "use_grn": Only((False,), "the global response norm of ConvNeXt V2"),
        "act_layer": Only(tuple(ACTIVATIONS), "another activation"),
        "norm_layer": Only((None, "layernorm", "layernorm2d"), "another norm"),
        "global_pool": Only(tuple(GLOBAL_POOLS), "another pooling"),
    },
    optional={"ls_init_value", "norm_eps"},
)
_SIZES = {
    name: {"depths": size["depths"], "dims": size["widths"]}
    for name, size in SIZES.items()
    if name not in ("micro", "cifar")
}
_TINY = "convnext_tiny"
# Arguments of each architecture that differ from the defaults.
_ARCHITECTURES: dict[str, Options] = {
    **{f"convnext_{size}": sizes for size, sizes in _SIZES.items()},
    **{f"convnext_{s}": _SIZES[s] | {"conv_mlp": True} for s in ("atto", "femto", "pico", "nano")},
    "convnext_tiny_hnf": {"head_norm_first": True, "conv_mlp": True},
    "convnext_xxlarge": _SIZES["xxlarge"] | {"norm_eps": 1e-5},
}
# Patterns of architectures that cannot be converted, with the argument that is refused.
_LACKING: dict[str, Options] = {
    "convnextv2_*": {"use_grn": True},
    "convnext_*_ols": {"stem_type": "overlap"},
    "convnext_*_rms": {"norm_layer": "rmsnorm"},
    "convnext_large_mlp": {"head_hidden_size": 1536},
    "test_convnext*": {"act_layer": "gelu_tanh"},
}


def _read(model: str, options: Options) -> dict[str, Any]:
    lacking = next((why for pattern, why in _LACKING.items() if fnmatch.fnmatch(model, pattern)), None)
    if lacking is None and model not in _ARCHITECTURES:
        raise ConversionError(unknown("ConvNeXt of timm", model, _ARCHITECTURES))
    own = lacking or _ARCHITECTURES[model]
    read = _FIELDS.read(f"timm's {model}", {**own, **options})
    check_stages(f"timm's {model}", 4, depths=read["depths"], dims=read["dims"])
    return read


def _translate(model: str, options: Options) -> tuple[str, dict[str, Any]]:
    read = _read(model, options)
    epsilon = EPSILON if read["norm_eps"] is None else read["norm_eps"]
    options = {"num_classes": read["num_classes"]}
    if read["global_pool"] != "avg":
        options["global_pool"] = GLOBAL_POOLS[read["global_pool"]]
    if read["head_norm_first"]:
        options["final_norm_position"] = "map"
    if read["patch_size"] == 2:
        options["downsampled_stages"] = "all"  # also the first stage, which reaches stride 4
    return network_of(
        read["depths"],
        read["dims"],
        patch_size=read["patch_size"],
        activation=read["act_layer"],
        epsilon=epsilon,
        final_epsilon=epsilon,
        scaled=read["ls_init_value"] is not None,
        **options,
    )


def _entries(network: ConvNeXt, model: str, options: Options) -> Iterator[Entry]:
    pointwise = POINTWISE if _read(model, options)["conv_mlp"] else DENSE
    final_norm = "norm_pre" if network.final_norm_position == "map" else _NAMES.final_norm
    return convnext(network, dataclasses.replace(_NAMES, pointwise=pointwise, final_norm=final_norm))


def _architecture(found: Options) -> tuple[str, dict[str, Any]]:
    """The architecture with these sizes (else tiny), and the arguments that differ from its defaults."""
    own = {name: {**_FIELDS.translated, **arguments} for name, arguments in _ARCHITECTURES.items()}
    same = [name for name in own if all(own[name][size] == found[size] for size in ("depths", "dims"))]

    def differing(name: str) -> dict[str, Any]:
        defaults = {"in_chans": 3, **own[name]}
        return {
            field: value
            for field, value in found.items()
            if field not in defaults or defaults[field] != value
        }

    model = min(same or [_TINY], key=lambda name: len(differing(name)))
    return model, differing(model)


def recognise_timm_convnext(state: State) -> tuple[str, dict[str, Any]] | None:
    """Recognises a ConvNeXt of timm from keys and shapes.

    Returns:
      Architecture and arguments. None for weights of another network.
    """
    found = read_off(state, _NAMES)
    if found is None or "stages.0.blocks.0.conv_dw.weight" not in state:
        return None
    arguments = {
        "depths": found["depths"],
        "dims": found["widths"],
        "in_chans": found["channels"],
        "num_classes": found["classes"],
        "patch_size": found["patch_size"],
        "head_norm_first": "norm_pre.weight" in state,
        "ls_init_value": LAYER_SCALE if found["scaled"] else None,
        "conv_mlp": rank(state, "stages.0.blocks.0.mlp.fc1.weight") == 4,
    }
    depthwise = [value for key, value in state.items() if key.endswith("conv_dw.weight") and value.ndim == 4]
    kernels = {value.shape[-1] for value in depthwise}
    unlike: list[tuple[bool, Options]] = [
        (bool(kernels - {7}), {"kernel_sizes": sorted(kernels)}),
        (rank(state, "stem.1.weight") == 4 or "stem.2.weight" in state, {"stem_type": "overlap"}),
        (any(".mlp.grn." in key for key in state), {"use_grn": True}),
        ("head.pre_logits.fc.weight" in state, {"head_hidden_size": "any"}),
        (not any(key.endswith("conv_dw.bias") for key in state), {"conv_bias": False}),
    ]
    for is_so, argument in unlike:
        arguments |= argument if is_so else {}
    return _architecture(arguments)


def _candidates(network: Mapping[str, Any]) -> Candidates:
    if network[KIND] != "ConvNeXt" or (act_layer := activation_word(network["activation"])) is None:
        yield _TINY, {}
        return
    yield _architecture(
        {
            "depths": network["depths"],
            "dims": network["widths"],
            "num_classes": network["num_classes"],
            "patch_size": network["stem_stride"],
            "head_norm_first": network["final_norm_position"] == "map",
            "ls_init_value": LAYER_SCALE if network["layer_scale_init"] else None,
            "norm_eps": network["norm"].get("epsilon", EPSILON),
            "act_layer": act_layer,
            "global_pool": pool_word(network),
        }
    )


TIMM_CONVNEXT = CodeBase("timm", _translate, _entries, _candidates)

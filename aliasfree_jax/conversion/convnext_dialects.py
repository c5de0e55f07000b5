"""The ConvNeXts of torchvision and transformers: translation, tensor names and recognition.

torchvision, transformers and timm store the same tensors (`timm_convnext` shares code with this module). They
differ in the final norm: transformers has a separate epsilon for it, and timm can apply it before the
pooling.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from aliasfree_jax.conversion.convnext_entries import Names, State, convnext, read_off, sized
from aliasfree_jax.conversion.description import KIND
from aliasfree_jax.conversion.entries import Candidates, CodeBase, Entry, Layout, Options
from aliasfree_jax.conversion.fields import (
    ACTIVATIONS,
    TRANSFORMERS_WITHOUT_EFFECT,
    Fields,
    Only,
    activation_word,
    check_stages,
    number_of_labels,
)
from aliasfree_jax.errors import ConversionError, unknown
from aliasfree_jax.models.convnext import SIZES, ConvNeXt

# Fields that cannot be recognised from weights, with the defaults of transformers. config.json states them.
UNTRACED: Options = {"layer_norm_eps": 1e-12, "hidden_act": "gelu"}

EPSILON, LAYER_SCALE = 1e-6, 1e-6

_TORCHVISION = Names(
    stem="features.0.0",
    stem_norm="features.0.1",
    downsample_norm="features.{even}.0",
    downsample="features.{even}.1",
    block="features.{odd}.{block}",
    depthwise="block.0",
    norm="block.2",
    expand="block.3",
    project="block.5",
    layer_scale="layer_scale",
    final_norm="classifier.0",
    head="classifier.2",
    scale=Layout(lambda value: np.squeeze(value, (1, 2)), lambda value: value[:, None, None]),
)
_TRANSFORMERS = Names(
    stem="convnext.embeddings.patch_embeddings",
    stem_norm="convnext.embeddings.layernorm",
    downsample_norm="convnext.encoder.stages.{stage}.downsampling_layer.0",
    downsample="convnext.encoder.stages.{stage}.downsampling_layer.1",
    block="convnext.encoder.stages.{stage}.layers.{block}",
    depthwise="dwconv",
    norm="layernorm",
    expand="pwconv1",
    project="pwconv2",
    layer_scale="layer_scale_parameter",
    final_norm="convnext.layernorm",
    head="classifier",
)


def network_of(
    depths: Sequence[int],
    widths: Sequence[int],
    *,
    patch_size: int = 4,
    activation: str = "gelu",
    epsilon: float = EPSILON,
    final_epsilon: float = EPSILON,
    scaled: bool = True,
    **options: Any,
) -> tuple[str, dict[str, Any]]:
    """Returns name and options of `create_model` for a ConvNeXt.

    Options that equal those of the ConvNeXt paper are left out.

    Args:
      depths: Blocks in each stage.
      widths: Channels in each stage.
      patch_size: Kernel size and stride of the stem.
      activation: Name of the activation.
      epsilon: Epsilon of all norms except the final one.
      final_epsilon: Epsilon of the final norm.
      scaled: Whether blocks have layer scales.
      options: Further options of `create_model`.

    Raises:
      ConversionError: `patch_size` is below 1.
    """
    if patch_size < 1:
        raise ConversionError(f"patch_size={patch_size}: expected 1 pixel or more.")
    name, ours = sized("convnext", depths, widths)
    if patch_size != 4:
        ours |= {"stem_kernel": patch_size, "stem_stride": patch_size}
    if activation != "gelu":
        ours["activation"] = activation
    for norm, value in (("norm", epsilon), ("final_norm", final_epsilon)):
        if value != EPSILON:
            ours[norm] = {"name": "channel", "epsilon": value}
    if not scaled:
        ours["layer_scale_init"] = 0.0
    return name, ours | options


_TORCHVISION_MODELS = tuple(f"convnext_{size}" for size in ("tiny", "small", "base", "large"))
_CLASS = "ConvNeXt"  # the class of torchvision; its argument "block_setting" lists the stages
_TORCHVISION_FIELDS = Fields(
    translated={"num_classes": 1000},
    without_effect={"stochastic_depth_prob", "layer_scale", "weights", "progress"},
    only={
        "norm_layer": Only((None,), "another norm"),
        "block": Only((None,), "another block"),
    },
)


def _blocks(setting: Any) -> tuple[list[int], list[int]]:
    """Depths and widths of a "block_setting": per stage [channels, channels of the next stage, blocks]."""
    try:
        widths, following, depths = map(list, zip(*setting, strict=True))
    except (TypeError, ValueError):
        widths, following, depths = [], [], []
    whole = all(type(number) is int and number > 0 for number in widths + depths)
    if not widths or not whole or following != [*widths[1:], None]:
        raise ConversionError(
            f"torchvision's ConvNeXt has block_setting={setting!r}: expected [channels, channels of the next "
            "stage, blocks] for every stage. The next channels of the last stage are null."
        )
    return depths, widths


def _translate_torchvision(model: str, options: Options) -> tuple[str, dict[str, Any]]:
    known = (*_TORCHVISION_MODELS, _CLASS)
    if model not in known:
        raise ConversionError(unknown("ConvNeXt of torchvision", model, known))
    arguments = dict(options)
    if model == _CLASS:
        depths, widths = _blocks(arguments.pop("block_setting", None))
    else:
        size = SIZES[model.removeprefix("convnext_")]
        depths, widths = size["depths"], size["widths"]
    return network_of(depths, widths, **_TORCHVISION_FIELDS.read(f"torchvision's {model}", arguments))


def _torchvision_model(
    depths: Sequence[int], widths: Sequence[int], classes: int
) -> tuple[str, dict[str, Any]]:
    """The function of torchvision with these sizes, or else its class and their "block_setting"."""
    name, other = sized("convnext", depths, widths)
    options = {} if classes == 1000 else {"num_classes": classes}
    if not other and name in _TORCHVISION_MODELS:
        return name, options
    following = [*widths[1:], None]
    setting = [[width, after, depth] for width, after, depth in zip(widths, following, depths, strict=True)]
    return _CLASS, {"block_setting": setting, **options}


def recognise_torchvision_convnext(state: State) -> tuple[str, dict[str, Any]] | None:
    """Recognises a ConvNeXt of torchvision from keys and shapes.

    Returns:
      Name and arguments. None for weights of another network.
    """
    found = read_off(state, _TORCHVISION)
    if found is None or not found["scaled"]:
        return None
    return _torchvision_model(found["depths"], found["widths"], found["classes"])


def _torchvision_candidates(network: Mapping[str, Any]) -> Candidates:
    if network[KIND] != "ConvNeXt":
        yield "convnext_tiny", {}
        return
    yield _torchvision_model(network["depths"], network["widths"], network["num_classes"])


_CLASSIFIER = "ConvNextForImageClassification"
_TRANSFORMERS_FIELDS = Fields(
    translated={
        "depths": (3, 3, 9, 3),
        "hidden_sizes": (96, 192, 384, 768),
        "num_stages": 4,
        "patch_size": 4,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-12,
        "layer_scale_init_value": LAYER_SCALE,
    },
    without_effect={*TRANSFORMERS_WITHOUT_EFFECT, "num_labels", "num_channels", "drop_path_rate"},
    only={
        "model_type": Only(("convnext",), "another architecture"),
        "hidden_act": Only(tuple(ACTIVATIONS), "another activation"),
    },
)


def _translate_transformers(model: str, options: Options) -> tuple[str, dict[str, Any]]:
    if model.startswith("ConvNextV2"):
        raise ConversionError(
            f"transformers' {model} has a global response norm. No network of this package has one."
        )
    if model != _CLASSIFIER:
        raise ConversionError(unknown("ConvNeXt of transformers", model, [_CLASSIFIER]))
    sides = options.get("patch_size", 4)
    if isinstance(sides, list | tuple) and len(set(sides)) == 1:
        options = {**options, "patch_size": sides[0]}
    what = f"transformers' {model}"
    read = _TRANSFORMERS_FIELDS.read(what, options)
    depths, widths = read["depths"], read["hidden_sizes"]
    check_stages(what, read["num_stages"], depths=depths, hidden_sizes=widths)
    return network_of(
        depths,
        widths,
        patch_size=read["patch_size"],
        activation=read["hidden_act"],
        final_epsilon=read["layer_norm_eps"],
        scaled=read["layer_scale_init_value"] > 0,
        num_classes=number_of_labels(options),
    )


def recognise_transformers_convnext(state: State) -> tuple[str, dict[str, Any]] | None:
    """Recognises a ConvNeXt of transformers from keys and shapes.

    Returns:
      Class name and fields of config.json, without those in `UNTRACED`. None for weights of another network.
    """
    if any(re.match(r"convnextv2\.", key) for key in state):
        return "ConvNextV2ForImageClassification", {}
    found = read_off(state, _TRANSFORMERS)
    if found is None:
        return None
    return _CLASSIFIER, {
        "depths": found["depths"],
        "hidden_sizes": found["widths"],
        "num_stages": len(found["depths"]),
        "patch_size": found["patch_size"],
        "num_channels": found["channels"],
        "num_labels": found["classes"],
        "layer_scale_init_value": LAYER_SCALE if found["scaled"] else 0.0,
    }


def _transformers_candidates(network: Mapping[str, Any]) -> Candidates:
    if network[KIND] != "ConvNeXt" or (hidden_act := activation_word(network["activation"])) is None:
        yield _CLASSIFIER, {}
        return
    yield (
        _CLASSIFIER,
        {
            "depths": network["depths"],
            "hidden_sizes": network["widths"],
            "num_stages": len(network["depths"]),
            "patch_size": network["stem_stride"],
            "hidden_act": hidden_act,
            "layer_norm_eps": network["final_norm"].get("epsilon", EPSILON),
            "layer_scale_init_value": LAYER_SCALE if network["layer_scale_init"] else 0.0,
            "num_labels": network["num_classes"],
        },
    )


def _entries_in(names: Names) -> Any:
    def entries(network: ConvNeXt, model: str, options: Options) -> Iterator[Entry]:
        return convnext(network, names)

    return entries


TORCHVISION_CONVNEXT = CodeBase(
    "torchvision", _translate_torchvision, _entries_in(_TORCHVISION), _torchvision_candidates
)
TRANSFORMERS_CONVNEXT = CodeBase(
    "transformers", _translate_transformers, _entries_in(_TRANSFORMERS), _transformers_candidates
)

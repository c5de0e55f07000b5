"""Converts an original network's weights to a module and its variables, and back."""

import numbers
from collections.abc import Mapping
from importlib import resources
from typing import Any

import flax.linen as nn
import numpy as np

from aliasfree_jax.checkpoint import ModelCard, abstract_variables
from aliasfree_jax.conversion.code_bases import AFC, AKAMASTER, LPS, PLAIN, UNETS, code_base, table
from aliasfree_jax.conversion.converting import convert, export
from aliasfree_jax.conversion.entries import CodeBase, Options
from aliasfree_jax.conversion.learnable_polyphase_sampling import temperature
from aliasfree_jax.conversion.recognition import normalised
from aliasfree_jax.conversion.undecided import require_filters
from aliasfree_jax.data.class_names import placeholders
from aliasfree_jax.data.segmentation_sets import VOC_CLASSES
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.models import create_model

# How the originals prepare images for evaluation: fields of `ModelCard`.
_CONVNEXT: Options = {
    "image_size": 224,
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "eval_crop_ratio": 224 / 256,
    "interpolation": "bicubic",
}
_IMAGENET = {**_CONVNEXT, "interpolation": "bilinear"}  # torchvision's Resize
_CIFAR: Options = {
    "image_size": 32,
    "mean": (0.49141738, 0.48219556, 0.44662726),
    "std": (0.24703224, 0.24348514, 0.26158786),
    "eval_crop_ratio": 1.0,
    "interpolation": "bicubic",
}
# Whole images whose side the strides divide. The original crops 513 pixels from Pascal VOC.
_SEGMENTATION: Options = {**_IMAGENET, "image_size": 512, "eval_crop_ratio": 1.0}
# MRI: the original normalises each image separately, so there is no common mean.
_UNET: Options = {**_CIFAR, "image_size": 320, "mean": (0.0,), "std": (1.0,), "interpolation": "bilinear"}

# Shorter side, pixels, before torchvision's crop of 224, if it is not 256.
_TORCHVISION_SHORTER = {
    "convnext_tiny": 236,
    "convnext_small": 230,
    "convnext_base": 232,
    "convnext_large": 232,
}
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def from_original(
    source: str, model: str, options: Mapping[str, Any], state_dict: Mapping[str, np.ndarray]
) -> tuple[nn.Module, Any]:
    """Makes the network and variables that compute the same function as an original network.

    Args:
      source: The code base: "alias_free_convnets", "antialiased-cnns", "truly_shift_invariant_cnns",
        "truly_shift_invariant_cnns/cifar10", "truly_shift_invariant_cnns/unet",
        "learnable_polyphase_sampling", "torchvision", "timm", "transformers",
        "pytorch_resnet_cifar10" or "alias_free_vit".
      model: Name of the network there, e.g. "convnext_afc", "resnet50", "ResNet18Custom" or
        "ConvNextForImageClassification".
      options: Arguments of the original's constructor or command line. The number of classes is read from
        the weights.
      state_dict: Parameters and buffers as arrays in PyTorch's layout. Filter buffers may be missing if the
        options state the filter size.

    Returns:
      `(module, variables)`: `module.apply(variables, images)` with images `[N, H, W, C]`.

    Raises:
      ConversionError: The source, the network or an option is unknown, the weights do not fit, or blur
        filters are missing and the options do not state their size.
    """
    _, module, variables = converted(source, model, options, normalised(state_dict), "arrays", {}, None)
    return module, variables


def to_original(source: str, model: str, options: Options, variables: Any) -> dict[str, np.ndarray]:
    """Converts variables back to the original's state dict, buffers included.

    `torch.save({name: torch.from_numpy(array) for name, array in result.items()}, path)` writes a file that
    the original program loads strictly.

    Args:
      source: The code base, as in `from_original`.
      model: Name of the network there.
      options: Arguments of its constructor or command line.
      variables: Variables of that network, as `from_original` returns them.

    Returns:
      Parameters and buffers under the original's keys, in PyTorch's layout.

    Raises:
      ConversionError: The source, the network or an option is unknown, or the variables belong to another
        network.
    """
    return export(variables, table(source, model, options))


def class_names(cifar: bool, count: int, task: str = "classification") -> tuple[str, ...]:
    """Returns class names of CIFAR-10, ImageNet or Pascal VOC. Placeholders if `count` differs.

    Args:
      cifar: Whether images have the size of CIFAR-10.
      count: Number of classes.
      task: Task of the network.
    """
    wnids = resources.files("aliasfree_jax.conversion") / "imagenet_wnids.txt"
    of_images = CIFAR10 if cifar else tuple(wnids.read_text().split())
    names = {"classification": of_images, "segmentation": VOC_CLASSES}.get(task, ())
    return names if len(names) == count else placeholders(count)


def _completed(
    base: CodeBase, model: str, options: Options, state_dict: Mapping[str, np.ndarray]
) -> dict[str, Any]:
    """Adds options that the weights tell: the numbers of classes and channels, and a temperature."""
    entries = base.table(model, options)
    head = next((entry.key for entry in reversed(entries) if entry.path.endswith("head/bias")), "")
    found: dict[str, Any] = {base.classes: np.size(state_dict[head])} if head in state_dict else {}
    stem = next((entry.key for entry in entries if entry.path.endswith("kernel")), "")
    if base.channels and np.ndim(state_dict.get(stem, 0)) == 4:
        found[base.channels] = state_dict[stem].shape[1]
    if base is LPS and (options.get("LPS_convex") or options.get("LPS_gumbel")):
        found |= temperature(state_dict)
    return {**found, **options}


def _prepared(source: str, model: str, name: str) -> Options:
    """How the original prepares images. timm and transformers without a description: like torchvision."""
    if source == AFC.source:
        return _CONVNEXT
    if name.startswith("xcit"):
        return {**_CONVNEXT, "eval_crop_ratio": 1.0}
    if source == UNETS.source:
        return _UNET
    if code_base(source).task(model) == "segmentation":
        return _SEGMENTATION
    if source == AKAMASTER.source:
        return {**_IMAGENET, "image_size": 32, "eval_crop_ratio": 1.0}
    if "_cifar" in name or name == "basic":
        return _CIFAR
    shorter = _TORCHVISION_SHORTER.get(model, 256) if source == PLAIN.source else 256
    return {**_IMAGENET, "eval_crop_ratio": 224 / shorter}


def _positive(name: str, value: Any) -> int:
    if not isinstance(value, numbers.Integral) or value < 1:
        raise ConversionError(f"{name}={value!r}: expected a whole number above 0.")
    return int(value)


def converted(
    source: str,
    model: str,
    options: Options,
    state_dict: Mapping[str, np.ndarray],
    file: str,
    stated: Options,
    side: int | None,
) -> tuple[ModelCard, nn.Module, Any]:
    """Converts an original network to a card, a network and variables.

    Args:
      source: The code base, as in `from_original`.
      model: Name of the network there.
      options: Its options.
      state_dict: Its arrays, with the keys of `recognition.normalised`.
      file: Origin of the weights, for the card and for messages.
      stated: Known fields of the card: the preparation of images, and "class_names".
      side: Side of the images to evaluate, pixels. None: as stated, else the original's.

    Returns:
      `(card, module, variables)`.

    Raises:
      ConversionError: As `from_original`.
    """
    base = code_base(source)
    options = _completed(base, model, options, state_dict)
    channels = _positive(base.channels, options.get(base.channels, 3))
    name, ours = base.translate(model, options)
    module: Any = create_model(name, **ours)
    original = _prepared(source, model, name)
    prepared = {**original, **stated}
    prepared["image_size"] = prepared["image_size"] if side is None else _positive("image_size", side)
    for field in ("mean", "std"):
        if len(prepared[field]) != channels:  # stated for three colours: use their average, like timm
            prepared[field] = (sum(prepared[field]) / len(prepared[field]),) * channels
    names, count = prepared.pop("class_names", ()), module.num_classes
    if len(names) != count:
        names = class_names(original["image_size"] == 32, count, base.task(model))
    shapes = abstract_variables(module, prepared["image_size"], channels)
    if base.filters not in options:
        require_filters((source, model, options), state_dict)
    try:
        variables = convert(state_dict, base.entries(module, model, options), shapes)
    except ConversionError as error:
        raise ConversionError(f"{file}, read as {model} of {source}: {error}") from error
    origin = f"{file}: {source} {model}"
    told: dict[str, Any] = {"channels": channels, "step": 0, "origin": origin, "task": base.task(model)}
    card = ModelCard(name, ours, names, **told, **prepared)
    return card, module, variables

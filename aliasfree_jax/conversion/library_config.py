"""Reads the files that timm and transformers save beside weights.

`config.json` names the network. How images are prepared is in `config.json` too (timm), or in
`preprocessor_config.json` (transformers).
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aliasfree_jax.conversion.code_bases import TIMM, TRANSFORMERS
from aliasfree_jax.conversion.hub import CONFIG, PREPROCESSOR
from aliasfree_jax.data.decode import FILTERS
from aliasfree_jax.errors import ConversionError

# PIL's numbers of its filters.
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}
# The libraries' defaults for missing fields.
_IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
_DEFAULTS: dict[str, dict[str, Any]] = {
    TIMM.source: {**_IMAGENET, "image_size": 224, "eval_crop_ratio": 0.875, "interpolation": "bicubic"},
    TRANSFORMERS.source: {
        **{"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
        **{"image_size": 384, "eval_crop_ratio": 224 / 256, "interpolation": "bicubic"},
    },
}


@dataclass
class LibraryConfig:
    """The description of weights.

    Attributes:
      source: The library.
      model: Its name of the network.
      options: Its options of the network.
      class_names: Names of the outputs. Empty if the files state none.
      prepared: Fields of the `ModelCard` on the preparation of images.
      notes: Missing statements, and statements that cannot be followed.
    """

    source: str
    model: str
    options: dict[str, Any]
    class_names: tuple[str, ...] = ()
    prepared: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def prepare(self, stated: Mapping[str, Any]) -> None:
        """Sets `prepared` from `stated`, in which None means missing, and notes every deviation."""
        missing = [name for name, value in stated.items() if value is None]
        if missing:
            self.notes.append(
                f"the files beside the weights do not state {', '.join(missing)}, so the defaults of "
                f"{self.source} are used"
            )
        known = {name: value for name, value in stated.items() if value is not None}
        found = {**_DEFAULTS[self.source], **known}
        if found["interpolation"] not in FILTERS:
            self.notes.append(
                f"interpolation {found['interpolation']!r} is not available, so bicubic is used"
            )
            found["interpolation"] = "bicubic"
        for name in ("mean", "std"):
            found[name] = tuple(map(float, found[name]))
        found["image_size"] = int(found["image_size"])
        found["eval_crop_ratio"] = float(found["eval_crop_ratio"])
        positive = (found["image_size"], *found["std"])
        if not all(0 < number < math.inf for number in positive) or not 0 < found["eval_crop_ratio"] <= 1:
            raise ValueError(f"in {found}, sizes and std must be positive, and the ratio must be in (0, 1]")
        if not (found["mean"] and found["std"] and all(map(math.isfinite, found["mean"]))):
            raise ValueError(
                f"mean {found['mean']} and std {found['std']} must have one finite number per channel"
            )
        self.prepared = found


def read_library_config(weights: Path) -> LibraryConfig | None:
    """Reads the description beside a file of weights.

    Returns:
      The description. None if no `config.json` names a network.

    Raises:
      ConversionError: A file is not a JSON object, or a value in it is invalid.
    """
    config = _read(weights.with_name(CONFIG))
    reader = _reader(config)
    if reader is None:
        return None
    try:
        return reader(config, _read(weights.with_name(PREPROCESSOR)))
    except (TypeError, ValueError, KeyError, AttributeError, IndexError, OverflowError) as error:
        if isinstance(error, ConversionError):
            raise
        raise ConversionError(
            f"{CONFIG} or {PREPROCESSOR} in {weights.parent} has an invalid value: {error}."
        ) from error


def _reader(config: Mapping[str, Any]) -> Callable[..., LibraryConfig] | None:
    if isinstance(config.get("architecture"), str):  # also for networks of timm that transformers saved
        return _timm
    names = config.get("architectures")
    return _transformers if isinstance(names, list) and names else None


def _read(path: Path) -> dict[str, Any]:
    """Reads a JSON object. Empty if there is no file."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise ConversionError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(found, dict):
        raise ConversionError(f"{path} is not a JSON object.")
    return found


def _timm(config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> LibraryConfig:
    arguments = config.get("model_args") or {}
    options = {"global_pool": config.get("global_pool") or "avg", **arguments}
    classes = options.pop("num_classes", config.get("num_classes"))
    if classes == 0:  # a network without a head. Otherwise the weights tell the number of classes.
        options["num_classes"] = classes
    if options["global_pool"] == "avg":
        del options["global_pool"]
    names = config.get("label_names") or ()  # a list, or a mapping from numbers that may have gaps
    if isinstance(names, Mapping):
        names = [names.get(str(number), number) for number in range(config.get("num_classes") or 0)]
    found = LibraryConfig(TIMM.source, config["architecture"], options, tuple(map(str, names)))
    # Older files have the fields of `pretrained_cfg` at the top level.
    stated = {**config, **(config.get("pretrained_cfg") or {})}
    *_, height, width = stated.get("input_size") or (None, None)
    found.prepare(
        {
            "image_size": height,
            "eval_crop_ratio": stated.get("crop_pct"),
            **{name: stated.get(name) for name in ("interpolation", "mean", "std")},
        }
    )
    mode, ratio = stated.get("crop_mode") or "center", found.prepared["eval_crop_ratio"]
    found.prepared["eval_view"] = view = "warp" if mode == "squash" else "crop"
    if height != width or mode == "border" or (mode == "squash" and ratio != 1):
        found.notes.append(
            f"images of {height} x {width} with crop_mode {mode!r} and crop_pct {ratio:g} are not available, "
            f"so square images of {height} are prepared with eval_view {view!r}"
        )
    return found


def _transformers(config: Mapping[str, Any], preprocessor: Mapping[str, Any]) -> LibraryConfig:
    (model,) = config["architectures"]
    labels = {int(number): str(label) for number, label in (config.get("id2label") or {}).items()}
    found = LibraryConfig(
        TRANSFORMERS.source, model, dict(config), tuple(labels[number] for number in range(len(labels)))
    )
    size = preprocessor.get("size")
    exact, side = isinstance(size, Mapping) and "height" in size, _side(size)
    ratio = 1.0 if exact else preprocessor.get("crop_pct")
    crop = _side(preprocessor.get("crop_size")) if preprocessor.get("do_center_crop") else None
    if crop and side and not exact:
        side, ratio = crop, crop / side
    resample = preprocessor.get("resample")
    found.prepare(
        {
            "image_size": side,
            "eval_crop_ratio": ratio,
            "interpolation": None if resample is None else _RESAMPLING.get(resample, str(resample)),
            "mean": preprocessor.get("image_mean"),
            "std": preprocessor.get("image_std"),
        }
    )
    # Without a stated crop, transformers crops below 384 pixels and warps from 384 on.
    found.prepared["eval_view"] = "warp" if exact else "crop" if crop else "auto"
    if exact and (crop not in (None, side) or preprocessor["size"].get("width") != side):
        found.notes.append(
            f"size {size} with crop_size {preprocessor.get('crop_size')} is not available, so images are "
            f"warped to {side} x {side}"
        )
    off = [name for name in ("do_resize", "do_rescale", "do_normalize") if preprocessor.get(name) is False]
    if off or abs(preprocessor.get("rescale_factor", 1 / 255) - 1 / 255) > 1e-6:
        found.notes.append(
            f"{', '.join(off) or 'rescale_factor'} of {PREPROCESSOR} is not available, so images are "
            "resized, divided by 255 and normalised"
        )
    return found


def _side(size: Any) -> Any:
    """The side of a square or the shorter side, from a processor's "size"."""
    return size.get("shortest_edge", size.get("height")) if isinstance(size, Mapping) else size

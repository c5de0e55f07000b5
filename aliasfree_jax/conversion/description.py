"""Describes what a network computes as plain values, and compares two descriptions."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from aliasfree_jax.layers import Factory

Description = dict[str, Any]

KIND = "kind"
# Fields about initialisation, training or speed. They do not change the function of trained weights.
_IRRELEVANT = {
    *("parent", "name", "dtype", "param_dtype", "precision", "remat", "mlp_grid", "any_size", "strides"),
    *("drop_path_rate", "dropout_rate", "zero_init_residual", "init_std", "head_init_scale"),
    *("initial", "scale_init", "group", "noise"),
}


def described(part: Any) -> Any:
    """Describes a network or a part as nested dictionaries of its kind and its relevant fields.

    Two ways to write the same network get equal descriptions.
    """
    if isinstance(part, tuple | list):
        return tuple(map(described, part))
    keywords: dict[str, Any] = {}
    if isinstance(part, Factory):
        part, keywords = part.module, dict(part.fields)
    if isinstance(part, nn.Module):
        keywords = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
        part = type(part)
    if not (isinstance(part, type) and issubclass(part, nn.Module)):
        return part
    values = {field.name: keywords.get(field.name, _default(field)) for field in dataclasses.fields(part)}
    fields = {
        name: described(value)
        for name, value in values.items()
        if name not in _IRRELEVANT and value is not dataclasses.MISSING
    }
    return _simplified({KIND: part.__name__, **fields})


def _default(field: dataclasses.Field[Any]) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()


def _simplified(part: Description) -> Description:
    """Removes fields without effect, and brings equal functions into one form."""
    if part[KIND] == "BlurPool" and part["kernel_size"] == 1:
        return {KIND: "Subsample"}
    if part.get("inner") == {KIND: "Subsample"} and "select_on" in part:
        part = {**part, "select_on": "filtered"}
    if part.get("train_scale"):
        part = {name: value for name, value in part.items() if name not in ("in_scale", "out_scale")}
    if "layer_scale_init" in part:
        part = {**part, "layer_scale_init": part["layer_scale_init"] > 0}
    if part[KIND] == "ResNet":
        return _simplified_resnet(part)
    if part[KIND] == "XCiT":
        return _simplified_xcit(part)
    if part[KIND] == "DeepLabV3Plus":  # code bases look for the sampler here
        return {**part, "sampler": look(part, "backbone", "sampler"), **_last_padding(part)}
    return part


def _last_padding(part: Description) -> Description:
    return {"last_rate_padding": part["last_rate_padding"] or part["padding"]}


def _simplified_xcit(part: Description) -> Description:
    stem = part["stem_activation"] or part["activation"]
    without_class = {"class_blocks": 2, "normed_tokens": "all"} if part["class_attention"] is None else {}
    return {
        **part,
        **without_class,
        "stem_activation": stem,
        "stem_first_activation": part["stem_first_activation"] or stem,
        "stem_last_activation": part["stem_last_activation"] or stem,
        "local_activation": part["local_activation"] or part["activation"],
    }


def _simplified_resnet(part: Description) -> Description:
    activation, stem = part["activation"], dict(part["stem"])
    if stem[KIND] in ("ImageStem", "DeepStem"):
        stem["first_sampler"] = None if stem["strided"] else stem["first_sampler"] or part["sampler"]
        if stem["first_sampler"] == {KIND: "Subsample"}:
            stem |= {"strided": True, "first_sampler": None}  # both are a convolution with stride 2
        if stem["pool_size"] == 1:
            stem["pool_padding"] = "VALID"
    if part["sampler"] == {KIND: "Subsample"} and part["sampler_position"] != "first":
        part = {**part, "sampler_position": "before"}
    if part["block"] == "basic":
        part = {**part, "groups": 1, "group_width": 64}
    full = (4 if stem[KIND] in ("ImageStem", "DeepStem") else 1) * 2 ** (len(part["depths"]) - 1)
    return {
        **part,
        "output_stride": part["output_stride"] if part["output_stride"] != full else None,
        "stem": stem,
        "stem_width": part["stem_width"] or part["widths"][0],
        "shortcut_sampler": part["shortcut_sampler"] or part["sampler"],
        "stem_activation": part["stem_activation"] or activation,
        "sum_activation": part["sum_activation"] or activation,
    }


def look(part: Any, *path: str, default: Any = None) -> Any:
    """Returns the value at `path` in a description, else `default`."""
    for name in path:
        if not isinstance(part, Mapping) or name not in part:
            return default
        part = part[name]
    return part


def taps(sampler: Description) -> int:
    """Returns the number of taps of a sampler's blur filter. 1 without a filter."""
    return int(look(sampler, "inner", "kernel_size", default=look(sampler, "kernel_size", default=1)))


@dataclasses.dataclass(frozen=True)
class Difference:
    """One difference between two networks.

    Attributes:
      path: The field that differs, or the part if its kinds differ. "" if the networks have different kinds.
      ours: Its description in our network.
      theirs: Its description in the other network.
    """

    path: str
    ours: Any
    theirs: Any

    def __str__(self) -> str:
        if not self.path:
            return f"network: ours {self.ours[KIND]}, theirs {self.theirs[KIND]}"
        return f"{self.path}: ours {_short(self.ours)}, theirs {_short(self.theirs)}"

    @property
    def weight(self) -> int:
        """The contribution to the distance between two networks."""
        if not self.path:
            return 1000
        return 10 if isinstance(self.ours, Mapping) or isinstance(self.theirs, Mapping) else 1


def differences(ours: Any, theirs: Any, path: str = "") -> list[Difference]:
    """Lists the differences between two descriptions. Empty for equal networks."""
    if ours == theirs:
        return []
    if not isinstance(ours, Mapping) or not isinstance(theirs, Mapping) or ours[KIND] != theirs[KIND]:
        return [Difference(path, ours, theirs)]
    found = []
    for name in {**ours, **theirs}:
        found += differences(ours.get(name), theirs.get(name), f"{path}.{name}".lstrip("."))
    return found


def _short(value: Any) -> str:
    """Formats a part in one line: its kind and its fields."""
    if not isinstance(value, Mapping):
        return repr(value)
    fields = {name: part[KIND] if isinstance(part, Mapping) else repr(part) for name, part in value.items()}
    del fields[KIND]
    return f"{value[KIND]}({', '.join(f'{name}={text}' for name, text in fields.items())})"

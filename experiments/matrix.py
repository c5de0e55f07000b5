"""The trained networks: every variant, with and without shifted training images, for every seed."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aliasfree_jax.ops.activation import GELU_QUADRATIC
from configs.cifar10_xcit import FINER_STEM
from experiments import gates  # noqa: F401  # registers its activation

RESNETS = ("ResNet-18", "ResNet-20")
XCIT = "XCiT"
GATES = "Gates"  # ConvNeXts with different gates
FAMILIES = (*RESNETS, "ConvNeXt", XCIT, GATES)

# What moves training images: fields of `config.data`. Rolls by up to 16 of 32 pixels are all circular shifts.
AUGMENTATIONS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "shifts": {"circular_shift": 16},
    "crops": {"crop": "padded"},
    "reflected": {"crop": "reflected"},
}

TRAINING_IMAGES = {  # names in tables
    "none": "unshifted",
    "shifts": "shifted",
    "crops": "padded crops",
    "reflected": "reflected crops",
}

# The circular shifts to which a network is invariant by construction.
Promise = tuple[str, ...]
NOTHING: Promise = ()
WHOLE_PIXELS: Promise = ("integer",)
EVERY_SHIFT: Promise = ("integer", "fractional")


@dataclass(frozen=True)
class Variant:
    """A variant of the network: its sampler and activation.

    Attributes:
      name: Name in tables.
      key: Name in the names of runs.
      model: Name of the network. The braces are replaced by its size.
      promise: The shifts to which it is invariant in theory.
      options: Keyword arguments of `create_model`.
    """

    name: str
    key: str
    model: str
    promise: Promise = NOTHING
    options: Mapping[str, Any] = field(default_factory=dict)


_THREE_TAPS = {"filter_size": 3}
_OF_RESNETS = (
    Variant("plain (zero padding)", "plain", "{}"),
    Variant("circular", "circular", "{}_circular"),
    Variant("BlurPool-3", "blur3", "{}_circular_blur", options=_THREE_TAPS),
    Variant("APS-1", "aps1", "{}_aps", WHOLE_PIXELS),
    Variant("APS-3", "aps3", "{}_aps", WHOLE_PIXELS, _THREE_TAPS),
    Variant("LPS", "lps", "{}_lps", WHOLE_PIXELS),
    Variant("alias-free", "afc", "{}_afc", EVERY_SHIFT),
    Variant("alias-free, gated", "afg", "{}_afg", EVERY_SHIFT),
)
_OF_CONVNEXTS = (
    Variant("circular", "circular", "convnext_circular_{}"),
    Variant("APS-1", "aps1", "convnext_aps_{}", WHOLE_PIXELS),
    Variant("alias-free", "afc", "convnext_afc_{}", EVERY_SHIFT),
    Variant("alias-free, gated", "afg", "convnext_afg_{}", EVERY_SHIFT),
)
_OF_XCITS = (
    Variant("plain (zero padding)", "plain", "xcit_{}"),
    Variant("circular", "circular", "xcit_circular_{}"),
    Variant("APS-1", "aps1", "xcit_aps_{}", WHOLE_PIXELS),
    Variant("Alias-Free ViT", "aft", "xcit_aft_{}"),
    Variant("alias-free, gated", "afg", "xcit_afg_{}", EVERY_SHIFT),
    Variant("alias-free, gated, finer stem", "afgs", "xcit_afg_{}", EVERY_SHIFT, FINER_STEM),
)


def _scaled(name: str, in_scale: float, out_scale: float, **fields: Any) -> dict[str, Any]:
    return {"name": name, "in_scale": in_scale, "out_scale": out_scale, "train_scale": True, **fields}


def _gates(in_scale: float, out_scale: float) -> dict[str, Any]:
    scales = in_scale, out_scale
    return {"activation": _scaled("up_gate", *scales), "stem_activation": _scaled("lowpass_gate", *scales)}


def _tried(name: str, key: str, options: Mapping[str, Any], model: str = "convnext_afg_{}") -> Variant:
    return Variant(name, key, model, EVERY_SHIFT, options)


# The candidates for the gated network. They are compared with it and with the ConvNeXts above.
_CUBIC = _scaled("up_polynomial", 7.0, 7.0, initial=(*GELU_QUADRATIC, 0.0))
_POLYNOMIAL_STEM = {"stem_activation": _scaled("lowpass_polynomial", 7.0, 7.0), "stem_residual": True}
_OF_GATES = (
    _tried("gate, initial scales 1", "scales1", _gates(1.0, 1.0)),
    _tried("gate, initial scales 7 (inner) and 1", "scales71", _gates(7.0, 1.0)),
    _tried("gate, hidden width 2 C", "narrow", {"mlp_ratio": 3.0}),
    _tried("gate, hidden width 4 C", "wide", {"mlp_ratio": 6.0}),
    _tried("gate, polynomial in the stem", "polystem", _POLYNOMIAL_STEM),
    _tried("gate, followed by a norm", "normed", {"activation": "normed_up_gate"}),
    _tried("polynomial of degree 3", "cubic", {"activation": _CUBIC}, "convnext_afc_{}"),
)
VARIANTS = {
    "ResNet-18": _OF_RESNETS,
    "ResNet-20": _OF_RESNETS,
    "ConvNeXt": _OF_CONVNEXTS,
    XCIT: _OF_XCITS,
    GATES: _OF_GATES,
}


@dataclass(frozen=True)
class Row:
    """A network and its kind of training images: one row of the table, for all seeds."""

    family: str
    variant: Variant
    augmentation: str

    @property
    def name(self) -> str:
        """For example "resnet18-aps3-shifts"."""
        return f"{self.family.lower().replace('-', '')}-{self.variant.key}-{self.augmentation}"


@dataclass(frozen=True)
class Run:
    """One training of a row."""

    row: Row
    seed: int

    @property
    def name(self) -> str:
        """For example "resnet18-aps3-shifts-seed0"."""
        return f"{self.row.name}-seed{self.seed}"


def _trained_on(family: str) -> tuple[str, ...]:
    """The kinds of training images. Rolled images are left out where they tell little for their time."""
    return ("none",) if family in (XCIT, GATES) else ("none", "shifts")


def rows() -> list[Row]:
    """The rows of a table, with a network's two augmentations next to each other."""
    return [
        Row(family, variant, augmentation)
        for family in FAMILIES
        for variant in VARIANTS[family]
        for augmentation in _trained_on(family)
    ]


# Variants of this protocol alone.
_PLAIN_CONVNEXT = Variant("plain (zero padding)", "plain", "convnext_{}")
_BLURRED_LPS = Variant("LPS-3", "lps3", "{}_lps", WHOLE_PIXELS, _THREE_TAPS)
# Family, variant and training images, in the order of training.
_ACCURATE = (
    ("ResNet-20", "plain", "crops"),
    ("ResNet-20", "aps3", "crops"),
    ("ConvNeXt", "circular", "crops"),
    ("ConvNeXt", "afg", "crops"),
    ("ResNet-20", "afg", "reflected"),
    ("ResNet-20", "afc", "reflected"),
    ("ResNet-20", "blur3", "crops"),
    ("ResNet-20", "plain", "reflected"),
    ("ResNet-20", "lps", "crops"),
    ("ConvNeXt", "afc", "crops"),
    ("ConvNeXt", "plain", "crops"),
    ("ResNet-20", "lps3", "crops"),
)


def accurate_rows() -> list[Row]:
    """The rows of the protocol `accurate`: networks of full width, in the order of their training."""
    known = {(family, v.key): v for family in VARIANTS for v in VARIANTS[family]}
    known |= {("ConvNeXt", "plain"): _PLAIN_CONVNEXT, ("ResNet-20", "lps3"): _BLURRED_LPS}
    return [Row(family, known[family, key], augmentation) for family, key, augmentation in _ACCURATE]


def runs(table: Sequence[Row], seeds: Sequence[int]) -> Iterator[Run]:
    """All runs of a table, sorted by seed, then unshifted training images before shifted ones."""
    for seed, augmentation in itertools.product(seeds, AUGMENTATIONS):
        yield from (Run(row, seed) for row in table if row.augmentation == augmentation)

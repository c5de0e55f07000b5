"""The model card: the description that is stored with every network."""

import dataclasses
import warnings
from collections.abc import Mapping
from typing import Any, Self

from aliasfree_jax.data.class_names import placeholders
from aliasfree_jax.errors import CheckpointError

# Fields of both `config.data` and the card. They decide how images for the network are prepared.
PREPARATION = ("mean", "std", "zero_pad", "eval_view", "eval_crop_ratio", "interpolation", "exif")


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What is needed to rebuild a network, to prepare its input and to name its classes.

    Attributes:
      model: Name for `create_model`, or "/path/to/my_file.py:make_network".
      options: Keyword arguments of `create_model`, or of that function.
      class_names: Names of the classes.
      image_size: Side of the square input, pixels, including the border of `zero_pad`.
      channels: Channels of the input.
      mean: Mean per channel of images in [0, 1].
      std: Standard deviation per channel of images in [0, 1].
      eval_crop_ratio: As in `config.data`.
      step: Number of parameter updates. 0 for converted weights.
      origin: Configuration or original file, for people.
      zero_pad: As in `config.data`.
      eval_view: As in `config.data`.
      interpolation: As in `config.data`.
      exif: As in `config.data`.
      task: As in the configuration: "classification", "segmentation" or "regression".
      shift_invariant: Arguments of `shift_invariant`, as in `config.model`. Empty: not transformed.
      file_sha256: SHA-256 of the file that `model` names. "" for networks of `create_model`.
    """

    model: str
    options: dict[str, Any]
    class_names: tuple[str, ...]
    image_size: int
    channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    eval_crop_ratio: float
    step: int
    origin: str
    zero_pad: int = 0
    eval_view: str = "auto"
    interpolation: str = "bicubic"
    exif: bool = False
    task: str = "classification"
    shift_invariant: dict[str, Any] = dataclasses.field(default_factory=dict)
    file_sha256: str = ""

    def in_words(self) -> str:
        """Returns the network and its options as text."""
        transformed = f", shift_invariant {self.shift_invariant}" if self.shift_invariant else ""
        return f"{self.model} {self.options}{transformed}"

    def preparation(self) -> dict[str, Any]:
        """Returns the fields of `config.data` that decide how images for this network are prepared."""
        side = self.image_size - 2 * self.zero_pad
        return {"image_size": side} | {name: getattr(self, name) for name in PREPARATION}

    def outputs(self) -> tuple[str, ...]:
        """Returns the class name of each output. Numbers if the card has no names."""
        count = int(self.options.get("num_classes", len(self.class_names)))
        return self.class_names if len(self.class_names) == count else placeholders(count)

    def to_json(self) -> dict[str, Any]:
        """Returns the card as a dictionary for `json`. `from_json` reads it back."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Makes a card from the dictionary of `to_json`.

        Unknown fields are ignored with a warning. Missing fields get their default.

        Args:
          fields: The dictionary.

        Returns:
          The card.

        Raises:
          CheckpointError: A field without a default is missing.
        """
        known = {field.name: field for field in dataclasses.fields(cls)}
        missing = [
            name
            for name, field in known.items()
            if name not in fields and field.default is field.default_factory is dataclasses.MISSING
        ]
        if missing:
            raise CheckpointError(
                f"the model card lacks {', '.join(missing)}. Another version of aliasfree_jax wrote it: use "
                "that version."
            )
        if others := [name for name in fields if name not in known]:
            warnings.warn(
                "this version of aliasfree_jax does not know these fields of the model card and ignores "
                f"them: {', '.join(others)}.",
                stacklevel=2,
            )
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in fields.items()
            if name in known
        }
        return cls(**values)

"""How images are prepared for what is measured: as the network's card says, and wider for windows."""

from collections.abc import Collection
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from aliasfree_jax.checkpoint import ModelCard
from aliasfree_jax.data.sources import Source
from aliasfree_jax.data.views import described
from aliasfree_jax.errors import ConfigError


class View(NamedTuple):
    """How images are prepared that measurements share.

    Attributes:
      margin: pixels by which they are wider on each side than the network's input.
      interpolation: as in `config.data`.
      enlarged: with a margin: the image is enlarged for it; else more of it is seen, at the usual scale.
    """

    margin: int
    interpolation: str
    enlarged: bool = False

    def data(self, config: ConfigDict) -> ConfigDict:
        """The section data of these images.

        Raises:
          ConfigError: images resized as usual do not reach so far, or inputs have a border of zeros.
        """
        data = ConfigDict(config.data)
        data.interpolation = self.interpolation
        if not self.margin:
            return data
        if data.zero_pad:
            raise ConfigError(
                f"windows are cut from images, not from inputs with a border of zeros (data.zero_pad = "
                f"{data.zero_pad}): measure circular or zero-filled shifts, or set data.zero_pad = 0."
            )
        side, wanted = data.image_size, data.image_size + 2 * self.margin
        shorter = wanted if self.enlarged else int(side / data.eval_crop_ratio)
        if wanted > shorter:
            raise ConfigError(
                f"windows need images of {wanted} pixels (input {side}, eval.crop_margin = {self.margin} "
                f"each way), but they are resized to {shorter} (data.eval_crop_ratio = "
                f"{data.eval_crop_ratio:g}): the margin is at most {(shorter - side) // 2} then. Or use "
                "--zero_filled_shifts."
            )
        # Half a pixel more than the shorter side, whose fraction is cut off: rounding cannot lose a pixel.
        data.image_size, data.eval_crop_ratio = wanted, wanted / (shorter + 0.5)
        data.eval_view = "crop"  # also where the usual view squeezes the image: that has no surroundings
        return data


def prepare(data: ConfigDict, card: ModelCard, overridden: Collection[str] = ()) -> dict[str, Any]:
    """Sets the fields of `data` that belong to the weights, and tells what came from where.

    Args:
      data: the section `config.data`; changed in place.
      card: of the network.
      overridden: fields that stay as they are, e.g. "data.image_size": those that the user named.

    Returns:
      {"images": the preparation in words, "overridden": {field: {"used": ..., "network": ...}}}, for
      `results["preparation"]`.

    Raises:
      ConfigError: another number of means or deviations than the network has channels.
    """
    network = card.preparation()
    named = [field for field in network if f"data.{field}" in overridden]
    data.update({field: value for field, value in network.items() if field not in named})
    for field in ("mean", "std"):
        if len(data[field]) != card.channels:
            raise ConfigError(
                f"data.{field} has {len(data[field])} numbers, but the network takes {card.channels} "
                "channels: give one number a channel, or leave the field out for the network's."
            )
    found = {field: {"used": data[field], "network": network[field]} for field in named}
    return {"images": described(data, card.task), "overridden": found}


def check_channels(source: Source, card: ModelCard) -> None:
    """Raises `ConfigError` if the network takes images of another number of channels."""
    image = source[0].image
    channels = 3 if isinstance(image, bytes) else image.shape[-1]  # decoded files are RGB
    if channels != card.channels:
        raise ConfigError(
            f"the network takes {card.channels} channels, but the images have {channels}: evaluate it on "
            "images like those that it was trained on (data.source, data.path)."
        )

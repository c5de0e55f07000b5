"""Prepares images as the network's card requires, and makes them larger if windows are measured."""

from collections.abc import Collection
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from aliasfree_jax.checkpoint import ModelCard
from aliasfree_jax.data.sources import Source
from aliasfree_jax.data.views import described
from aliasfree_jax.errors import ConfigError


class View(NamedTuple):
    """Preparation of images that several measurements share.

    Attributes:
      margin: Pixels by which the images are larger than the network's input on each side.
      interpolation: As in `config.data`.
      enlarged: True: the image is enlarged to fill the margin. False: the margin shows more of the image at
        the usual scale.
    """

    margin: int
    interpolation: str
    enlarged: bool = False

    def data(self, config: ConfigDict) -> ConfigDict:
        """Returns the configuration's section data for these images.

        Raises:
          ConfigError: The resized images are too small for the margin, or inputs have a border of zeros.
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
                f"windows need images of {wanted} pixels (input {side}, eval.crop_margin = {self.margin} on "
                f"each side), but images are resized to {shorter} (data.eval_crop_ratio = "
                f"{data.eval_crop_ratio:g}). Set eval.crop_margin to at most {(shorter - side) // 2}, or use "
                "--zero_filled_shifts."
            )
        # Half a pixel is added because the resized side is rounded down: rounding cannot lose a pixel.
        data.image_size, data.eval_crop_ratio = wanted, wanted / (shorter + 0.5)
        data.eval_view = "crop"  # the view "warp" shows the whole image: nothing would be around it
        return data


def prepare(data: ConfigDict, card: ModelCard, overridden: Collection[str] = ()) -> dict[str, Any]:
    """Sets the fields of `data` that belong to the weights, such as image size and normalisation.

    Args:
      data: The section `config.data`; changed in place.
      card: The network's card.
      overridden: Fields set by the user, which are not changed, e.g. "data.image_size".

    Returns:
      {"images": description of the preparation, "overridden": {field: {"used": ..., "network": ...}}}, for
      `results["preparation"]`.

    Raises:
      ConfigError: The number of means or standard deviations differs from the network's input channels.
    """
    network = card.preparation()
    named = [field for field in network if f"data.{field}" in overridden]
    data.update({field: value for field, value in network.items() if field not in named})
    for field in ("mean", "std"):
        if len(data[field]) != card.channels:
            raise ConfigError(
                f"data.{field} has {len(data[field])} numbers, but the network has {card.channels} input "
                "channels: set one number per channel, or omit the field to use the network's values."
            )
    found = {field: {"used": data[field], "network": network[field]} for field in named}
    return {"images": described(data, card.task), "overridden": found}


def check_channels(source: Source, card: ModelCard) -> None:
    """Raises `ConfigError` if the images and the network's input have different numbers of channels."""
    image = source[0].image
    channels = 3 if isinstance(image, bytes) else image.shape[-1]  # decoded files are RGB
    if channels != card.channels:
        raise ConfigError(
            f"the network has {card.channels} input channels, but the images have {channels}: evaluate it on "
            "images like those of its training (data.source, data.path)."
        )

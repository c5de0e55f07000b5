"""How an evaluation prepares its images: as the weights are used to, unless a field is overridden by name."""

from collections.abc import Collection, Mapping
from typing import Any

from ml_collections import ConfigDict

from aliasfree_jax.checkpoint import ModelCard
from aliasfree_jax.data.sources import Source
from aliasfree_jax.data.views import described
from aliasfree_jax.errors import ConfigError


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
    return {"images": described(data), "overridden": found}


def check_channels(source: Source, card: ModelCard) -> None:
    """Raises `ConfigError` if the network takes images of another number of channels."""
    image = source[0].image
    channels = 3 if isinstance(image, bytes) else image.shape[-1]  # decoded files are RGB
    if channels != card.channels:
        raise ConfigError(
            f"the network takes {card.channels} channels, but the images have {channels}: evaluate it on "
            "images like those that it was trained on (data.source, data.path)."
        )


def in_words(preparation: Mapping[str, Any]) -> str:
    """What `prepare` gave, as a line: "prepared for 48 x 48, ratio 0.875, bicubic; overridden: ..."."""
    parts = [f"prepared for {preparation['images']}"]
    if overridden := preparation["overridden"]:
        fields = [
            field if values["used"] == values["network"] else f"{field} (network: {values['network']})"
            for field, values in overridden.items()
        ]
        parts.append(f"overridden: {', '.join(fields)}")
    parts += [f"{name}: {kind}, as the original" for name, kind in preparation.get("presets", {}).items()]
    return "; ".join(parts)

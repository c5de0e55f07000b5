"""The network that a configuration describes."""

from collections.abc import Iterable
from typing import Any

from flax import linen as nn
from ml_collections import ConfigDict

from aliasfree_jax.checkpoint import ModelCard, abstract_variables
from aliasfree_jax.config import PRECISIONS
from aliasfree_jax.data.augment import Preprocessing
from aliasfree_jax.models import create_model
from aliasfree_jax.training.blending import blended_network


def model_options(config: ConfigDict, num_classes: int) -> dict[str, Any]:
    """The keyword arguments of `create_model` that a configuration and the number of classes imply."""
    return {
        **PRECISIONS[config.train.precision],
        # Only ConvNeXts have the option.
        **({} if config.train.remat == "auto" else {"remat": config.train.remat}),
        **config.model.options.to_dict(),
        "num_classes": num_classes,
    }


def make_card(config: ConfigDict, class_names: Iterable[str], origin: str) -> ModelCard:
    """The card, at step 0, of the network that `config` trains."""
    names = tuple(class_names)
    return ModelCard(
        model=config.model.name,
        options=model_options(config, len(names)),
        class_names=names,
        image_size=Preprocessing.from_config(config.data).input_size,
        channels=len(config.data.mean),
        mean=tuple(config.data.mean),
        std=tuple(config.data.std),
        eval_crop_ratio=config.data.eval_crop_ratio,
        step=0,
        origin=origin,
        zero_pad=config.data.zero_pad,
        eval_view=config.data.eval_view,
        interpolation=config.data.interpolation,
        exif=config.data.exif,
    )


def check_network(config: ConfigDict) -> None:
    """Raises what is wrong with the network's options or the image size, before any data is read."""
    options = model_options(config, num_classes=1)
    networks: list[nn.Module] = [create_model(config.model.name, **options)]
    if config.train.blend.epochs > 0:
        networks.append(blended_network(config.model.name, options, config.train.blend.start))
    side = Preprocessing.from_config(config.data).input_size
    for network in networks:
        abstract_variables(network, side, len(config.data.mean))

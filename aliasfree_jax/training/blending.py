"""Fine-tuning a ConvNeXt into another: the network and the weights that such a run starts from.

The network of `train.blend.start` and the model share the parameters of all layers that both have, and the
model's own, those of its activations, are there from the beginning. So the training state is that of the
model throughout; what changes with the step is only the function that is computed from it.
"""

import dataclasses

from ml_collections import ConfigDict

from aliasfree_jax.checkpoint import ModelCard
from aliasfree_jax.errors import CheckpointError, ConfigError
from aliasfree_jax.layers.blend import described
from aliasfree_jax.models import create_model
from aliasfree_jax.models.convnext import ConvNeXt

# What decides which function a ConvNeXt is, given its parameters.
_FUNCTION = (
    *("sampler", "activation", "norm", "padding", "sampled_padding", "blend"),
    *("stem_kernel", "stem_stride", "stem_activation", "stem_residual"),
)


def blended_card(card: ModelCard, start: str, share: float) -> ModelCard:
    """The card of the network that is `share` of the way from the family `start` to the one of `card`."""
    return dataclasses.replace(card, options={**card.options, "blend": {"start": start, "share": share}})


def blended_network(card: ModelCard, config: ConfigDict) -> ConvNeXt:
    """The network that blends, as `config.train.blend` says, into the one of `card`.

    Raises:
      ConfigError: not a ConvNeXt, or an unknown family to start from.
    """
    if not card.model.startswith("convnext"):
        raise ConfigError(f"train.blend is for ConvNeXts (convnext_*), not for {card.model!r}.")
    options = blended_card(card, config.train.blend.start, 0.0).options
    module: ConvNeXt = create_model(card.model, **options)
    return module


def starting_network(blended: ConvNeXt, card: ModelCard | None) -> ConvNeXt:
    """The network that `blended` starts from, if the initial weights, described by `card`, are such a one's.

    Raises:
      ConfigError: no initial weights.
      CheckpointError: of a network that computes something else.
    """
    assert blended.blend is not None
    start = blended.blend.start
    if card is None:
        raise ConfigError(
            "train.blend starts from the weights of another network: pass them with --config.init_from=... "
            "(a run, a converted or an original file), or set train.blend.epochs = 0."
        )
    given = create_model(card.model, **card.options)
    different = [
        name for name in _FUNCTION if described(getattr(given, name, None)) != described(getattr(start, name))
    ]
    if different:
        raise CheckpointError(
            f"the weights of {card.model!r} ({card.origin}) are not of the family that train.blend.start "
            f"names: they differ in {', '.join(different)}. Set train.blend.start to their family."
        )
    return start

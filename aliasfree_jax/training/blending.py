"""Fine-tuning a ConvNeXt into another: the network and the weights that such a run starts from.

The network of `train.blend.start` and the model share the parameters of all layers that both have, and the
model's own, those of its activations, are there from the beginning. So the training state is that of the
model throughout; what changes with the step is only the function that is computed from it.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from aliasfree_jax.checkpoint import ModelCard
from aliasfree_jax.errors import CheckpointError, ConfigError
from aliasfree_jax.models import create_model
from aliasfree_jax.models.convnext import ConvNeXt
from aliasfree_jax.training.schedules import Schedule

# What decides which function a ConvNeXt is, given its parameters.
_FUNCTION = (
    *("sampler", "activation", "norm", "padding", "sampled_padding", "blend"),
    *("stem_kernel", "stem_stride", "stem_activation", "stem_residual"),
)


def blended_card(card: ModelCard, start: str, share: float) -> ModelCard:
    """The card of the network that is `share` of the way from the family `start` to that of `card`."""
    return dataclasses.replace(card, options={**card.options, "blend": {"start": start, "share": share}})


def blended_network(card: ModelCard, start: str) -> ConvNeXt:
    """The network that blends from the family `start` into that of `card`.

    Raises:
      ConfigError: not a ConvNeXt, or an unknown family to start from.
    """
    if not card.model.startswith("convnext_"):
        raise ConfigError(f"train.blend is for ConvNeXts (convnext_*), not for {card.model!r}.")
    module = create_model(card.model, **blended_card(card, start, 0.0).options)
    assert isinstance(module, ConvNeXt)
    return module


def own_layers(steps: int) -> Schedule:
    """The share of the model's own layers: 0 at the first update, growing linearly to 1 after `steps`."""

    def share(step: jax.Array | int) -> jax.Array:
        return jnp.minimum(jnp.asarray(step, jnp.float32) / steps, 1.0)

    return share


def starting_network(blended: nn.Module, card: ModelCard | None) -> ConvNeXt:
    """The network that `blended` starts from, if the initial weights, described by `card`, are such a one's.

    Raises:
      ConfigError: no initial weights.
      CheckpointError: of a network that computes something else.
    """
    assert isinstance(blended, ConvNeXt) and blended.blend is not None
    start = blended.blend.start
    if card is None:
        raise ConfigError(
            "train.blend starts from the weights of another network: pass them with --config.init_from=... "
            "(a run, a converted or an original file), or set train.blend.epochs = 0."
        )
    given = create_model(card.model, **card.options)
    different = [name for name in _FUNCTION if getattr(given, name, None) != getattr(start, name)]
    if different:
        raise CheckpointError(
            f"the weights of {card.model!r} ({card.origin}) are not of the family that train.blend.start "
            f"names: they differ in {', '.join(different)}. Set train.blend.start to their family."
        )
    return start

"""Fine-tuning a ConvNeXt into another: the network and the weights that such a run starts from.

The network of `train.blend.start` and the model share the parameters of all layers that both have, and the
model's own, those of its activations, are there from the beginning. So the training state is that of the
model throughout; what changes with the step is only the function that is computed from it.
"""

from collections.abc import Mapping
from typing import Any

from aliasfree_jax.checkpoint import ModelCard
from aliasfree_jax.errors import CheckpointError, ConfigError
from aliasfree_jax.models import create_model
from aliasfree_jax.models.convnext import ConvNeXt

# What decides which function a ConvNeXt is, given its parameters.
_FUNCTION = (
    *("sampler", "activation", "norm", "padding", "sampled_padding", "blend"),
    *("stem_kernel", "stem_stride", "stem_activation", "stem_residual"),
)


def blended_options(options: Mapping[str, Any], start: str, share: float) -> dict[str, Any]:
    """The options of the network that is `share` of the way from the family `start` to that of `options`."""
    return {**options, "blend": {"start": start, "share": share}}


def blended_network(model: str, options: Mapping[str, Any], start: str) -> ConvNeXt:
    """The network that blends from the family `start` into the model with these options.

    Raises:
      ConfigError: not a ConvNeXt, or an unknown family to start from.
    """
    if not model.startswith("convnext_"):
        raise ConfigError(f"train.blend is for ConvNeXts (convnext_*), not for {model!r}.")
    module = create_model(model, **blended_options(options, start, 0.0))
    assert isinstance(module, ConvNeXt)
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
    different = [name for name in _FUNCTION if getattr(given, name, None) != getattr(start, name)]
    if different:
        raise CheckpointError(
            f"the weights of {card.model!r} ({card.origin}) are not of the family that train.blend.start "
            f"names: they differ in {', '.join(different)}. Set train.blend.start to their family."
        )
    return start

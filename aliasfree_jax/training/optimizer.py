"""The papers' optimizers, AdamW for ConvNeXts and SGD with momentum for the others; and LAMB."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from aliasfree_jax.checkpoint import PyTree
from aliasfree_jax.training.layer_decay import scale_by_depth
from aliasfree_jax.training.schedule import Schedule


def decays(leaf: jax.Array | jax.ShapeDtypeStruct) -> bool:
    """Whether weight decay applies to this parameter: to those of more than one axis.

    These are all kernels and all coefficients of polynomial activations [C, 3]. Biases, norm scales,
    layer scales and the scales around activations have one axis or none.
    """
    return leaf.ndim > 1


def decay_mask(params: PyTree) -> PyTree:
    """`decays` of every parameter."""
    return jax.tree.map(decays, params)


def sgd_decay_mask(params: PyTree) -> PyTree:
    """All parameters, norms and biases too, but those that score polyphase components (LPS)."""

    def decayed(path: tuple[Any, ...], _: jax.Array) -> bool:
        return not any(str(key.key).startswith("logits") for key in path)

    return jax.tree_util.tree_map_with_path(decayed, params)


def _sgd(config: ConfigDict, schedule: Schedule) -> optax.GradientTransformation:
    """PyTorch's SGD: the decay is part of the gradient."""
    decay = optax.add_decayed_weights(config.weight_decay, mask=sgd_decay_mask)
    return optax.chain(decay, optax.sgd(schedule, momentum=config.momentum, nesterov=config.nesterov))


def _adaptive(
    kind: Callable[..., optax.GradientTransformation], config: ConfigDict, schedule: Schedule
) -> optax.GradientTransformation:
    """Decoupled weight decay on kernels and activation coefficients only."""
    return kind(
        schedule,
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=decay_mask,
    )


OPTIMIZERS: dict[str, Callable[[ConfigDict, Schedule], optax.GradientTransformation]] = {
    "adamw": functools.partial(_adaptive, optax.adamw),
    # Each layer's step as long as its weights, for very large batches: You et al. 2020 (arXiv 1904.00962).
    "lamb": functools.partial(_adaptive, optax.lamb),
    "sgd": _sgd,
}


def make_optimizer(config: ConfigDict, schedule: Schedule) -> optax.GradientTransformation:
    """That of the section `optimizer` of a configuration.

    Gradients are clipped first and updates scaled by depth last, if it says so.
    """
    parts = [OPTIMIZERS[config.name](config, schedule)]
    if config.clip_norm > 0:
        parts.insert(0, optax.clip_by_global_norm(config.clip_norm))
    if config.layer_decay != 1:
        parts.append(scale_by_depth(config.layer_decay))
    return parts[0] if len(parts) == 1 else optax.chain(*parts)

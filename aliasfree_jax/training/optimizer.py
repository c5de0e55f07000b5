"""The papers' optimizers: AdamW for ConvNeXts, SGD with momentum for the other networks; and LAMB."""

import functools
import re
from collections.abc import Callable
from typing import Any

import jax
import optax
from ml_collections import ConfigDict

from aliasfree_jax.checkpoint import PyTree
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.training.schedules import Schedule

LAST = 13  # depth of a ConvNeXt's final norm and head


def decay_mask(params: PyTree) -> PyTree:
    """Whether weight decay applies to each parameter: to those with more than one axis.

    These are all kernels, and all coefficients `[C, 3]` of polynomial activations. Biases, norm scales, layer
    scales and the scales around activations have one axis or none.
    """
    return jax.tree.map(lambda leaf: leaf.ndim > 1, params)


def sgd_decay_mask(params: PyTree) -> PyTree:
    """All parameters, including norms and biases, except those that score polyphase components (LPS)."""

    def decayed(path: tuple[Any, ...], _: jax.Array) -> bool:
        return not any(str(key.key).startswith("logits") for key in path)

    return jax.tree_util.tree_map_with_path(decayed, params)


def _sgd(config: ConfigDict, schedule: Schedule) -> optax.GradientTransformation:
    """PyTorch's SGD: the weight decay is part of the gradient."""
    decay = optax.add_decayed_weights(config.weight_decay, mask=sgd_decay_mask)
    return optax.chain(decay, optax.sgd(schedule, momentum=config.momentum, nesterov=config.nesterov))


def _adaptive(
    kind: Callable[..., optax.GradientTransformation], config: ConfigDict, schedule: Schedule
) -> optax.GradientTransformation:
    """Decoupled weight decay, only on kernels and activation coefficients."""
    return kind(
        schedule,
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=decay_mask,
    )


def depth(path: str) -> int:
    """Depth of a ConvNeXt's parameter, from 0 (stem) to 13 (head).

    In the third stage, every three blocks share a depth. Each other stage is one depth. These are the numbers
    of the original for its sizes with 27 blocks in the third stage. Smaller networks use fewer of them.

    Args:
      path: path of the parameter, such as "stage2_block4/norm/scale".

    Raises:
      ConfigError: the parameter belongs to another network.
    """
    name = path.split("/")[0]
    if name in ("stem", "stem_norm", "downsample0", "downsample0_norm"):
        return 0
    if name in ("norm", "head"):
        return LAST
    if match := re.fullmatch(r"downsample([123])(_norm)?", name):
        return (2, 3, 12)[int(match[1]) - 1]
    if match := re.fullmatch(r"stage([0-3])_block(\d+)", name):
        stage, block = int(match[1]), int(match[2])
        return (1, 2, min(3 + block // 3, 11), 12)[stage]
    raise ConfigError(
        "optimizer.layer_decay is defined only for ConvNeXts of up to four stages, not for a network with "
        f"{path!r}: set it to 1."
    )


def scale_by_depth(decay: float) -> optax.GradientTransformation:
    """Multiplies every update by decay^(13 - depth), and so the learning rate and the weight decay.

    Layers nearer to the image learn more slowly. This is ConvNeXt's fine-tuning recipe.
    """

    def scaled(path: tuple[Any, ...], update: jax.Array) -> jax.Array:
        return update * decay ** (LAST - depth("/".join(str(key.key) for key in path)))

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scaled, updates))


def scale_backbone(factor: float) -> optax.GradientTransformation:
    """Multiplies the updates of the module "backbone" (DeepLab's), and so its learning rate and weight decay.

    Raises:
      ConfigError: the network has no backbone.
    """

    def scaled(path: tuple[Any, ...], update: jax.Array) -> jax.Array:
        return update * factor if path[0].key == "backbone" else update

    def scale(updates: PyTree, _: PyTree) -> PyTree:
        if "backbone" not in updates:
            raise ConfigError(
                "optimizer.backbone_factor is only for networks with a backbone (deeplabv3plus_*): set it "
                "to 1."
            )
        return jax.tree_util.tree_map_with_path(scaled, updates)

    return optax.stateless(scale)


OPTIMIZERS: dict[str, Callable[[ConfigDict, Schedule], optax.GradientTransformation]] = {
    "adamw": functools.partial(_adaptive, optax.adamw),
    # The step of each layer is proportional to its weights' norm; for very large batches. You et al. 2020
    # (arXiv 1904.00962).
    "lamb": functools.partial(_adaptive, optax.lamb),
    "sgd": _sgd,
}


def make_optimizer(config: ConfigDict, schedule: Schedule) -> optax.GradientTransformation:
    """The optimizer of the section `optimizer` of a configuration.

    If configured, gradients are clipped first, and updates are scaled by depth last.
    """
    parts = [OPTIMIZERS[config.name](config, schedule)]
    if config.clip_norm > 0:
        parts.insert(0, optax.clip_by_global_norm(config.clip_norm))
    if config.layer_decay != 1:
        parts.append(scale_by_depth(config.layer_decay))
    if config.backbone_factor != 1:
        parts.append(scale_backbone(config.backbone_factor))
    return parts[0] if len(parts) == 1 else optax.chain(*parts)

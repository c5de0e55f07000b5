"""AdamW as the papers use it: decoupled weight decay on kernels and activation coefficients only."""

import jax
import optax
from ml_collections import ConfigDict

from aliasfree_jax.checkpoint import PyTree
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


def make_optimizer(config: ConfigDict, schedule: Schedule) -> optax.GradientTransformation:
    """AdamW of the section `optimizer` of a configuration; gradients are clipped first if it says so."""
    adamw = optax.adamw(
        schedule,
        b1=config.b1,
        b2=config.b2,
        eps=config.eps,
        weight_decay=config.weight_decay,
        mask=decay_mask,
    )
    if config.clip_norm > 0:
        return optax.chain(optax.clip_by_global_norm(config.clip_norm), adamw)
    return adamw

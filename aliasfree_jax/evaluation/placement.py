"""Where an evaluation computes: images whole on every device, work divided over them.

With several processes, all run the same evaluation on the same batches (`training.mesh.evaluated_batches`),
of which each holds its part; all get the same results.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from aliasfree_jax.training.mesh import BATCH_AXES, make_mesh, replicate, replicated, split
from aliasfree_jax.training.step import make_predict


def mesh_of(images: Any) -> Mesh | None:
    """The mesh (of `training.mesh`) that images lie on, over which work is divided; None if on none."""
    mesh = getattr(getattr(images, "sharding", None), "mesh", None)
    return mesh if isinstance(mesh, Mesh) and set(BATCH_AXES) <= set(mesh.axis_names) else None


def everywhere(images: Any) -> jax.Array:
    """Images whole on each of the devices of their mesh."""
    mesh = mesh_of(images)
    return replicate(images, mesh) if mesh else jnp.asarray(images)


def divided(array: jax.Array, mesh: Mesh | None) -> jax.Array:
    """In a compiled function: axis 0 is computed in parts."""
    return jax.lax.with_sharding_constraint(array, split(mesh)) if mesh else array


def collected(array: jax.Array, mesh: Mesh | None) -> jax.Array:
    """In a compiled function: the whole result comes to every device, and so to every process."""
    return jax.lax.with_sharding_constraint(array, replicated(mesh)) if mesh else array


def predictor(
    module: nn.Module, variables: Mapping[str, Any], devices: int = 0
) -> Callable[[Any], jax.Array]:
    """The compiled function images [B, H, W, C] -> logits [B, K] of a network, on `devices` (0 = all).

    Each computes its part of images that are divided over them, and the whole of others.
    """
    mesh = make_mesh(devices)
    predict, weights = make_predict(module, mesh), replicate(variables, mesh)
    return lambda images: predict(weights, images)

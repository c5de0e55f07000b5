"""Content-adaptive blur: a low-pass filter of its own at every position (DDAC, Zou et al. 2020)."""

import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ShapeError
from aliasfree_jax.ops.padding import Padding, pad, same_padding


def adaptive_blur(x: jax.Array, weights: jax.Array, padding: Padding = "circular") -> jax.Array:
    """Filters each position of [N, H, W, C] with the weights found there.

    Args:
      x: [N, H, W, C].
      weights: [N, H, W, G, k, k], k odd; channel c belongs to group c // (C / G).
      padding: how the map continues.

    Returns:
      [N, H, W, C]: sums over the k x k neighbourhood, as cross-correlation.

    Raises:
      ShapeError: channels that the groups do not divide, or an even k.
    """
    n, h, w, c = x.shape
    groups, size = weights.shape[3:5]
    if c % groups or size % 2 == 0:
        raise ShapeError(
            f"an adaptive blur needs an odd size and channels that its groups divide, got size {size}, "
            f"{c} channels and {groups} groups."
        )
    padded = pad(x, (same_padding(size),) * 2, padding)
    padded = padded.reshape(n, *padded.shape[1:3], groups, c // groups)
    total = sum(
        padded[:, i : i + h, j : j + w] * weights[..., i, j, None] for i in range(size) for j in range(size)
    )
    return jnp.asarray(total).reshape(n, h, w, c)

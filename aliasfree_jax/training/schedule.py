"""The learning rate at every step: linear warm-up, then a cosine, with the original's values."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Schedule = Callable[[jax.Array | int], jax.Array]


def warmup_cosine(peak: float, end: float, *, warmup_steps: int, total_steps: int) -> Schedule:
    """Learning rate as a function of the number of updates done so far.

    The first of the warm-up steps has rate 0, its last one the peak, which the first step of the
    cosine repeats; the last step of all stays a hair above `end`.
    """
    decay_steps = max(total_steps - warmup_steps, 1)

    def rate(step: jax.Array | int) -> jax.Array:
        step = jnp.asarray(step)
        left = jnp.clip(total_steps - step, 0, decay_steps)
        # 1 + cos(pi - t) as 2 sin^2(t / 2): no cancellation in float32 near the end.
        cosine = end + (peak - end) * jnp.sin(jnp.pi * left / (2 * decay_steps)) ** 2
        warmup = peak * step / max(warmup_steps - 1, 1)
        return jnp.where(step < warmup_steps, warmup, cosine).astype(jnp.float32)

    return rate

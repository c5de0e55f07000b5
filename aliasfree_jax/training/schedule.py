"""Learning rate and temperature at every step, with the originals' values; and the share of a blend."""

from collections.abc import Callable, Sequence

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


def step_decay(peak: float, *, factor: float, steps: Sequence[int], warmup_steps: int = 0) -> Schedule:
    """`peak`, multiplied by `factor` at each of `steps`, after a linear warm-up (PyTorch's StepLR)."""

    def rate(step: jax.Array | int) -> jax.Array:
        step = jnp.asarray(step)
        passed = jnp.sum(step >= jnp.asarray(steps, jnp.int32)) if steps else 0
        warmup = peak * step / max(warmup_steps - 1, 1)
        return jnp.where(step < warmup_steps, warmup, peak * factor**passed).astype(jnp.float32)

    return rate


def linear_share(steps: int) -> Schedule:
    """0 at the first update, growing linearly to 1 after `steps` updates."""

    def share(step: jax.Array | int) -> jax.Array:
        return jnp.minimum(jnp.asarray(step, jnp.float32) / steps, 1.0)

    return share


def decaying_temperature(factor: float, *, every: int, least: float) -> Schedule:
    """1, times `factor` after each `every` (at least 1) steps, never below `least` (StepDecay of LPS)."""

    def temperature(step: jax.Array | int) -> jax.Array:
        return jnp.maximum(factor ** (jnp.asarray(step) // every), least).astype(jnp.float32)

    return temperature


def linear_temperature(steps: Sequence[int], values: Sequence[float], *, first: int = 0) -> Schedule:
    """1 up to step `first`, then piecewise linear through `values` at `steps`, then constant.

    MultiStep of LPS, which starts to fall after the first epoch: `first` is its length. A run so short that
    the first of the ascending `steps` comes no later falls from its start on; of values that are due at the
    same step, the last one counts.
    """
    start = first if first < min(steps, default=0) else 0
    heights = {start: 1.0} | dict(zip(steps, values, strict=True))
    # Interpolation is exact at every knot but the last: without one more, rounding may fall below the target.
    knots, reached = [*heights, max(heights) + 1], [*heights.values(), [*heights.values()][-1]]

    def temperature(step: jax.Array | int) -> jax.Array:
        known = jnp.asarray(knots, jnp.float32), jnp.asarray(reached, jnp.float32)
        return jnp.interp(jnp.asarray(step, jnp.float32), *known)

    return temperature

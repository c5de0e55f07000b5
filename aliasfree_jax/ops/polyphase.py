"""Polyphase components and their data-dependent selection (APS, Chaman & Dokmanic 2021, arXiv 2011.14214).

A map sampled by 2 has four polyphase components, one a phase (row offset, column offset). They are
numbered as in the original: 0 (0, 0), 1 (1, 0), 2 (0, 1), 3 (1, 1). An integer circular shift of the
map permutes the components (and shifts them); a choice that depends only on the *set* of components
therefore commutes with it.
"""

from typing import Literal

import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError, ShapeError, unknown
from aliasfree_jax.ops.padding import pad

Criterion = Literal["l2", "l1", "l_infty", "non_abs_max", "l2_min", "l1_min"]

CRITERIA = ("l2", "l1", "l_infty", "non_abs_max", "l2_min", "l1_min")


def pad_to_even(
    x: jax.Array, padding: Literal["circular", "zero", "reflect", "replicate"] = "circular"
) -> jax.Array:
    """Appends a row and a column where the sides of [N, H, W, C] are odd (the original's aps_pad)."""
    h, w = x.shape[1:3]
    return pad(x, ((0, h % 2), (0, w % 2)), padding) if h % 2 or w % 2 else x


def polyphase_components(x: jax.Array) -> jax.Array:
    """Splits [N, H, W, C] with even sides into its components [N, 4, H/2, W/2, C], in phase order."""
    n, h, w, c = x.shape
    if h % 2 or w % 2:
        raise ShapeError(
            f"polyphase components by 2 need even sides, got {h} x {w}; pad_to_even adds a row or column."
        )
    grid = x.reshape(n, h // 2, 2, w // 2, 2, c)  # [N, i, row offset, j, column offset, C]
    return grid.transpose(0, 4, 2, 1, 3, 5).reshape(n, 4, h // 2, w // 2, c)


def component_scores(components: jax.Array, criterion: Criterion = "l2") -> jax.Array:
    """Scores [N, 4] of the components [N, 4, h, w, C]; the phase with the largest is selected.

    Over all channels and positions jointly, accumulated in at least float32: the l2 norm (its
    square, which has the same order), l1 norm, largest magnitude, largest value, or the negated
    norms for the two `_min` criteria.

    Raises:
      ConfigError: unknown criterion.
    """
    values = components.astype(jnp.promote_types(components.dtype, jnp.float32))
    axes = (2, 3, 4)
    match criterion:
        case "l2":
            return jnp.sum(values**2, axes)
        case "l1":
            return jnp.sum(jnp.abs(values), axes)
        case "l_infty":
            return jnp.max(jnp.abs(values), axes)
        case "non_abs_max":
            return jnp.max(values, axes)
        case "l2_min":
            return -jnp.sum(values**2, axes)
        case "l1_min":
            return -jnp.sum(jnp.abs(values), axes)
    raise ConfigError(unknown("polyphase criterion", criterion, CRITERIA))


def select_component(components: jax.Array, phase: jax.Array) -> jax.Array:
    """The component [N, h, w, C] that `phase` [N] names in [N, 4, h, w, C], one choice a sample."""
    return jnp.take_along_axis(components, phase[:, None, None, None, None], axis=1)[:, 0]


def polyphase_downsample(
    x: jax.Array, criterion: Criterion = "l2", phase: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """Keeps the polyphase component with the best score: exactly shift-equivariant subsampling by 2.

    Args:
      x: [N, H, W, C]; odd sides get one circular row or column first (then no longer exact).
      criterion: see `component_scores`. Ties go to the first phase. No gradient flows through the
        choice.
      phase: [N] integers 0..3 to reuse instead of choosing (a shortcut branch, say).

    Returns:
      The component [N, ceil(H/2), ceil(W/2), C], and the phase [N] it was taken from.
    """
    components = polyphase_components(pad_to_even(x))
    if phase is None:
        phase = jnp.argmax(component_scores(jax.lax.stop_gradient(components), criterion), axis=1)
    return select_component(components, phase), phase


def polyphase_downsample_ref(x: jax.Array) -> jax.Array:
    """Twin of l2 `polyphase_downsample` on even sides, by strided slices in a Python loop."""
    samples = []
    for image in x:
        parts = [image[i::2, j::2] for j in (0, 1) for i in (0, 1)]
        samples.append(max(parts, key=lambda part: float((part**2).sum())))
    return jnp.stack(samples)

"""Polyphase components and their selection (APS: Chaman & Dokmanic 2021, arXiv 2011.14214).

A map sampled by s has s^2 polyphase components, one a phase (row offset, column offset). They are
numbered down the columns, phase = row offset + s * column offset; for s = 2 that is the order of APS,
0 (0, 0), 1 (1, 0), 2 (0, 1), 3 (1, 1). An integer circular shift of the map permutes the components
(and shifts them); a choice that depends only on the *set* of components therefore commutes with it.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.errors import ConfigError, ShapeError, unknown
from aliasfree_jax.ops.operation import operation, spell
from aliasfree_jax.ops.padding import Padding, check_padding, pad
from aliasfree_jax.ops.shapes import Pair, check_images, pair

Criterion = Literal["l2", "l1", "l_infty", "non_abs_max", "l2_min", "l1_min"]
TieOrder = Literal["columns", "rows"]

CRITERIA = get_args(Criterion)


def pad_to_multiple(x: jax.Array, strides: Pair = 2, padding: Padding = "CIRCULAR") -> jax.Array:
    """Appends rows and columns to [N, H, W, C] until the strides divide the sides.

    Circular as in APS (its aps_pad), zeros as in LPS; neither keeps the network exactly equivariant.
    """
    check_padding(padding)
    rows, columns = (-side % s for side, s in zip(x.shape[1:3], pair(strides, "strides"), strict=True))
    return pad(x, ((0, rows), (0, columns)), padding) if rows or columns else x


def polyphase_components(x: jax.Array, strides: Pair = 2) -> jax.Array:
    """Splits [N, H, W, C] into its components [N, R S, H/R, W/S, C] for `strides` (R, S), in phase order.

    Raises:
      ShapeError: a stride that does not divide its side.
    """
    (_, h, w, _), (r, s) = x.shape, pair(strides, "strides")
    if h % r or w % s:
        raise ShapeError(
            f"polyphase components by {r} x {s} need sides that these divide, got {h} x {w}; "
            "pad_to_multiple appends rows and columns."
        )
    return operation(spell("polyphase_components"), _components, x, strides=(r, s))


def _components(x: jax.Array, *, strides: tuple[int, int]) -> jax.Array:
    (n, h, w, c), (r, s) = x.shape, strides
    grid = x.reshape(n, h // r, r, w // s, s, c)  # [N, i, row offset, j, column offset, C]
    return grid.transpose(0, 4, 2, 1, 3, 5).reshape(n, r * s, h // r, w // s, c)


def component_scores(components: jax.Array, criterion: Criterion = "l2") -> jax.Array:
    """Scores [N, K] of the components [N, K, h, w, C]; the phase with the largest is selected.

    Over all channels and positions jointly, accumulated in at least float32: the l2 norm (its
    square, which has the same order), l1 norm, largest magnitude, largest value, or the negated
    norms for the two `_min` criteria.

    Raises:
      ConfigError: unknown criterion.
    """
    if criterion not in CRITERIA:
        raise ConfigError(unknown("polyphase criterion", criterion, CRITERIA))
    values, axes = components.astype(jnp.promote_types(components.dtype, jnp.float32)), (2, 3, 4)
    match criterion.removesuffix("_min"):
        case "l2":
            scores = jnp.sum(values**2, axes)
        case "l1":
            scores = jnp.sum(jnp.abs(values), axes)
        case "l_infty":
            scores = jnp.max(jnp.abs(values), axes)
        case _:
            scores = jnp.max(values, axes)
    return -scores if criterion.endswith("_min") else scores


def row_order(strides: Pair = 2) -> np.ndarray:
    """The phases in the order in which LPS numbers them, along the rows: [0, 2, 1, 3] for stride 2."""
    rows, columns = pair(strides, "strides")
    return np.array([column * rows + row for row in range(rows) for column in range(columns)])


def best_phase(scores: jax.Array, strides: Pair = 2, tie_order: TieOrder = "columns") -> jax.Array:
    """The phase [N] of the largest score in [N, K].

    Equal scores go to the first phase down the columns as in APS, or along the "rows" as in LPS.
    """
    if tie_order == "columns":
        return jnp.argmax(scores, axis=1)
    order = row_order(strides)
    return jnp.asarray(order)[jnp.argmax(scores[:, order], axis=1)]


def select_component(components: jax.Array, phase: jax.Array) -> jax.Array:
    """The component [N, h, w, C] of [N, K, h, w, C] that `phase` names for each sample.

    Args:
      phase: integers [N], or weights [N, K] for a mixture of the components (LPS in training).
    """
    return operation(spell("select_component"), _select, components, phase)


def _select(components: jax.Array, phase: jax.Array) -> jax.Array:
    if jnp.issubdtype(phase.dtype, jnp.floating):
        return jnp.einsum("nk,nkhwc->nhwc", phase.astype(components.dtype), components, precision="highest")
    return jnp.take_along_axis(components, phase[:, None, None, None, None], axis=1)[:, 0]


def polyphase_downsample(
    x: jax.Array,
    criterion: Criterion = "l2",
    phase: jax.Array | None = None,
    *,
    strides: Pair = 2,
    padding: Padding = "CIRCULAR",
) -> tuple[jax.Array, jax.Array]:
    """Keeps the polyphase component with the best score: exactly shift-equivariant subsampling.

    Args:
      x: [N, H, W, C]; sides that the stride does not divide are padded first (then no longer exact).
      criterion: see `component_scores`. Ties go to the first phase. No gradient flows through the
        choice.
      phase: to reuse instead of choosing (a shortcut branch, say): as in `select_component`.
      padding: for sides that the stride does not divide.

    Returns:
      The component [N, ceil(H/R), ceil(W/S), C], and the phase [N] it was taken from.

    Raises:
      ShapeError: not floating-point [N, H, W, C].
      ConfigError: unknown criterion or padding.
    """
    check_images(x)
    components = polyphase_components(pad_to_multiple(x, strides, padding), strides)
    if phase is None:
        phase = best_phase(component_scores(jax.lax.stop_gradient(components), criterion), strides)
    return select_component(components, phase), phase


def polyphase_upsample(x: jax.Array, phase: jax.Array, strides: Pair = 2) -> jax.Array:
    """Writes [N, h, w, C] at the `phase` it was sampled at into zeros: [N, R h, S w, C].

    The transpose of the selection (ApsUp; LPU, Rojas-Gomez et al. 2022): weights [N, K] instead of
    integers spread the map over all phases.
    """
    check_images(x)
    return operation(spell("polyphase_upsample"), _write, x, phase, strides=pair(strides, "strides"))


def _write(x: jax.Array, phase: jax.Array, *, strides: tuple[int, int]) -> jax.Array:
    (n, h, w, c), (r, s) = x.shape, strides
    if not jnp.issubdtype(phase.dtype, jnp.floating):
        phase = jax.nn.one_hot(phase, r * s, dtype=x.dtype)
    weights = phase.astype(x.dtype).reshape(n, s, r).transpose(0, 2, 1)  # [N, row offset, column offset]
    grid = x[:, :, None, :, None] * weights[:, None, :, None, :, None]
    return grid.reshape(n, h * r, w * s, c)

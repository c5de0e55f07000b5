"""Polyphase components and their selection (APS: Chaman & Dokmanic 2021, arXiv 2011.14214).

A map sampled by s has s^2 polyphase components, one per phase (row offset, column offset). Phases are
numbered down the columns: `phase = row offset + s * column offset`. For s = 2 this is the order of APS: 0
(0, 0), 1 (1, 0), 2 (0, 1), 3 (1, 1). An integer circular shift of the map permutes the components and
shifts them. A choice that depends only on the set of components therefore commutes with such shifts.
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
    """Appends rows and columns until the strides divide the sides of the map.

    APS pads circularly, LPS with zeros. A network with padded sides is no longer exactly shift-equivariant.

    Args:
      x: maps `[N, H, W, C]`.
      strides: strides that shall divide the sides.
      padding: values of the appended rows and columns.

    Returns:
      `[N, H', W', C]`; `x` itself if the strides divide its sides.

    Raises:
      ConfigError: unknown padding.
      ShapeError: the map is too small for the padding.

    Source: Chaman & Dokmanic 2021 (arXiv 2011.14214) and Rojas-Gomez et al. 2022 (arXiv 2210.08001), in
    their code.
    """
    check_padding(padding)
    rows, columns = (-side % s for side, s in zip(x.shape[1:3], pair(strides, "strides"), strict=True))
    return pad(x, ((0, rows), (0, columns)), padding) if rows or columns else x


def polyphase_components(x: jax.Array, strides: Pair = 2) -> jax.Array:
    """Splits maps into their polyphase components, in phase order.

    Args:
      x: maps `[N, H, W, C]`.
      strides: strides (R, S) of rows and columns.

    Returns:
      `[N, R S, H / R, W / S, C]`.

    Raises:
      ShapeError: a stride does not divide its side.

    Source: Chaman & Dokmanic 2021 (arXiv 2011.14214).
    """
    (_, h, w, _), (r, s) = x.shape, pair(strides, "strides")
    if h % r or w % s:
        raise ShapeError(
            f"polyphase components by {r} x {s} need sides that are multiples of the strides, got {h} x {w}: "
            "pad the map with pad_to_multiple first."
        )
    return operation(spell("polyphase_components"), _components, x, strides=(r, s))


def _components(x: jax.Array, *, strides: tuple[int, int]) -> jax.Array:
    (n, h, w, c), (r, s) = x.shape, strides
    grid = x.reshape(n, h // r, r, w // s, s, c)  # [N, i, row offset, j, column offset, C]
    return grid.transpose(0, 4, 2, 1, 3, 5).reshape(n, r * s, h // r, w // s, c)


def component_scores(components: jax.Array, criterion: Criterion = "l2") -> jax.Array:
    """Scores polyphase components; the component with the highest score is selected.

    The score of a component covers all its channels and positions and is accumulated in at least float32.
    "l2" is the squared l2 norm, which has the same order as the norm. "l1" is the l1 norm, `"l_infty"` the
    largest magnitude, `"non_abs_max"` the largest value. `"l2_min"` and `"l1_min"` are the negated norms.

    Args:
      components: `[N, K, h, w, C]`.
      criterion: the score, see above.

    Returns:
      Scores `[N, K]`.

    Raises:
      ConfigError: unknown criterion.

    Source: Chaman & Dokmanic 2021 (arXiv 2011.14214); the criteria are those of its code.
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
    """Returns the phases in the order of LPS, along the rows: `[0, 2, 1, 3]` for stride 2."""
    rows, columns = pair(strides, "strides")
    return np.array([column * rows + row for row in range(rows) for column in range(columns)])


def best_phase(scores: jax.Array, strides: Pair = 2, tie_order: TieOrder = "columns") -> jax.Array:
    """Returns the phase of the highest score.

    Args:
      scores: `[N, K]`.
      strides: strides of rows and columns.
      tie_order: which of several equal scores wins: the first one down the "columns" as in APS, or along
        the "rows" as in LPS.

    Returns:
      Phases `[N]`, integers.

    Source: Chaman & Dokmanic 2021 (arXiv 2011.14214); Rojas-Gomez et al. 2022 (arXiv 2210.08001) for
    "rows".
    """
    if tie_order == "columns":
        return jnp.argmax(scores, axis=1)
    order = row_order(strides)
    return jnp.asarray(order)[jnp.argmax(scores[:, order], axis=1)]


def select_component(components: jax.Array, phase: jax.Array) -> jax.Array:
    """Selects one polyphase component per image, or a weighted sum of all components.

    Args:
      components: `[N, K, h, w, C]`.
      phase: integers `[N]`, or weights `[N, K]` for a mixture of the components (LPS in training).

    Returns:
      `[N, h, w, C]`.

    Source: Chaman & Dokmanic 2021 (arXiv 2011.14214); the mixture: Rojas-Gomez et al. 2022 (arXiv
    2210.08001).
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
    """Keeps the polyphase component with the highest score: exactly shift-equivariant subsampling.

    Args:
      x: maps `[N, H, W, C]`. Sides that are not multiples of the stride are padded first; the result is
        then no longer exact.
      criterion: see `component_scores`. The first of several equal scores wins. No gradient flows through
        the choice.
      phase: phase to use instead of choosing one, for example in a shortcut branch; see `select_component`.
      strides: strides (R, S) of rows and columns.
      padding: padding of sides that are not multiples of the stride.

    Returns:
      The component `[N, ceil(H / R), ceil(W / S), C]` and its phase `[N]`.

    Raises:
      ShapeError: `x` is not floating-point `[N, H, W, C]`.
      ConfigError: unknown criterion or padding.

    Source: APS, Chaman & Dokmanic 2021 (arXiv 2011.14214).
    """
    check_images(x)
    components = polyphase_components(pad_to_multiple(x, strides, padding), strides)
    if phase is None:
        phase = best_phase(component_scores(jax.lax.stop_gradient(components), criterion), strides)
    return select_component(components, phase), phase


def polyphase_upsample(x: jax.Array, phase: jax.Array, strides: Pair = 2) -> jax.Array:
    """Writes samples at the phase they were taken from and fills the rest with zeros.

    This is the transpose of `select_component`.

    Args:
      x: maps `[N, h, w, C]`.
      phase: integers `[N]`. Weights `[N, K]` spread the map over all phases.
      strides: strides (R, S) of rows and columns.

    Returns:
      `[N, R h, S w, C]`.

    Raises:
      ShapeError: `x` is not floating-point `[N, h, w, C]`.

    Source: APS-U, Chaman & Dokmanic 2021 (arXiv 2105.04040); LPU, Rojas-Gomez et al. 2022 (arXiv
    2210.08001).
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

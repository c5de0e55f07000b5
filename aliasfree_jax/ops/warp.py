"""Images read at any positions by bilinear interpolation; outside the image there is nothing but zero."""

import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ShapeError
from aliasfree_jax.ops.shapes import check_images


def bilinear_sample(x: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Reads images at real positions; differentiable in them.

    Args:
      x: floating-point [N, H, W, C]; sample (i, j) lies at row i, column j.
      rows, columns: positions [N, h, w].

    Returns:
      [N, h, w, C]. A position next to the border mixes the border's samples with zeros.

    Raises:
      ShapeError: images or positions of another shape.
    """
    check_images(x)
    if rows.shape != columns.shape or rows.ndim != 3 or rows.shape[0] != x.shape[0]:
        raise ShapeError(
            f"expected rows and columns [{x.shape[0]}, h, w], got {list(rows.shape)} and "
            f"{list(columns.shape)}."
        )
    height, width = x.shape[1:3]
    top, left = jnp.floor(rows), jnp.floor(columns)
    result = jnp.zeros((*rows.shape, x.shape[3]), jnp.promote_types(x.dtype, jnp.float32))
    for i, row_weight in ((top, 1 - (rows - top)), (top + 1, rows - top)):
        for j, column_weight in ((left, 1 - (columns - left)), (left + 1, columns - left)):
            inside = (i >= 0) & (i < height) & (j >= 0) & (j < width)
            row, column = (
                jnp.clip(p, 0, side - 1).astype(jnp.int32) for p, side in ((i, height), (j, width))
            )
            value = jax.vmap(lambda image, r, c: image[r, c])(x, row, column)
            result += (row_weight * column_weight * inside)[..., None] * value
    return result.astype(x.dtype)

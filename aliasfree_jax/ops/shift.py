"""Circular shifts by whole pixels (exact) and by fractions (ideal), and sampling at arbitrary positions."""

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.ops import spectrum
from aliasfree_jax.ops.resample import Method, Precision, resample_uniformly
from aliasfree_jax.ops.shapes import check_images

ShiftLike = tuple[float, float] | jax.Array | np.ndarray


def _check_pairs(x: jax.Array, shift: jax.Array) -> None:
    if shift.shape != (x.shape[0], 2):
        raise ShapeError(
            f"expected one (down, right) pair per image, [{x.shape[0]}, 2], got {list(shift.shape)}."
        )


def integer_shift(x: jax.Array, shift: jax.Array) -> jax.Array:
    """Shifts each image circularly by its own whole number of pixels; bit for bit `jnp.roll`.

    Args:
      x: images `[N, H, W, C]`.
      shift: integers `[N, 2]`, (down, right) in pixels, of any sign and size. They may be traced.

    Returns:
      `[N, H, W, C]`.

    Raises:
      ShapeError: the shifts are not `[N, 2]`, or not integers.

    Source: standard circular shift; the test shifts of Chaman & Dokmanic 2021 (arXiv 2011.14214).
    """
    shift = jnp.asarray(shift)
    _check_pairs(x, shift)
    if not jnp.issubdtype(shift.dtype, jnp.integer):
        raise ShapeError(
            f"expected integer shifts, got {shift.dtype}: use fractional_shift for real numbers."
        )
    return jax.vmap(lambda image, s: jnp.roll(image, (s[0], s[1]), axis=(0, 1)))(x, shift)


def _shift_matrices(n: int, shift: jax.Array, dtype: jnp.dtype) -> jax.Array:
    """Returns one circulant `[n, n]` matrix for each (traced) shift `[N]`, accurate to rounding.

    The angle 2 pi k s / n of frequency k is computed in two parts, the whole part of s with integers. So
    large shifts do not lose accuracy in float32.
    """
    weights = np.asarray(spectrum.resample_weights(n, n))
    frequencies = np.arange(len(weights))
    gains = np.where(frequencies == 0, 1.0, 2.0) * weights / n
    whole = jnp.round(shift)
    turns = ((whole % n).astype(jnp.int32)[:, None] * frequencies) % n / n
    turns = turns + (shift - whole)[:, None] * frequencies / n
    angle = (2 * jnp.pi * turns).astype(dtype)  # [N, K]
    grid = 2 * np.pi * (np.outer(np.arange(n), frequencies) % n) / n
    cosine, sine = (jnp.asarray(table * gains, dtype) for table in (np.cos(grid), np.sin(grid)))  # [n, K]
    first_column = jnp.einsum("jk,bk->bj", cosine, jnp.cos(angle), precision="highest")
    first_column += jnp.einsum("jk,bk->bj", sine, jnp.sin(angle), precision="highest")
    return first_column[:, (np.arange(n)[:, None] - np.arange(n)) % n]


def fractional_shift(
    x: jax.Array, shift: ShiftLike, *, method: Method = "matmul", precision: Precision = "highest"
) -> jax.Array:
    """Shifts images circularly by real numbers of pixels: `y(i, j) = x(i - shift[0], j - shift[1])`.

    Between the samples, the image is the band-limited periodic function through them. The Nyquist frequency
    of an even side has no direction: it is multiplied by cos(pi shift). The original's upsample, roll and
    subsample does the same.

    Args:
      x: floating-point images `[N, H, W, C]`.
      shift: (down, right) in pixels for all images, or an array `[N, 2]` with one pair per image. The array
        may be traced and differentiated.
      method: "matmul". A pair of numbers also allows "fft" and "auto".
      precision: precision of the products with the shift matrices.

    Returns:
      `[N, H, W, C]`.

    Raises:
      ShapeError: `x` is not floating-point `[N, H, W, C]`, or the shifts are neither a pair nor `[N, 2]`.
      ConfigError: the method is unknown, or not available for an array of shifts.

    Source: Michaeli et al. 2023 (arXiv 2303.08085), the fractional test shifts of its code.

    Differs from the original: the sign; the original moves by `-shift`.
    """
    check_images(x)
    h, w = x.shape[1:3]
    if isinstance(shift, tuple):
        if len(shift) != 2:
            raise ShapeError(f"expected a pair of shifts (down, right), got {len(shift)} numbers.")
        weights = spectrum.resample_weights(h, h), spectrum.resample_weights(w, w)
        return resample_uniformly(x, (h, w), weights, method, precision, (-shift[0], -shift[1]))
    if method != "matmul":
        raise ConfigError(
            f"an array of shifts needs method='matmul', got {method!r}: other methods need a pair of numbers."
        )
    accurate = jnp.promote_types(x.dtype, jnp.float32)
    shift = jnp.asarray(shift, accurate)
    _check_pairs(x, shift)
    rows, columns = (_shift_matrices(n, s, accurate) for n, s in ((h, shift[:, 0]), (w, shift[:, 1])))
    y = jnp.einsum("nph,nhwc->npwc", rows, x.astype(accurate), precision=precision)
    return jnp.einsum("nqw,nhwc->nhqc", columns, y, precision=precision).astype(x.dtype)


def bilinear_sample(x: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    """Samples images at real positions by bilinear interpolation, differentiable in the positions.

    Values outside the image are zero, so positions next to the border mix border samples with zeros.

    Args:
      x: floating-point images `[N, H, W, C]`. Sample (i, j) lies at row i and column j.
      rows: row positions `[N, h, w]`.
      columns: column positions `[N, h, w]`.

    Returns:
      `[N, h, w, C]`.

    Raises:
      ShapeError: `x` is not floating-point `[N, H, W, C]`, or the positions are not `[N, h, w]`.

    Source: PyTorch, `torch.nn.functional.grid_sample` with zero padding.
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

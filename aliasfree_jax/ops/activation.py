"""Polynomials and gates: activations with a bounded band, and their alias-free use.

Let a map have frequencies up to K. A polynomial of degree d of its values has frequencies up to d K. The
product of two such maps (a gate) has frequencies up to 2 K. A finer grid can hold these frequencies without
aliasing. An ideal low-pass filter then returns to the coarse grid. The result commutes with every
fractional shift (Michaeli et al. 2023, section 3.2).
"""

from typing import Any

import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.ops import spectrum
from aliasfree_jax.ops.resample import Method, Precision, ideal_resample
from aliasfree_jax.ops.shapes import check_images

Scale = jax.Array | float

# Least-squares quadratic fit of GELU: the original's initial coefficients.
GELU_QUADRATIC = (0.0169394634313126, 0.5, 0.3078363963999393)


def polynomial(
    x: jax.Array,
    coefficients: jax.Array,
    in_scale: Scale = 1.0,
    out_scale: Scale = 1.0,
) -> jax.Array:
    """Applies a polynomial to each channel: `out_scale * sum_k c_k (in_scale x)^k`.

    The polynomial is evaluated in at least float32.

    Args:
      x: maps `[..., C]`.
      coefficients: `[C, d + 1]`, or `[d + 1]` for all channels. Column k is the coefficient of power k.
      in_scale: factor on the input, a scalar or `[1]`.
      out_scale: factor on the result, a scalar or `[1]`.

    Returns:
      `[..., C]` in the dtype of `x`.

    Raises:
      ShapeError: the coefficients do not have one row per channel.

    Source: Michaeli et al. 2023 (arXiv 2303.08085), section 3.2.

    Differs from the original: every coefficient is used. The original ignores the highest coefficient of
    scalar polynomials and of degrees above 2; the converter drops it instead.
    """
    _check_rows(x, coefficients)
    accurate = jnp.promote_types(x.dtype, jnp.float32)
    return _horner(x, scaled_coefficients(coefficients, in_scale, out_scale, accurate))


@jax.checkpoint
def _horner(x: jax.Array, coefficients: jax.Array) -> jax.Array:
    """Horner's rule. The gradient keeps `x` only, not one map per power."""
    u = x.astype(coefficients.dtype)
    y = coefficients[..., -1]
    if coefficients.shape[-1] == 1:
        return jnp.broadcast_to(y, u.shape).astype(x.dtype)
    for power in range(coefficients.shape[-1] - 2, -1, -1):
        y = y * u + coefficients[..., power]
    return y.astype(x.dtype)


def _check_rows(x: jax.Array, coefficients: jax.Array) -> None:
    if coefficients.ndim == 2 and coefficients.shape[0] != x.shape[-1]:
        raise ShapeError(
            f"expected one row of coefficients per channel, got {coefficients.shape[0]} rows of coefficients "
            f"for {x.shape[-1]} channels."
        )


def scaled_coefficients(
    coefficients: jax.Array, in_scale: Scale, out_scale: Scale, dtype: jnp.dtype
) -> jax.Array:
    """Multiplies both scales into the coefficients `[..., d + 1]`.

    This costs one product per channel instead of one per sample.
    """
    inner, outer = jnp.asarray(in_scale, dtype).reshape(()), jnp.asarray(out_scale, dtype).reshape(())
    gains = jnp.stack([outer * inner**power for power in range(coefficients.shape[-1])])
    return jnp.asarray(coefficients, dtype) * gains


def polynomial_grid(
    shape: tuple[int, int], degree: int, kept: tuple[int, int] | None = None, nyquist: bool = True
) -> tuple[int, int]:
    """Returns the smallest grid (rows, columns) on which a polynomial of a map of `shape` is exact.

    For degree 2 it is never finer than the original's grid, which has twice the size of the map.

    Args:
      shape: rows and columns of the map.
      degree: degree of the polynomial.
      kept: rows and columns of the result after low-pass filtering. None: those of the map.
      nyquist: whether the map may contain the Nyquist frequency of its even sides.
    """
    sides = zip(shape, kept or shape, strict=True)
    rows, columns = (spectrum.exact_grid(n, degree, keeps, nyquist) for n, keeps in sides)
    return rows, columns


def up_polynomial_down(
    x: jax.Array,
    coefficients: jax.Array,
    in_scale: Scale = 1.0,
    out_scale: Scale = 1.0,
    *,
    method: Method = "matmul",
    precision: Precision = "highest",
) -> jax.Array:
    """Alias-free polynomial activation: upsamples, applies the polynomial, low-passes, downsamples.

    It computes the same function as the original, which uses a grid of twice the size. The grid here is the
    smallest exact one: 3/2 of the size for quadratics. The result commutes with every circular shift, also
    by fractions of a pixel.

    Args:
      x: maps `[N, H, W, C]`.
      coefficients: see `polynomial`.
      in_scale: factor on the input, a scalar or `[1]`.
      out_scale: factor on the result, a scalar or `[1]`.
      method: method of `ideal_resample`.
      precision: precision of the products with the resampling matrices.

    Returns:
      `[N, H, W, C]`, without the Nyquist frequency of even sides.

    Raises:
      ShapeError: `x` is not floating-point `[N, H, W, C]`, or the coefficients do not have one row per
        channel.
      ConfigError: unknown method.

    Source: Michaeli et al. 2023 (arXiv 2303.08085), section 3.2.
    """
    check_images(x)
    grid = polynomial_grid((x.shape[1], x.shape[2]), coefficients.shape[-1] - 1)
    fine = ideal_resample(x, grid, method=method, precision=precision)
    y = polynomial(fine, coefficients, in_scale, out_scale)
    return ideal_resample(y, (x.shape[1], x.shape[2]), method=method, precision=precision)


def lowpass_polynomial(
    x: jax.Array,
    lowpassed: jax.Array,
    coefficients: jax.Array,
    in_scale: Scale = 1.0,
    out_scale: Scale = 1.0,
) -> jax.Array:
    """Quadratic in which one factor of the square is low-passed: `out_scale * (c0 + c1 u + c2 u v)`.

    Here u and v are `in_scale * x` and `in_scale * lowpassed`. No finer grid is needed if a low-pass filter
    at 1/s of the Nyquist frequency follows and `lowpassed` is cut at 1 - 1/s. All aliases then lie above
    the band that this filter keeps. The paper's stem uses s = 4 and the cutoff 3/4.

    Args:
      x: maps `[..., C]`.
      lowpassed: `x` after the low-pass filter, `[..., C]`.
      coefficients: `[C, 3]`, or `[3]` for all channels.
      in_scale: factor on the input, a scalar or `[1]`.
      out_scale: factor on the result, a scalar or `[1]`.

    Returns:
      `[..., C]` in the dtype of `x`.

    Raises:
      ConfigError: the polynomial does not have three coefficients.
      ShapeError: the coefficients do not have one row per channel.

    Source: Michaeli et al. 2023 (arXiv 2303.08085), the stem of section 3; the cutoffs are those of its
    code.
    """
    _check_rows(x, coefficients)
    if coefficients.shape[-1] != 3:
        raise ConfigError(
            f"a low-pass polynomial is a quadratic: expected 3 coefficients, got {coefficients.shape[-1]}."
        )
    accurate = jnp.promote_types(x.dtype, jnp.float32)
    c0, c1, c2 = jnp.moveaxis(scaled_coefficients(coefficients, in_scale, out_scale, accurate), -1, 0)
    return (c0 + x.astype(accurate) * (c1 + c2 * lowpassed.astype(accurate))).astype(x.dtype)


def gate(x: jax.Array, by: jax.Array, in_scale: Scale = 1.0, out_scale: Scale = 1.0) -> jax.Array:
    """Multiplies two maps: `out_scale * x * (1 + in_scale * by)`, evaluated in at least float32.

    Args:
      x: maps `[..., C]`.
      by: the second factor, `[..., C]`.
      in_scale: factor on `by`, a scalar or `[1]`.
      out_scale: factor on the result, a scalar or `[1]`.

    Returns:
      `[..., C]` in the dtype of `x`.

    Raises:
      ShapeError: the maps have different shapes.

    Source: bilinear gated linear units (Shazeer 2020, arXiv 2002.05202) and MONet (Cheng et al. 2024,
    arXiv 2401.17992); the scales are this package's.
    """
    _check_shapes(x, by)
    accurate = jnp.promote_types(x.dtype, jnp.float32)
    inner, outer = (jnp.asarray(scale, accurate).reshape(()) for scale in (in_scale, out_scale))
    return (x.astype(accurate) * (outer + outer * inner * by.astype(accurate))).astype(x.dtype)


def _check_shapes(x: jax.Array, by: jax.Array) -> None:
    if x.shape != by.shape:
        raise ShapeError(f"a gate multiplies two maps of the same shape, got {x.shape} and {by.shape}.")


def up_gate_down(
    x: jax.Array,
    by: jax.Array,
    in_scale: Scale = 1.0,
    out_scale: Scale = 1.0,
    *,
    method: Method = "auto",
    precision: Precision = "highest",
) -> jax.Array:
    """Alias-free gate: upsamples both maps, multiplies them, low-passes and downsamples the product.

    MONet and bilinear gated linear units use the same products without resampling, so theirs alias. This
    one commutes with every fractional shift, like the quadratics of Michaeli et al. 2023. The Nyquist
    frequency of even sides is removed from both factors: no fractional shift can preserve it, and the grid
    is smaller without it.

    Args:
      x: maps `[N, H, W, C]`.
      by: the second factor, `[N, H, W, C]`.
      in_scale: factor on `by`, a scalar or `[1]`.
      out_scale: factor on the result, a scalar or `[1]`.
      method: method of `ideal_resample`.
      precision: precision of the products with the resampling matrices.

    Returns:
      `[N, H, W, C]`, without the Nyquist frequency of even sides.

    Raises:
      ShapeError: a map is not floating-point `[N, H, W, C]`, or the shapes differ.
      ConfigError: unknown method.

    Source: this package. The products are those of Cheng et al. 2024 (arXiv 2401.17992) and Shazeer 2020
    (arXiv 2002.05202), the resampling that of Michaeli et al. 2023 (arXiv 2303.08085), section 3.2.
    """
    check_images(x)
    _check_shapes(x, by)
    shape = (x.shape[1], x.shape[2])
    how: Any = {"nyquist": False, "method": method, "precision": precision}
    grid = polynomial_grid(shape, 2, nyquist=False)
    fine, fine_by = (ideal_resample(each, grid, **how) for each in (x, by))
    return ideal_resample(gate(fine, fine_by, in_scale, out_scale), shape, **how)

"""Polynomials and gates, which create a bounded number of new frequencies, and their exact use.

A polynomial of degree d of a map with frequencies up to K has frequencies up to d K and no more; the product
of two maps (a gate) up to 2 K, as the square of one has. On a fine enough grid they fit without aliasing; an
ideal low-pass filter then returns to the coarse grid. The result commutes with every fractional shift
(Michaeli et al. 2023, section 3.2).
"""

import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.ops import spectrum
from aliasfree_jax.ops.resample import Method, Precision, ideal_resample
from aliasfree_jax.ops.shapes import check_images

Scale = jax.Array | float

# Least-squares fit of GELU by a quadratic: the initial coefficients of the original.
GELU_QUADRATIC = (0.0169394634313126, 0.5, 0.3078363963999393)


def polynomial(
    x: jax.Array,
    coefficients: jax.Array,
    in_scale: Scale = 1.0,
    out_scale: Scale = 1.0,
) -> jax.Array:
    """`out_scale * sum_k c_k (in_scale x)^k` for each channel, evaluated in at least float32.

    Args:
      x: [..., C].
      coefficients: [C, d + 1], or [d + 1] for all channels; column k belongs to power k.
      in_scale, out_scale: scalars or [1].

    The original drops the top coefficient of scalar polynomials and of degrees above 2; here every
    coefficient counts (the converter drops it instead).

    Raises:
      ShapeError: another number of rows of coefficients than channels.
    """
    _check_rows(x, coefficients)
    accurate = jnp.promote_types(x.dtype, jnp.float32)
    return _horner(x, scaled_coefficients(coefficients, in_scale, out_scale, accurate))


@jax.checkpoint
def _horner(x: jax.Array, coefficients: jax.Array) -> jax.Array:
    """The polynomial by Horner's rule; its gradient keeps `x` only, not a map a power."""
    u = x.astype(coefficients.dtype)
    y = coefficients[..., -1]
    if coefficients.shape[-1] == 1:
        return jnp.broadcast_to(y, u.shape)
    for power in range(coefficients.shape[-1] - 2, -1, -1):
        y = y * u + coefficients[..., power]
    return y.astype(x.dtype)


def _check_rows(x: jax.Array, coefficients: jax.Array) -> None:
    if coefficients.ndim == 2 and coefficients.shape[0] != x.shape[-1]:
        raise ShapeError(f"{coefficients.shape[0]} rows of coefficients for {x.shape[-1]} channels.")


def scaled_coefficients(
    coefficients: jax.Array, in_scale: Scale, out_scale: Scale, dtype: jnp.dtype
) -> jax.Array:
    """Coefficients [..., d + 1] with both scales multiplied in: once a channel, not once a sample."""
    inner, outer = jnp.asarray(in_scale, dtype).reshape(()), jnp.asarray(out_scale, dtype).reshape(())
    gains = jnp.stack([outer * inner**power for power in range(coefficients.shape[-1])])
    return jnp.asarray(coefficients, dtype) * gains


def polynomial_grid(shape: tuple[int, int], degree: int) -> tuple[int, int]:
    """The smallest grid (rows, columns) on which the polynomial of a map of `shape` is exact.

    Never finer than the original's, twice the map, for degree 2.
    """
    return spectrum.exact_grid(shape[0], degree), spectrum.exact_grid(shape[1], degree)


def up_polynomial_down(
    x: jax.Array,
    coefficients: jax.Array,
    in_scale: Scale = 1.0,
    out_scale: Scale = 1.0,
    *,
    method: Method = "matmul",
    precision: Precision = "highest",
) -> jax.Array:
    """Alias-free polynomial activation: interpolate, apply the polynomial, low-pass, return.

    The same function as the original's on the grid of twice the size, on the smallest grid where it
    is exact: 3/2 for quadratics.

    Args:
      x: [N, H, W, C].
      coefficients, in_scale, out_scale: as in `polynomial`.
      method: of `ideal_resample`.
      precision: of the products with the resampling matrices.

    Returns:
      [N, H, W, C], without the Nyquist frequency of even sides.

    Raises:
      ShapeError: not floating-point [N, H, W, C], another number of rows of coefficients than channels.
      ConfigError: unknown method.
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
    """Quadratic whose square has one low-passed factor: `out_scale (c0 + c1 u + c2 u v)`.

    With u and v the scaled `x` and `lowpassed`. Where a low-pass filter at 1/s of the Nyquist
    frequency follows, a factor cut at 1 - 1/s keeps all aliases above it, so that no finer grid is
    needed (the stem of Michaeli et al. 2023: s = 4, cutoff 3/4).

    Args:
      x, lowpassed: [..., C].
      coefficients: [C, 3] or [3].

    Raises:
      ConfigError: not three coefficients.
      ShapeError: another number of rows of coefficients than channels.
    """
    _check_rows(x, coefficients)
    if coefficients.shape[-1] != 3:
        raise ConfigError(
            f"a low-pass polynomial is quadratic: expected 3 coefficients, got {coefficients.shape[-1]}."
        )
    accurate = jnp.promote_types(x.dtype, jnp.float32)
    c0, c1, c2 = jnp.moveaxis(scaled_coefficients(coefficients, in_scale, out_scale, accurate), -1, 0)
    return (c0 + x.astype(accurate) * (c1 + c2 * lowpassed.astype(accurate))).astype(x.dtype)


def gate(x: jax.Array, by: jax.Array, in_scale: Scale = 1.0, out_scale: Scale = 1.0) -> jax.Array:
    """`out_scale x (1 + in_scale by)`, evaluated in at least float32.

    Args:
      x, by: [..., C].
      in_scale, out_scale: scalars or [1].

    Raises:
      ShapeError: maps of different shapes.
    """
    _check_shapes(x, by)
    accurate = jnp.promote_types(x.dtype, jnp.float32)
    inner, outer = (jnp.asarray(scale, accurate).reshape(()) for scale in (in_scale, out_scale))
    return (x.astype(accurate) * (outer + outer * inner * by.astype(accurate))).astype(x.dtype)


def _check_shapes(x: jax.Array, by: jax.Array) -> None:
    if x.shape != by.shape:
        raise ShapeError(f"a gate multiplies maps of one shape, got {x.shape} and {by.shape}.")


def up_gate_down(
    x: jax.Array,
    by: jax.Array,
    in_scale: Scale = 1.0,
    out_scale: Scale = 1.0,
    *,
    method: Method = "auto",
    precision: Precision = "highest",
) -> jax.Array:
    """Alias-free gate: interpolate both maps, multiply, low-pass, return.

    The products of MONet (Chrysos et al. 2024) and of bilinear gated linear units (Shazeer 2020), made to
    commute with every fractional shift as the quadratics of Michaeli et al. 2023 do. None of them has this.

    Args:
      x, by: [N, H, W, C].
      in_scale, out_scale: as in `gate`.
      method: of `ideal_resample`.
      precision: of the products with the resampling matrices.

    Returns:
      [N, H, W, C], without the Nyquist frequency of even sides.

    Raises:
      ShapeError: not floating-point [N, H, W, C], or of different shapes.
      ConfigError: unknown method.
    """
    check_images(x)
    _check_shapes(x, by)
    shape = (x.shape[1], x.shape[2])
    grid = polynomial_grid(shape, 2)
    fine, fine_by = (ideal_resample(each, grid, method=method, precision=precision) for each in (x, by))
    y = gate(fine, fine_by, in_scale, out_scale)
    return ideal_resample(y, shape, method=method, precision=precision)

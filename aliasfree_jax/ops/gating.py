"""Products of two maps, which create a bounded number of new frequencies, and their exact use.

The product of two maps with frequencies up to K has frequencies up to 2 K and no more, as the square of one
map has: what `ops.activation` says of quadratics holds for products, on the same grid.
"""

import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ShapeError
from aliasfree_jax.ops.activation import Scale, polynomial_grid
from aliasfree_jax.ops.resample import Method, Precision, ideal_resample
from aliasfree_jax.ops.shapes import check_images


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


def up_gate_down_ref(x: jax.Array, by: jax.Array, in_scale: Scale = 1.0, out_scale: Scale = 1.0) -> jax.Array:
    """Twin of `up_gate_down` without any grid: the convolution of both maps' Fourier coefficients."""
    (_, h, w, _), half = x.shape, (x.shape[1] // 2, x.shape[2] // 2)

    def waves(side: int, nyquist: float) -> jax.Array:
        """exp(2 pi i k n / side) for n and |k| <= side / 2, [side, k], times `nyquist` at |k| = side / 2."""
        k = jnp.arange(-(side // 2), side // 2 + 1)
        weight = jnp.where(2 * abs(k) == side, nyquist, 1.0)
        return weight * jnp.exp(2j * jnp.pi * jnp.arange(side)[:, None] * k / side)

    def coefficients(z: jax.Array) -> jax.Array:
        rows, columns = waves(h, 0.5).conj() / h, waves(w, 0.5).conj() / w
        return jnp.einsum("hp,wq,nhwc->npqc", rows, columns, z)

    a, b = coefficients(x), coefficients(by)
    around = jnp.pad(b, ((0, 0), (2 * half[0],) * 2, (2 * half[1],) * 2, (0, 0)))
    product = jnp.zeros_like(a)
    for row in range(a.shape[1]):
        for column in range(a.shape[2]):
            # Frequency k of the product sums a(j) b(k - j): b moved by j = row - half.
            top, left = 3 * half[0] - row, 3 * half[1] - column
            moved = around[:, top : top + a.shape[1], left : left + a.shape[2]]
            product += a[:, row, column][:, None, None] * moved
    y = a + jnp.reshape(jnp.asarray(in_scale), ()) * product
    y = jnp.einsum("hp,wq,npqc->nhwc", waves(h, 0.0), waves(w, 0.0), y).real
    return jnp.reshape(jnp.asarray(out_scale), ()) * y.astype(x.dtype)

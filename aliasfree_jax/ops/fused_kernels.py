"""The two kernels of the fused activation, forward and gradient, for Pallas's Triton backend.

One program holds the maps of a few neighbouring channels of one image, [H, W C'], as they lie in NHWC
memory. It takes a strip of 16 fine rows at a time: a product along H, on [H, W C']; an exchange on chip
to [W, 16 C']; for each tile of 16 or 32 fine columns the product along W, the polynomial and the product
back; the exchange back; and the strip's share of the product back along H, added up in registers. So
every product is two-dimensional, which is all that Triton's lowering takes. Maps in NCHW would need no
exchange, but transposing to them moves another 4 N^2 values a channel.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from aliasfree_jax.ops.fused_tiles import SMALLEST, Tiles
from aliasfree_jax.ops.resample import Precision

Ref = Any  # Pallas has no public type of them
Pair = tuple[Ref, Ref]  # matrices for rows and columns
Sums = tuple[jax.Array, ...]  # one for each power


@dataclasses.dataclass(frozen=True)
class Program:
    """What both kernels share. The image is the second axis of the grid: neighbours read neighbours."""

    tiles: Tiles
    shape: tuple[int, int, int]
    precision: Precision

    def window(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Rows [height, 1], columns [1, width C'] and the valid ones of the maps in an image [H, W C]."""
        tiles, (h, w, c) = self.tiles, self.shape
        rows = jax.lax.broadcasted_iota(jnp.int32, (tiles.height, 1), 0)
        flat = jax.lax.broadcasted_iota(jnp.int32, (1, tiles.flat), 1)
        column, channel = jax.lax.div(flat, jnp.int32(tiles.channels)), self.channel(flat)
        valid = (rows < h) & (column < w)
        # A condition on single channels, where none is needed, would keep Triton from reading vectors.
        valid = valid & (channel < c) if c % tiles.channels else valid
        return rows, column * c + channel, valid

    def channel(self, flat: jax.Array) -> jax.Array:
        """Channels of the image that belong to positions in rows [..., C']."""
        return jax.lax.rem(flat, jnp.int32(self.tiles.channels)) + pl.program_id(0) * self.tiles.channels

    def load(self, ref: Ref) -> jax.Array:
        """This program's maps [height, width C'], with zeros around."""
        rows, columns, valid = self.window()
        return triton.load(ref.at[pl.program_id(1), rows, columns], mask=valid, other=0.0)

    def store(self, ref: Ref, maps: jax.Array) -> None:
        """Writes this program's maps [height, width C'] in the dtype of `ref`, without what lies around."""
        rows, columns, valid = self.window()
        triton.store(ref.at[pl.program_id(1), rows, columns], maps.astype(ref.dtype), mask=valid)

    def coefficients(self, ref: Ref) -> list[jax.Array]:
        """Of each power [1, 16 C']."""
        channel = self.channel(jax.lax.broadcasted_iota(jnp.int32, (1, self.tiles.lanes), 1))
        valid = channel < self.shape[-1]
        return [triton.load(ref.at[k, channel], mask=valid, other=0.0) for k in range(ref.shape[0])]

    def dot(self, matrix: jax.Array, maps: jax.Array) -> jax.Array:
        """The product, accumulated in at least float32; `maps` are rounded to the dtype of `matrix`."""
        accurate = jnp.promote_types(maps.dtype, jnp.float32)
        maps = maps.astype(matrix.dtype)
        return jnp.dot(matrix, maps, precision=self.precision, preferred_element_type=accurate)

    def half_up(self, rows: Ref, index: jax.Array, maps: jax.Array) -> jax.Array:
        """Strip `index` of the fine rows of maps, [width, 16 C'], in the dtype of `maps`."""
        strip = self.dot(rows[pl.ds(index * SMALLEST, SMALLEST), :], maps)
        strip = strip.reshape(SMALLEST, self.tiles.width, self.tiles.channels).transpose(1, 0, 2)
        # Rounded after the exchange: Triton 3.9 fails on bfloat16 products of reshaped values.
        return strip.reshape(self.tiles.width, self.tiles.lanes).astype(maps.dtype)

    def half_down(self, rows: Ref, index: jax.Array, strip: jax.Array) -> jax.Array:
        """The share of a strip [width, 16 C'] in the coarse maps [height, width C']."""
        strip = strip.reshape(self.tiles.width, SMALLEST, self.tiles.channels).transpose(1, 0, 2)
        strip = strip.reshape(SMALLEST, self.tiles.flat)
        return self.dot(rows[:, pl.ds(index * SMALLEST, SMALLEST)], strip)

    def tile_up(self, columns: Ref, index: jax.Array, strip: jax.Array) -> jax.Array:
        """Tile `index` of the fine columns of a strip: [tile, 16 C']."""
        return self.dot(columns[pl.ds(index * self.tiles.columns, self.tiles.columns), :], strip)

    def tile_down(self, columns: Ref, index: jax.Array, tile: jax.Array) -> jax.Array:
        """The share of a tile in its strip [width, 16 C']."""
        return self.dot(columns[:, pl.ds(index * self.tiles.columns, self.tiles.columns)], tile)


def _horner(u: jax.Array, coefficients: list[jax.Array]) -> jax.Array:
    y = jnp.broadcast_to(coefficients[-1], u.shape)
    for coefficient in coefficients[-2::-1]:
        y = y * u + coefficient
    return y


def forward_kernel(
    x_ref: Ref, coefficients_ref: Ref, up: Pair, down: Pair, y_ref: Ref, *, program: Program
) -> None:
    """`y = D p(U x)`; `up` is U and `down` D, each for rows and columns."""
    tiles = program.tiles
    x, coefficients = program.load(x_ref), program.coefficients(coefficients_ref)
    accurate = coefficients[0].dtype

    def strip(i: jax.Array, y: jax.Array) -> jax.Array:
        half = program.half_up(up[0], i, x)

        def tile(j: jax.Array, z: jax.Array) -> jax.Array:
            fine = _horner(program.tile_up(up[1], j, half), coefficients)
            return z + program.tile_down(down[1], j, fine)

        z = jax.lax.fori_loop(0, tiles.tiles, tile, jnp.zeros((tiles.width, tiles.lanes), accurate))
        return y + program.half_down(down[0], i, z)

    y = jnp.zeros((tiles.height, tiles.flat), accurate)
    program.store(y_ref, jax.lax.fori_loop(0, tiles.strips, strip, y))


def backward_kernel(
    x_ref: Ref,
    dy_ref: Ref,
    coefficients_ref: Ref,
    up: Pair,
    down_transposed: Pair,
    up_transposed: Pair,
    dx_ref: Ref,
    sums_ref: Ref,
    *,
    program: Program,
) -> None:
    """`dx = U^T (p'(U x) D^T dy)`; for each power k of the coefficients the sum of `(U x)^k D^T dy`."""
    tiles = program.tiles
    x, dy, coefficients = program.load(x_ref), program.load(dy_ref), program.coefficients(coefficients_ref)
    slopes = [power * c for power, c in enumerate(coefficients)][1:] or [jnp.zeros_like(coefficients[0])]
    accurate = coefficients[0].dtype

    def strip(i: jax.Array, carry: tuple[jax.Array, Sums]) -> tuple[jax.Array, Sums]:
        half = program.half_up(up[0], i, x)
        d_half = program.half_up(down_transposed[0], i, dy)

        def tile(j: jax.Array, carry: tuple[jax.Array, Sums]) -> tuple[jax.Array, Sums]:
            z, sums = carry
            fine = program.tile_up(up[1], j, half)
            d_fine = program.tile_up(down_transposed[1], j, d_half)
            z += program.tile_down(up_transposed[1], j, _horner(fine, slopes) * d_fine)
            moments = [d_fine]
            for _ in sums[1:]:
                moments.append(moments[-1] * fine)
            return z, tuple(total + moment for total, moment in zip(sums, moments, strict=True))

        z = jnp.zeros((tiles.width, tiles.lanes), accurate)
        z, sums = jax.lax.fori_loop(0, tiles.tiles, tile, (z, carry[1]))
        return carry[0] + program.half_down(up_transposed[0], i, z), sums

    # Sums stay spread over the tile until the end: adding across threads costs barriers.
    sums = (jnp.zeros((tiles.columns, tiles.lanes), accurate),) * len(coefficients)
    dx = jnp.zeros((tiles.height, tiles.flat), accurate)
    dx, sums = jax.lax.fori_loop(0, tiles.strips, strip, (dx, sums))
    program.store(dx_ref, dx)
    channel = program.channel(jax.lax.iota(jnp.int32, tiles.channels))
    for power, total in enumerate(sums):
        total = jnp.sum(jnp.sum(total, axis=0).reshape(SMALLEST, tiles.channels), axis=0)
        place = sums_ref.at[pl.program_id(1), power, channel]
        triton.store(place, total, mask=channel < program.shape[-1])

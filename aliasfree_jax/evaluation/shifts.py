"""The random shifts of the consistency metrics: which are drawn, and how a batch is shifted by them.

All shifts are circular and given in pixels as (down, right). Every image has shifts of its own,
drawn from the key and the image's place in the data set, so that results do not depend on the batch
size. No shift that is drawn leaves the image as it was.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.ops.shift import fractional_shift, integer_shift

# What the fractional shifts are drawn from: multiples of 1/n of a pixel, or real numbers (None).
GRIDS: dict[str, int | None] = {"1/2": 2, "1/3": 3, "1/4": 4, "real": None}


def _nonzero_pairs(key: jax.Array, count: int, side: jax.Array | int, zero: jax.Array | int) -> jax.Array:
    """`count` pairs, uniform over the side x side grid 0 ... side - 1 without the cell number `zero`."""
    cell = jax.random.randint(key, (count,), 0, side * side - 1)
    cell = cell + (cell >= zero)
    return jnp.stack([cell // side, cell % side], axis=-1)


def _integer(key: jax.Array, count: int, max_shift: jax.Array, grid: None) -> jax.Array:
    side = 2 * max_shift + 1
    return _nonzero_pairs(key, count, side, side * side // 2) - max_shift


def _on_grid(key: jax.Array, count: int, max_shift: jax.Array, grid: jax.Array) -> jax.Array:
    whole_key, part_key = jax.random.split(key)
    whole = jax.random.randint(whole_key, (count, 2), -max_shift, max_shift + 1)
    return whole + _nonzero_pairs(part_key, count, grid, 0) / grid


def _real(key: jax.Array, count: int, max_shift: jax.Array, grid: None) -> jax.Array:
    return jax.random.uniform(key, (count, 2), minval=-max_shift, maxval=max_shift + 1)


@partial(jax.jit, static_argnums=(0, 2, 3))
def _for_each_image(
    draw: Callable[..., jax.Array],
    key: jax.Array,
    count: int,
    batch: int,
    max_shift: int,
    grid: int | None,
    first: int | jax.Array,
) -> jax.Array:
    keys = jax.vmap(partial(jax.random.fold_in, key))(first + jnp.arange(batch))
    return jax.vmap(lambda image_key: draw(image_key, count, max_shift, grid), out_axes=1)(keys)


def integer_shifts(
    key: jax.Array, count: int, batch: int, max_shift: int, first: int | jax.Array = 0
) -> jax.Array:
    """Uniform whole-pixel shifts, both axes in [-max_shift, max_shift], never (0, 0).

    Args:
      key: a `jax.random.key`.
      count: shifts an image.
      batch: images.
      max_shift: pixels, at least 1; below the image's side, or a shift may go once round the image.
      first: number of the first image in the data set.

    Returns:
      int32 [count, batch, 2].

    Raises:
      ConfigError: max_shift below 1.
    """
    if max_shift < 1:
        raise ConfigError(f"integer shifts need max_shift of at least 1 pixel, got {max_shift}.")
    return _for_each_image(_integer, key, count, batch, max_shift, None, first)


def fractional_shifts(
    key: jax.Array, count: int, batch: int, max_shift: int, grid: int | None, first: int | jax.Array = 0
) -> jax.Array:
    """Shifts by fractions of a pixel: both axes in [-max_shift, max_shift + 1).

    With a `grid` n, a uniform whole part in [-max_shift, max_shift] plus (p, q) / n, uniform over the
    n * n - 1 pairs of p, q in 0 ... n - 1 that are not both 0 (one axis may be shifted by whole
    pixels). Without, both axes are uniform real numbers. Other arguments: `integer_shifts`.

    Returns:
      float32 [count, batch, 2].

    Raises:
      ConfigError: negative max_shift, or a grid coarser than half pixels.
    """
    if max_shift < 0 or (grid is not None and grid < 2):
        raise ConfigError(f"fractional shifts need max_shift >= 0 and grid >= 2, got {max_shift} and {grid}.")
    return _for_each_image(_real if grid is None else _on_grid, key, count, batch, max_shift, grid, first)


@jax.jit
def shift_images(images: jax.Array, shift: jax.Array) -> jax.Array:
    """Shifts each image of [N, H, W, C] circularly by its own (down, right) of [N, 2].

    Integer shifts move samples and change no bit; floating-point ones interpolate ideally.
    """
    if jnp.issubdtype(shift.dtype, jnp.integer):
        return integer_shift(images, shift)
    return fractional_shift(images, shift)

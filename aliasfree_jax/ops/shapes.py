"""What operations on maps check of their arguments."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError, ShapeError

Pair = int | Sequence[int]
"""A number for both spatial axes, or one for each: (rows, columns)."""


def pair(value: Pair, name: str) -> tuple[int, int]:
    """`value` for rows and columns, as Flax reads `kernel_size` and `strides`.

    Raises:
      ConfigError: not one or two integers of at least 1; the message calls them `name`.
    """
    numbers = (value, value) if isinstance(value, int) else tuple(value)
    if len(numbers) != 2 or not all(isinstance(n, int) and n >= 1 for n in numbers):
        raise ConfigError(f"{name} is an integer of at least 1, or a pair of them, got {value!r}.")
    return numbers[0], numbers[1]


def check_images(x: jax.Array, strides: tuple[int, int] = (1, 1)) -> None:
    """Raises `ShapeError` unless `x` is a floating-point array [N, H, W, C] that these strides can sample."""
    if x.ndim != 4 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ShapeError(f"expected floating-point images [N, H, W, C], got {x.dtype}{list(x.shape)}.")
    if x.shape[1] < strides[0] or x.shape[2] < strides[1]:
        raise ShapeError(
            f"sampling by {strides[0]} x {strides[1]} needs a map of at least that size, got "
            f"{x.shape[1]} x {x.shape[2]}, shape {list(x.shape)}: use larger images."
        )

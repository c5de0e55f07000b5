"""Checks of arguments that all operations on maps share."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError, ShapeError

Pair = int | Sequence[int]
"""One number for both spatial axes, or a pair (rows, columns)."""


def pair(value: Pair, name: str) -> tuple[int, int]:
    """Returns `value` as (rows, columns), like Flax's `kernel_size` and `strides`.

    Args:
      name: name of the argument in error messages.

    Raises:
      ConfigError: `value` is not one or two integers of at least 1.
    """
    numbers = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(numbers) != 2 or not all(isinstance(n, int) and n >= 1 for n in numbers):
        raise ConfigError(f"{name} must be an integer of at least 1, or a pair of them, got {value!r}.")
    return numbers[0], numbers[1]


def check_images(x: jax.Array, strides: tuple[int, int] = (1, 1)) -> None:
    """Raises `ShapeError` unless `x` is floating-point `[N, H, W, C]` and not smaller than the strides."""
    if x.ndim != 4 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ShapeError(f"expected floating-point images [N, H, W, C], got {x.dtype}{list(x.shape)}.")
    if x.shape[1] < strides[0] or x.shape[2] < strides[1]:
        raise ShapeError(
            f"sampling by {strides[0]} x {strides[1]} needs a map of at least that size, got "
            f"{x.shape[1]} x {x.shape[2]}, shape {list(x.shape)}: use larger images."
        )

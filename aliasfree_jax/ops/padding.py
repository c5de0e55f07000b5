"""Padding of the two spatial axes, with the asymmetric sizes of the original code bases."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.errors import ConfigError, ShapeError, unknown

Padding = Literal["circular", "zero", "reflect", "replicate"]
WindowPadding = Literal["none", "circular", "zero", "reflect", "replicate"]  # none: full windows only
Amounts = tuple[tuple[int, int], tuple[int, int]]

_NUMPY_MODE: dict[str, Any] = {
    "circular": "wrap",
    "zero": "constant",
    "reflect": "reflect",
    "replicate": "edge",
}


def check_padding(mode: str) -> None:
    """Raises `ConfigError` unless `mode` is one of the four padding modes."""
    if mode not in _NUMPY_MODE:
        raise ConfigError(unknown("padding", mode, _NUMPY_MODE))


def same_padding(size: int) -> tuple[int, int]:
    """Samples before and after an axis that keep its length under a stride-1 filter of `size` taps.

    Even filters get the extra sample behind (2: 0 and 1, 4: 1 and 2), as in all four originals.
    """
    return (size - 1) // 2, size // 2


def check_amounts(shape: tuple[int, ...], amounts: Amounts, mode: Padding) -> None:
    """Refuses to pad a map that is too small for the mode.

    Raises:
      ShapeError: PyTorch's rule: circular padding at most the side, reflection less than the side.
        `jnp.pad` would silently wrap several times.
      ConfigError: unknown mode.
    """
    check_padding(mode)
    for name, side, sizes in zip(("height", "width"), shape[1:3], amounts, strict=True):
        most = {"circular": side, "reflect": side - 1}.get(mode, max(sizes))
        if max(sizes) > most:
            raise ShapeError(
                f"{mode} padding by {sizes} needs a larger map: {name} is {side}, shape {shape}. "
                "Use a larger input image, or a network with fewer stages or a smaller stem stride."
            )


def pad(x: jax.Array, amounts: Amounts, mode: Padding) -> jax.Array:
    """Pads the rows and columns of `x`.

    Args:
      x: [N, H, W, C].
      amounts: ((top, bottom), (left, right)) in samples.
      mode: "circular" continues the image periodically, "reflect" mirrors it without repeating the
        border, "replicate" repeats the border, "zero" adds zeros.

    Raises:
      ShapeError, ConfigError: as `check_amounts`.
    """
    check_amounts(x.shape, amounts, mode)
    return jnp.pad(x, ((0, 0), *amounts, (0, 0)), mode=_NUMPY_MODE[mode])


def padded_places(side: int, amount: tuple[int, int], mode: Padding) -> np.ndarray:
    """Which place of an axis each place of the padded axis shows; -1 for a zero."""
    places = np.arange(side)
    if mode == "zero":
        return np.pad(places, amount, constant_values=-1)
    return np.pad(places, amount, mode=_NUMPY_MODE[mode])

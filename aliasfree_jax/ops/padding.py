"""Padding of the two spatial axes, with the asymmetric amounts of the original code bases."""

from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.errors import ConfigError, ShapeError, unknown

Padding = Literal["CIRCULAR", "ZERO", "REFLECT", "REPLICATE"]
"""How a map continues beyond its border. A filter at stride 1 then keeps the size of the map."""

WindowPadding = (
    Literal["CIRCULAR", "ZERO", "REFLECT", "REPLICATE", "SAME", "VALID"] | int | Sequence[int | Sequence[int]]
)
"""Padding of a layer with windows.

One of the four modes of `Padding`, or "SAME", "VALID" (full windows only) or numbers of zeros, as for
`nn.Conv`. Numbers are one for all borders, or for rows and columns one number or a pair (before, after)
each. "ZERO" differs from "SAME" for strided windows: it always pads as at stride 1, like PyTorch.
"""

Amounts = tuple[tuple[int, int], tuple[int, int]]

_NUMPY_MODE: dict[str, Any] = {
    "CIRCULAR": "wrap",
    "ZERO": "constant",
    "REFLECT": "reflect",
    "REPLICATE": "edge",
}
_WORDS = (*_NUMPY_MODE, "SAME", "VALID")


def padding_word(padding: Any) -> Any:
    """Converts a padding word to upper case ("CIRCULAR"); returns other values unchanged."""
    word = padding.upper() if isinstance(padding, str) else padding
    return word if word in _WORDS else padding


def check_padding(mode: Any) -> None:
    """Raises `ConfigError` unless `mode` is one of the four padding modes."""
    if mode not in _NUMPY_MODE:
        raise ConfigError(unknown("padding", mode, _NUMPY_MODE))


def same_padding(size: int) -> tuple[int, int]:
    """Samples before and after an axis that keep its length under a stride-1 filter of `size` taps.

    Even filters get the extra sample after the axis (size 2: 0 and 1, size 4: 1 and 2), as in all four
    originals.
    """
    return (size - 1) // 2, size // 2


def dilated(window: tuple[int, int], dilation: tuple[int, int]) -> tuple[int, int]:
    """Returns the extent of a window whose taps are `dilation` samples apart, (rows, columns)."""
    rows, columns = ((size - 1) * step + 1 for size, step in zip(window, dilation, strict=True))
    return rows, columns


def check_amounts(shape: tuple[int, ...], amounts: Amounts, mode: Padding) -> None:
    """Checks that a map is large enough for the padding.

    Raises:
      ShapeError: circular padding exceeds the side, or reflection reaches the side (PyTorch's rule).
        `jnp.pad` would silently wrap several times.
      ConfigError: unknown mode.
    """
    check_padding(mode)
    for name, side, sizes in zip(("height", "width"), shape[1:3], amounts, strict=True):
        most = {"CIRCULAR": side, "REFLECT": side - 1}.get(mode, max(sizes))
        if max(sizes) > most:
            raise ShapeError(
                f"{mode} padding by {sizes} needs a larger map: {name} is {side}, shape {shape}. "
                "Use a larger input image, or a network with fewer stages or a smaller stem stride."
            )


def pad(x: jax.Array, amounts: Amounts, mode: Padding) -> jax.Array:
    """Pads the rows and columns of a map.

    Args:
      x: maps `[N, H, W, C]`.
      amounts: ((top, bottom), (left, right)) in samples.
      mode: "CIRCULAR" continues the map periodically. "REFLECT" mirrors it without repeating the border.
        "REPLICATE" repeats the border. "ZERO" adds zeros.

    Returns:
      `[N, top + H + bottom, left + W + right, C]`.

    Raises:
      ShapeError: circular padding exceeds the side, or reflection reaches it.
      ConfigError: unknown mode.

    Source: PyTorch, `torch.nn.functional.pad`.
    """
    check_amounts(x.shape, amounts, mode)
    return jnp.pad(x, ((0, 0), *amounts, (0, 0)), mode=_NUMPY_MODE[mode])


def pad_windows(
    x: jax.Array,
    window: tuple[int, int],
    strides: tuple[int, int],
    padding: WindowPadding,
    fill: float = 0.0,
    dilation: tuple[int, int] = (1, 1),
) -> jax.Array:
    """Pads `[N, H, W, C]` so that the full windows of the result are the windows of `x` with this padding.

    Args:
      window: rows and columns of the window.
      strides: strides of rows and columns.
      fill: value outside the map for "SAME" and for numbers of samples.
      dilation: distance between neighbouring samples of a window. With a dilation, circular padding wraps
        around the map as often as a wide window needs. Without a dilation, it raises an error for maps that
        are too small.

    Raises:
      ConfigError: unknown padding.
      ShapeError: the map is smaller than the padding, or the result is smaller than the window.
    """
    window = dilated(window, dilation)
    if padding == "CIRCULAR" and dilation != (1, 1):
        amounts = same_padding(window[0]), same_padding(window[1])
        padded = jnp.pad(x, ((0, 0), *amounts, (0, 0)), mode="wrap")
    elif padding in ("CIRCULAR", "ZERO", "REFLECT", "REPLICATE"):
        padded = pad(x, (same_padding(window[0]), same_padding(window[1])), padding)
    else:
        amounts = _samples(x.shape[1:3], window, strides, padding)
        padded = jnp.pad(x, ((0, 0), *amounts, (0, 0)), constant_values=fill) if amounts != _NONE else x
    if padded.shape[1] < window[0] or padded.shape[2] < window[1]:
        raise ShapeError(
            f"windows of {window[0]} x {window[1]} need a larger map than {x.shape[1]} x {x.shape[2]} with "
            f"padding {padding!r}, shape {list(x.shape)}: use larger images."
        )
    return padded


_NONE: Amounts = ((0, 0), (0, 0))


def _samples(
    sides: Sequence[int], window: tuple[int, int], strides: tuple[int, int], padding: Any
) -> Amounts:
    """Numbers of zeros before and after rows and columns."""
    if isinstance(padding, str) and padding not in ("SAME", "VALID"):
        raise ConfigError(unknown("padding", padding, _WORDS))
    if padding == "VALID":
        return _NONE
    if padding == "SAME":  # XLA's rule: ceil(side / stride) windows, the odd sample after the map
        total = [
            max((-(-side // stride) - 1) * stride + size - side, 0)
            for side, size, stride in zip(sides, window, strides, strict=True)
        ]
        return (total[0] // 2, total[0] - total[0] // 2), (total[1] // 2, total[1] - total[1] // 2)
    axes = (padding, padding) if isinstance(padding, int) else tuple(padding)
    amounts = tuple((n, n) if isinstance(n, int) else tuple(n) for n in axes)
    if len(amounts) != 2 or any(len(n) != 2 or min(n) < 0 for n in amounts):
        raise ConfigError(
            f"padding must be a word, a number of samples or ((top, bottom), (left, right)), got {padding!r}."
        )
    return amounts


def padded_places(side: int, amount: tuple[int, int], mode: Padding) -> np.ndarray:
    """Returns the source position of each position of the padded axis; -1 for a zero."""
    places = np.arange(side)
    if mode == "ZERO":
        return np.pad(places, amount, constant_values=-1)
    return np.pad(places, amount, mode=_NUMPY_MODE[mode])

"""Dense convolution, by XLA or as one product over gathered patches; and its mean without computing it."""

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.errors import ShapeError
from aliasfree_jax.ops.choices import choices
from aliasfree_jax.ops.padding import (
    Padding,
    WindowPadding,
    check_amounts,
    pad_windows,
    padded_places,
    same_padding,
)
from aliasfree_jax.ops.resample import Precision
from aliasfree_jax.ops.shapes import Pair, check_images, pair


def patches(x: jax.Array, window: tuple[int, int]) -> jax.Array:
    """The full windows of [N, H, W, C] at stride 1, flat: [N, H - kh + 1, W - kw + 1, kh kw C]."""
    h, w = (side - size + 1 for side, size in zip(x.shape[1:3], window, strict=True))
    columns = jnp.concatenate([x[:, :, j : j + w] for j in range(window[1])], axis=-1)
    return jnp.concatenate([columns[:, i : i + h] for i in range(window[0])], axis=-1)


def _by_patches(channels: int, strides: tuple[int, int], dilation: tuple[int, int], groups: int) -> bool:
    return strides == dilation == (1, 1) and groups == 1 and channels <= choices().patches_to


def wide_patches(
    shape: tuple[int, ...],
    window: tuple[int, int],
    features: int,
    strides: tuple[int, int],
    *,
    dilation: tuple[int, int] = (1, 1),
    groups: int,
) -> int:
    """How many numbers an image the patches for `conv2d` have, of maps [N, H, W, C], that exceed its result.

    0 where it needs no patches, or those are no wider than the result: that takes as much memory anyway.
    """
    _, h, w, channels = shape
    wide = window[0] * window[1] * channels
    return h * w * wide if _by_patches(channels, strides, dilation, groups) and wide > features else 0


def _patches_fit(x: jax.Array, window: tuple[int, int], features: int) -> bool:
    """Whether the patches of all images may be there at once; those of one image may."""
    images, limit = x.shape[0], choices().working_set
    large = wide_patches(x.shape, window, features, (1, 1), groups=1) * x.dtype.itemsize
    return (
        not large or limit is None or (isinstance(images, int) and (images <= 1 or images * large <= limit))
    )


def conv2d(
    x: jax.Array,
    kernel: jax.Array,
    strides: Pair = 1,
    padding: WindowPadding = "VALID",
    precision: Precision = None,
    *,
    dilation: Pair = 1,
    groups: int = 1,
) -> jax.Array:
    """Cross-correlation of [N, H, W, C] with [kh, kw, C / groups, F]: [N, H', W', F].

    Padding modes keep the size but for the stride, H' = ceil(H / stride). The taps of the kernel stand
    `dilation` samples apart, and with circular padding may go round the map several times.
    On the CPU the gradient of XLA's convolution of a few channels at full resolution (an image, in the
    stem of an alias-free network) is 3 times slower than that of a product over patches. Where these take
    more than the working set, `layers.convolution.Conv` takes a few images at a time; this is XLA's then.

    Raises:
      ShapeError: not floating-point [N, H, W, C], channels that do not fit the kernel, a small map.
      ConfigError: unknown padding.
    """
    *window, channels, features = kernel.shape
    rows, columns = window
    steps, apart = pair(strides, "strides"), pair(dilation, "dilation")
    check_images(x)
    if x.shape[-1] != channels * groups:
        raise ShapeError(
            f"a kernel {list(kernel.shape)} in {groups} groups takes {channels * groups} channels, got "
            f"{list(x.shape)}."
        )
    x = pad_windows(x, (rows, columns), steps, padding, dilation=apart)
    if _by_patches(channels, steps, apart, groups) and _patches_fit(x, (rows, columns), features):
        windows = patches(x, (rows, columns))
        flat = windows.reshape(-1, rows * columns * channels)
        y = jnp.matmul(flat, kernel.reshape(-1, features), precision=precision)
        return y.reshape(*windows.shape[:3], features)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=steps,
        padding="VALID",
        rhs_dilation=apart,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=precision,
    )


def mean_convolution(x: jax.Array, kernel: jax.Array, padding: Padding = "CIRCULAR") -> jax.Array:
    """Mean over the positions of the stride-1 convolution that keeps the map's size, without the convolution.

    The mean of sum_ij x[p + i, q + j] k[i, j] over all positions p, q needs only the mean of x under each
    tap: that of the whole map, corrected for the rows and columns at the border that a tap meets more or
    less than once. One pass over the map replaces its k^2 multiplications an element, and its gradient is a
    constant. The networks of learnable polyphase sampling end this way (Rojas-Gomez et al. 2022, section 3).

    Args:
      x: [N, H, W, C], floating point; sums are taken in its dtype.
      kernel: [k, k, C, F].
      padding: how the map continues.

    Returns:
      [N, F].

    Raises:
      ShapeError, ConfigError: as `ops.padding.check_amounts`.
    """
    taps, height, width = len(kernel), *x.shape[1:3]
    check_amounts(x.shape, (same_padding(taps),) * 2, padding)
    (rows, more_rows), (columns, more_columns) = (_extra_visits(s, taps, padding) for s in (height, width))
    at_rows, at_columns = x[:, rows], x[:, :, columns]
    sums = (  # [N, k, k, C]
        jnp.sum(x, axis=(1, 2))[:, None, None]
        + jnp.einsum("ir,nrc->nic", more_rows, at_rows.sum(2), precision="highest")[:, :, None]
        + jnp.einsum("js,nsc->njc", more_columns, at_columns.sum(1), precision="highest")[:, None]
        + jnp.einsum("ir,js,nrsc->nijc", more_rows, more_columns, at_rows[:, :, columns], precision="highest")
    )
    return jnp.einsum("nijc,ijcf->nf", sums / (height * width), kernel, precision="highest")


def _extra_visits(side: int, taps: int, padding: Padding) -> tuple[np.ndarray, np.ndarray]:
    """Places of an axis that some tap does not meet exactly once, and how much oftener [taps, places]."""
    shown = padded_places(side, same_padding(taps), padding)
    met = np.lib.stride_tricks.sliding_window_view(shown, side)  # [taps, positions]
    visits = (met[:, :, None] == np.arange(side)).sum(axis=1)
    places = np.flatnonzero((visits != 1).any(axis=0))
    return places, (visits[:, places] - 1).astype(np.float32)

"""Dense convolution by XLA or as a product over patches, and the mean of a convolution."""

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
    """Flattens the full windows of `[N, H, W, C]` at stride 1: `[N, H - kh + 1, W - kw + 1, kh kw C]`."""
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
    """Returns the number of values per image of the patches that `conv2d` makes, if they exceed its result.

    Returns 0 if no patches are needed, or if they are not wider than the result, which needs as much memory
    anyway.
    """
    _, h, w, channels = shape
    wide = window[0] * window[1] * channels
    return h * w * wide if _by_patches(channels, strides, dilation, groups) and wide > features else 0


def _patches_fit(x: jax.Array, window: tuple[int, int], features: int) -> bool:
    """Whether the patches of all images fit the working set. The patches of one image always do."""
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
    """Cross-correlates `[N, H, W, C]` with a kernel `[kh, kw, C / groups, F]`.

    The padding modes keep the size of the map at stride 1, so H' = ceil(H / stride). On CPUs, XLA is slow
    for few channels at full resolution, as in the stem of an alias-free network: its gradient takes 3 times
    as long as that of a product over patches. Such convolutions therefore use patches while these fit the
    working set. `layers.convolution.Conv` processes a few images at a time to stay within it.

    Args:
      x: maps `[N, H, W, C]`.
      kernel: `[kh, kw, C / groups, F]`.
      strides: strides of the windows.
      padding: see `ops.padding.WindowPadding`.
      precision: precision of the products.
      dilation: distance in samples between neighbouring taps. With circular padding the kernel may wrap
        around the map several times.
      groups: number of channel groups.

    Returns:
      `[N, H', W', F]`.

    Raises:
      ShapeError: `x` is not floating-point `[N, H, W, C]`, its channels do not fit the kernel, or it is too
        small.
      ConfigError: unknown padding.

    Source: standard convolution with circular padding; the product over patches is this package's.
    """
    *window, channels, features = kernel.shape
    rows, columns = window
    steps, apart = pair(strides, "strides"), pair(dilation, "dilation")
    check_images(x)
    if x.shape[-1] != channels * groups:
        raise ShapeError(
            f"a kernel {list(kernel.shape)} with {groups} groups needs maps with "
            f"{channels * groups} channels, got maps of shape {list(x.shape)}."
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
    """Computes the mean over all positions of a stride-1, size-keeping convolution without the convolution.

    The mean of `sum_ij x[p + i, q + j] k[i, j]` over all positions p, q needs only the mean of x under each
    tap. This is the mean of the whole map, corrected at the border for rows and columns that a tap meets
    more than once or not at all. One pass over the map replaces k^2 multiplications per element, and the
    gradient is a constant. The logit networks of learnable polyphase sampling end this way.

    Args:
      x: floating-point maps `[N, H, W, C]`. Sums are taken in their dtype.
      kernel: `[k, k, C, F]`.
      padding: how the map continues beyond its border.

    Returns:
      `[N, F]`.

    Raises:
      ShapeError: the map is too small for the padding.
      ConfigError: unknown padding.

    Source: this package, for the logits of Rojas-Gomez et al. 2022 (arXiv 2210.08001), section 3.
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
    """Positions that some tap does not meet exactly once, and the surplus `[taps, positions]`."""
    shown = padded_places(side, same_padding(taps), padding)
    met = np.lib.stride_tricks.sliding_window_view(shown, side)  # [taps, positions]
    visits = (met[:, :, None] == np.arange(side)).sum(axis=1)
    places = np.flatnonzero((visits != 1).any(axis=0))
    return places, (visits[:, places] - 1).astype(np.float32)

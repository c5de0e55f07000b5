"""Sampling of sequences `[N, L, C]`: the 2-D operations on the rows of maps that are one column wide."""

import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ShapeError
from aliasfree_jax.ops.blurring import blur
from aliasfree_jax.ops.padding import Padding
from aliasfree_jax.ops.polyphase import Criterion, polyphase_downsample, polyphase_upsample
from aliasfree_jax.ops.resample import (
    Precision,
    ideal_downsample,
    ideal_lowpass,
    ideal_resample,
    ideal_upsample,
)


def check_sequences(x: jax.Array, stride: int = 1) -> None:
    """Raises `ShapeError` unless `x` is floating-point `[N, L, C]` and not shorter than the stride."""
    if x.ndim != 3 or not jnp.issubdtype(x.dtype, jnp.floating):
        raise ShapeError(f"expected floating-point sequences [N, L, C], got {x.dtype}{list(x.shape)}.")
    if x.shape[1] < stride:
        raise ShapeError(
            f"sampling by {stride} needs sequences of at least that length, got shape {list(x.shape)}."
        )


def _column(x: jax.Array) -> jax.Array:
    """`[N, L, C]` as a map `[N, L, 1, C]`."""
    check_sequences(x)
    return x[:, :, None]


def blur_1d(x: jax.Array, kernel_size: int = 3, strides: int = 1, padding: Padding = "CIRCULAR") -> jax.Array:
    """Blurs sequences with a binomial filter and keeps every `strides`-th sample.

    Args:
      x: sequences `[N, L, C]`.
      kernel_size: taps of the filter, 1 to 7.
      strides: sampling stride.
      padding: how the sequence continues beyond its ends.

    Returns:
      `[N, ceil(L / stride), C]`.

    Raises:
      ConfigError: unknown filter size or padding.
      ShapeError: `x` is not floating-point `[N, L, C]`, or too short.

    Source: Zhang 2019 (arXiv 1904.11486), section 3.2 (BlurPool1D of antialiased-cnns).
    """
    return blur(_column(x), (kernel_size, 1), (strides, 1), padding)[:, :, 0]


def ideal_lowpass_1d(x: jax.Array, cutoff: float = 0.5, *, precision: Precision = "highest") -> jax.Array:
    """Removes all frequencies of sequences above `cutoff`.

    Args:
      x: sequences `[N, L, C]`.
      cutoff: fraction of the Nyquist frequency in (0, 1].
      precision: precision of the products with the filter matrix.

    Returns:
      `[N, L, C]`.

    Raises:
      ConfigError: the cutoff is outside (0, 1].
      ShapeError: `x` is not floating-point `[N, L, C]`.

    Source: this package; the filter is that of Michaeli et al. 2023 (arXiv 2303.08085), section 3.1.
    """
    return ideal_lowpass(_column(x), cutoff, precision=precision)[:, :, 0]


def ideal_resample_1d(x: jax.Array, length: int, *, precision: Precision = "highest") -> jax.Array:
    """Resamples sequences to any length, up or down, without aliasing.

    Args:
      x: sequences `[N, L, C]`.
      length: samples of the result.
      precision: precision of the products with the filter matrix.

    Returns:
      `[N, length, C]`.

    Raises:
      ShapeError: `x` is not floating-point `[N, L, C]`, or `length` is below 1.

    Source: this package; see `ops.ideal_resample`.
    """
    return ideal_resample(_column(x), (length, 1), precision=precision)[:, :, 0]


def ideal_downsample_1d(
    x: jax.Array, strides: int = 2, *, any_size: bool = False, precision: Precision = "highest"
) -> jax.Array:
    """Low-passes sequences at 1 / stride, then keeps every `strides`-th sample.

    Args:
      x: sequences `[N, L, C]`.
      strides: sampling stride.
      any_size: whether to sample lengths evenly that are not multiples of the stride; see
        `ops.ideal_downsample`.
      precision: precision of the products with the filter matrix.

    Returns:
      `[N, ceil(L / stride), C]`.

    Raises:
      ShapeError: `x` is not floating-point `[N, L, C]`.

    Source: this package; the filter is that of Michaeli et al. 2023 (arXiv 2303.08085), section 3.1.
    """
    return ideal_downsample(_column(x), (strides, 1), any_size=any_size, precision=precision)[:, :, 0]


def ideal_upsample_1d(x: jax.Array, factor: int = 2, *, precision: Precision = "highest") -> jax.Array:
    """Interpolates sequences by an integer factor; see `ops.ideal_upsample`.

    Args:
      x: sequences `[N, L, C]`.
      factor: upsampling factor.
      precision: precision of the products with the filter matrix.

    Returns:
      `[N, factor L, C]`.

    Raises:
      ConfigError: the factor is below 1.
      ShapeError: `x` is not floating-point `[N, L, C]`.

    Source: this package; the filter is that of Michaeli et al. 2023 (arXiv 2303.08085), section 3.2.
    """
    return ideal_upsample(_column(x), (factor, 1), precision=precision)[:, :, 0]


def polyphase_downsample_1d(
    x: jax.Array,
    criterion: Criterion = "l2",
    phase: jax.Array | None = None,
    *,
    strides: int = 2,
    padding: Padding = "CIRCULAR",
) -> tuple[jax.Array, jax.Array]:
    """Keeps the polyphase component of sequences with the highest score.

    Phase k is the component `x[k::stride]`.

    Args:
      x: sequences `[N, L, C]`. Lengths that are not multiples of the stride are padded first.
      criterion: see `ops.component_scores`.
      phase: phase to use instead of choosing one; see `ops.select_component`.
      strides: sampling stride.
      padding: padding of lengths that are not multiples of the stride.

    Returns:
      The component `[N, ceil(L / stride), C]` and its phase `[N]`.

    Raises:
      ShapeError: `x` is not floating-point `[N, L, C]`.
      ConfigError: unknown criterion or padding.

    Source: this package, after APS (Chaman & Dokmanic 2021, arXiv 2011.14214).
    """
    y, chosen = polyphase_downsample(_column(x), criterion, phase, strides=(strides, 1), padding=padding)
    return y[:, :, 0], chosen


def polyphase_upsample_1d(x: jax.Array, phase: jax.Array, strides: int = 2) -> jax.Array:
    """Writes samples at the phase they were taken from and fills the rest with zeros.

    Args:
      x: sequences `[N, l, C]`.
      phase: integers `[N]`, or weights `[N, K]`; see `ops.polyphase_upsample`.
      strides: upsampling stride.

    Returns:
      `[N, stride l, C]`.

    Raises:
      ShapeError: `x` is not floating-point `[N, l, C]`.

    Source: this package, after APS-U (Chaman & Dokmanic 2021, arXiv 2105.04040).
    """
    return polyphase_upsample(_column(x), phase, (strides, 1))[:, :, 0]

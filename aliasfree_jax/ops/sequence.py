"""Sampling of sequences [N, L, C]: the 2-D operations along the rows of maps one column wide."""

import jax

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


def _column(x: jax.Array) -> jax.Array:
    """[N, L, C] as a map [N, L, 1, C]."""
    if x.ndim != 3:
        raise ShapeError(f"expected sequences [N, L, C], got {x.dtype}{list(x.shape)}.")
    return x[:, :, None]


def blur_1d(x: jax.Array, kernel_size: int = 3, strides: int = 1, padding: Padding = "CIRCULAR") -> jax.Array:
    """Binomial blur of `kernel_size` taps, then every `strides`-th sample (BlurPool1D of antialiased-cnns).

    [N, L, C] to [N, ceil(L / stride), C]. Raises as `ops.blur`.
    """
    return blur(_column(x), (kernel_size, 1), (strides, 1), padding)[:, :, 0]


def ideal_lowpass_1d(x: jax.Array, cutoff: float = 0.5, *, precision: Precision = "highest") -> jax.Array:
    """[N, L, C] without frequencies above `cutoff`, a fraction of the Nyquist frequency."""
    return ideal_lowpass(_column(x), cutoff, precision=precision)[:, :, 0]


def ideal_resample_1d(x: jax.Array, length: int, *, precision: Precision = "highest") -> jax.Array:
    """[N, L, C] to [N, length, C], of any ratio, without aliasing: upsampling and downsampling in one."""
    return ideal_resample(_column(x), (length, 1), precision=precision)[:, :, 0]


def ideal_downsample_1d(
    x: jax.Array, strides: int = 2, *, any_size: bool = False, precision: Precision = "highest"
) -> jax.Array:
    """[N, L, C] to [N, ceil(L / stride), C], as `ops.ideal_downsample`."""
    return ideal_downsample(_column(x), (strides, 1), any_size=any_size, precision=precision)[:, :, 0]


def ideal_upsample_1d(x: jax.Array, factor: int = 2, *, precision: Precision = "highest") -> jax.Array:
    """[N, L, C] to [N, factor L, C], as `ops.ideal_upsample`."""
    return ideal_upsample(_column(x), (factor, 1), precision=precision)[:, :, 0]


def polyphase_downsample_1d(
    x: jax.Array,
    criterion: Criterion = "l2",
    phase: jax.Array | None = None,
    *,
    strides: int = 2,
    padding: Padding = "CIRCULAR",
) -> tuple[jax.Array, jax.Array]:
    """The polyphase component of [N, L, C] with the best score, [N, ceil(L / stride), C], and its phase [N].

    See `ops.polyphase_downsample`; phase k is the component x[k::stride].
    """
    y, chosen = polyphase_downsample(_column(x), criterion, phase, strides=(strides, 1), padding=padding)
    return y[:, :, 0], chosen


def polyphase_upsample_1d(x: jax.Array, phase: jax.Array, strides: int = 2) -> jax.Array:
    """Writes [N, l, C] at the phase it was sampled at into zeros: [N, stride l, C]."""
    return polyphase_upsample(_column(x), phase, (strides, 1))[:, :, 0]

"""Sampling of sequences [N, L, C]: the 2-D operations along the rows of maps one column wide."""

import jax

from aliasfree_jax.ops import blur as blur_2d
from aliasfree_jax.ops import polyphase, resample
from aliasfree_jax.ops.padding import Padding, pad, same_padding
from aliasfree_jax.ops.polyphase import Criterion
from aliasfree_jax.ops.resample import Precision


def blur(x: jax.Array, size: int = 3, stride: int = 1, padding: Padding = "circular") -> jax.Array:
    """Binomial blur of `size` taps, then every `stride`-th sample (BlurPool1D, whose default size is 3).

    [N, L, C] to [N, ceil(L / stride), C]. Raises as `ops.blur.blur`.
    """
    taps = blur_2d.binomial_taps(size)
    padded = pad(x[:, :, None], (same_padding(size), (0, 0)), padding)
    return blur_2d.blur_axis(padded, 1, taps, stride)[:, :, 0]


def ideal_lowpass(x: jax.Array, cutoff: float = 0.5, *, precision: Precision = "highest") -> jax.Array:
    """[N, L, C] without frequencies above `cutoff`, a fraction of the Nyquist frequency."""
    return resample.ideal_lowpass(x[:, :, None], cutoff, precision=precision)[:, :, 0]


def ideal_resample(x: jax.Array, length: int, *, precision: Precision = "highest") -> jax.Array:
    """[N, L, C] to [N, length, C], of any ratio, without aliasing: upsampling and downsampling in one."""
    return resample.ideal_resample(x[:, :, None], (length, 1), precision=precision)[:, :, 0]


def polyphase_downsample(
    x: jax.Array,
    criterion: Criterion = "l2",
    phase: jax.Array | None = None,
    *,
    stride: int = 2,
    padding: Padding = "circular",
) -> tuple[jax.Array, jax.Array]:
    """The polyphase component of [N, L, C] with the best score, [N, ceil(L / stride), C], and its phase [N].

    See `ops.polyphase.polyphase_downsample`; phase k is the component x[k::stride].
    """
    y, chosen = polyphase.polyphase_downsample(
        x[:, :, None], criterion, phase, stride=(stride, 1), padding=padding
    )
    return y[:, :, 0], chosen


def polyphase_upsample(x: jax.Array, phase: jax.Array, *, stride: int = 2) -> jax.Array:
    """Writes [N, l, C] at the phase it was sampled at into zeros: [N, stride l, C]."""
    return polyphase.polyphase_upsample(x[:, :, None], phase, (stride, 1))[:, :, 0]

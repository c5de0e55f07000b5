"""The spatial mean of a convolution's output, without the convolution.

The mean of sum_ij x[p + i, q + j] k[i, j] over all positions p, q needs only the mean of x under each
tap: that of the whole map, corrected for the rows and columns at the border that a tap meets more or
less than once. One pass over the map replaces its k^2 multiplications an element, and its gradient is a
constant. The networks of learnable polyphase sampling end this way (Rojas-Gomez et al. 2022, section 3).
"""

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.ops.convolution import conv2d
from aliasfree_jax.ops.padding import Padding, check_amounts, padded_places, same_padding


def mean_convolution(x: jax.Array, kernel: jax.Array, padding: Padding = "circular") -> jax.Array:
    """Mean over the positions of the stride-1 convolution that keeps the map's size.

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


def mean_convolution_ref(x: jax.Array, kernel: jax.Array, padding: Padding = "circular") -> jax.Array:
    """Twin of `mean_convolution`: the convolution, then its mean."""
    return jnp.mean(conv2d(x, kernel, 1, padding, "highest"), axis=(1, 2))


def _extra_visits(side: int, taps: int, padding: Padding) -> tuple[np.ndarray, np.ndarray]:
    """Places of an axis that some tap does not meet exactly once, and how much oftener [taps, places]."""
    shown = padded_places(side, same_padding(taps), padding)
    met = np.lib.stride_tricks.sliding_window_view(shown, side)  # [taps, positions]
    visits = (met[:, :, None] == np.arange(side)).sum(axis=1)
    places = np.flatnonzero((visits != 1).any(axis=0))
    return places, (visits[:, places] - 1).astype(np.float32)

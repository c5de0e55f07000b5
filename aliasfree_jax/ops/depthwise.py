"""Depthwise convolution with its own gradient (fast_exact rule 6).

XLA's grouped convolution on the CPU is 15 to 50 times slower than a sum over shifted slices, which
fuses into one loop; automatic differentiation of that sum is slow again. Hence a custom gradient:
towards the input the same sum with the flipped kernel, towards the kernel one reduction a tap, row of
taps by row of taps (all taps in one fusion are ten times slower on the CPU).
"""

from typing import Literal

import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError, ShapeError, unknown
from aliasfree_jax.ops.padding import Padding, pad, same_padding

DepthwiseMethod = Literal["shifted", "conv", "auto"]


def _shifted_sum(padded: jax.Array, kernel: jax.Array) -> jax.Array:
    """VALID depthwise correlation of [N, H, W, C] with [k, k, C], accumulated in float32 or better."""
    rows, columns = kernel.shape[:2]
    h, w = padded.shape[1] - rows + 1, padded.shape[2] - columns + 1
    accurate = jnp.promote_types(padded.dtype, jnp.float32)
    y = jnp.zeros((), accurate)
    for i in range(rows):
        for j in range(columns):
            y = y + padded[:, i : i + h, j : j + w].astype(accurate) * kernel[i, j].astype(accurate)
    return y.astype(padded.dtype)


@jax.custom_vjp
def _depthwise_valid(padded: jax.Array, kernel: jax.Array) -> jax.Array:
    return _shifted_sum(padded, kernel)


def _forward(padded: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _shifted_sum(padded, kernel), (padded, kernel)


def _backward(residuals: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    padded, kernel = residuals
    rows, columns = kernel.shape[:2]
    h, w = dy.shape[1:3]
    border = ((rows - 1, rows - 1), (columns - 1, columns - 1))
    d_padded = _shifted_sum(pad(dy, border, "zero"), kernel[::-1, ::-1])
    accurate = jnp.promote_types(dy.dtype, jnp.float32)
    dy = dy.astype(accurate)

    def tap_row(i: jax.Array) -> jax.Array:
        lines = jax.lax.dynamic_slice_in_dim(padded, i, h, axis=1).astype(accurate)
        return jnp.stack([jnp.sum(lines[:, :, j : j + w] * dy, axis=(0, 1, 2)) for j in range(columns)])

    d_kernel = jax.lax.map(tap_row, jnp.arange(rows))
    return d_padded, d_kernel.astype(kernel.dtype)


_depthwise_valid.defvjp(_forward, _backward)


def depthwise_conv_ref(x: jax.Array, kernel: jax.Array, padding: Padding = "circular") -> jax.Array:
    """The same by XLA's grouped convolution: twin of the shifted sum, and the choice on accelerators."""
    padded = pad(x, (same_padding(kernel.shape[0]), same_padding(kernel.shape[1])), padding)
    return jax.lax.conv_general_dilated(
        padded,
        kernel[:, :, None, :],
        window_strides=(1, 1),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=kernel.shape[-1],
        precision="highest",
    )


def depthwise_conv(
    x: jax.Array, kernel: jax.Array, padding: Padding = "circular", *, method: DepthwiseMethod = "auto"
) -> jax.Array:
    """Correlates each channel with its own filter at stride 1, keeping the size of the map.

    Args:
      x: [N, H, W, C].
      kernel: [k, k, C].
      padding: how the map continues beyond its border.
      method: "shifted" (sum over slices, own gradient), "conv" (XLA's grouped convolution), or
        "auto": shifted sums on the CPU, convolutions elsewhere.

    Raises:
      ShapeError: channels differ, or the map is smaller than the padding.
      ConfigError: unknown padding or method.
    """
    if kernel.ndim != 3 or kernel.shape[-1] != x.shape[-1]:
        raise ShapeError(
            f"expected a kernel [k, k, {x.shape[-1]}] for maps {list(x.shape)}, got {list(kernel.shape)}."
        )
    if method not in ("shifted", "conv", "auto"):
        raise ConfigError(unknown("depthwise method", method, ("shifted", "conv", "auto")))
    if method == "conv" or (method == "auto" and jax.default_backend() != "cpu"):
        return depthwise_conv_ref(x, kernel, padding)
    padded = pad(x, (same_padding(kernel.shape[0]), same_padding(kernel.shape[1])), padding)
    return _depthwise_valid(padded, kernel)

"""Depthwise convolution with its own gradient (fast_exact rule 6).

XLA's grouped convolution on the CPU is 15 to 50 times slower than a sum over shifted slices, which
fuses into one loop; automatic differentiation of that sum is slow again. Hence a custom gradient:
towards the input the same sum with the flipped kernel, towards the kernel one reduction a tap, one
after the other (several in one fusion are 2 to 10 times slower on the CPU).
"""

import functools
from typing import Literal

import jax
import jax.numpy as jnp

from aliasfree_jax.errors import ConfigError, ShapeError, unknown
from aliasfree_jax.ops.choices import choices
from aliasfree_jax.ops.padding import Padding, pad, same_padding
from aliasfree_jax.ops.resample import Precision

DepthwiseMethod = Literal["shifted", "conv", "auto"]


def _shifted_sum(padded: jax.Array, kernel: jax.Array) -> jax.Array:
    """VALID depthwise correlation of [N, H, W, C] with [k, k, C], accumulated in float32 or better."""
    rows, columns = kernel.shape[:2]
    n, h, w, c = padded.shape[0], padded.shape[1] - rows + 1, padded.shape[2] - columns + 1, padded.shape[3]
    accurate = jnp.promote_types(padded.dtype, jnp.float32)

    def total(padded: jax.Array) -> jax.Array:
        y = jnp.zeros((), accurate)
        for i in range(rows):
            for j in range(columns):
                y = y + padded[:, i : i + h, j : j + w].astype(accurate) * kernel[i, j].astype(accurate)
        return y.astype(padded.dtype)

    # Left to itself, XLA cuts the sum in two for the sake of the padding before it and a norm after it:
    # 7 times slower. It removes optimization barriers before it fuses, but never fuses over the border
    # of a conditional; and this condition it cannot decide, though nothing but a nan makes it false.
    number = kernel[0, 0, 0] == kernel[0, 0, 0]
    return jax.lax.cond(number, total, lambda _: jnp.full((n, h, w, c), jnp.nan, padded.dtype), padded)


def _padded(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    return pad(x, (same_padding(kernel.shape[0]), same_padding(kernel.shape[1])), padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x: jax.Array, kernel: jax.Array, padding: Padding) -> jax.Array:
    return _shifted_sum(_padded(x, kernel, padding), kernel)


def _forward(
    x: jax.Array, kernel: jax.Array, padding: Padding
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _depthwise(x, kernel, padding), (x, kernel)


def _backward(
    padding: Padding, residuals: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = residuals
    padded, unpad = jax.vjp(lambda z: _padded(z, kernel, padding), x)
    flipped, sizes = kernel[::-1, ::-1], kernel.shape[:2]
    if padding in ("CIRCULAR", "ZERO"):  # the adjoint pads alike, with before and after exchanged
        rows, columns = (same_padding(size)[::-1] for size in sizes)
        d_x = _shifted_sum(pad(dy, (rows, columns), padding), flipped)
    else:
        rows, columns = ((size - 1, size - 1) for size in sizes)
        (d_x,) = unpad(_shifted_sum(pad(dy, (rows, columns), "ZERO"), flipped))
    return d_x, _kernel_gradient(padded, dy, sizes).astype(kernel.dtype)


def _kernel_gradient(padded: jax.Array, dy: jax.Array, sizes: tuple[int, ...]) -> jax.Array:
    """Correlation of the padded input with `dy` at each of the taps: [rows, columns, C]."""
    accurate = jnp.promote_types(dy.dtype, jnp.float32)
    dy = dy.astype(accurate)

    def tap(index: jax.Array) -> jax.Array:
        start = (0, index // sizes[1], index % sizes[1], 0)
        return jnp.sum(jax.lax.dynamic_slice(padded, start, dy.shape).astype(accurate) * dy, axis=(0, 1, 2))

    return jax.lax.map(tap, jnp.arange(sizes[0] * sizes[1])).reshape(*sizes, -1)


_depthwise.defvjp(_forward, _backward)


def depthwise_conv_ref(
    x: jax.Array, kernel: jax.Array, padding: Padding = "CIRCULAR", precision: Precision = None
) -> jax.Array:
    """The same by XLA's grouped convolution: twin of the shifted sum, and the choice on accelerators."""
    return jax.lax.conv_general_dilated(
        _padded(x, kernel, padding),
        kernel[:, :, None, :],
        window_strides=(1, 1),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=kernel.shape[-1],
        precision=precision,
    )


def depthwise_conv(
    x: jax.Array,
    kernel: jax.Array,
    padding: Padding = "CIRCULAR",
    *,
    method: DepthwiseMethod = "auto",
    precision: Precision = None,
) -> jax.Array:
    """Correlates each channel with its own filter at stride 1, keeping the size of the map.

    Args:
      x: [N, H, W, C].
      kernel: [k, k, C].
      padding: how the map continues beyond its border.
      method: "shifted" (sum over slices, own gradient), "conv" (XLA's grouped convolution), or
        "auto" (`ops.choices`).
      precision: of the products of "conv"; shifted sums are always exact.

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
    if (choices().depthwise if method == "auto" else method) == "conv":
        return depthwise_conv_ref(x, kernel, padding, precision)
    return _depthwise(x, kernel, padding)

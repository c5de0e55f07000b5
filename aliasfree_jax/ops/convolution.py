"""Dense convolution, by XLA or as one product over gathered patches."""

import jax
import jax.numpy as jnp

from aliasfree_jax.ops.choices import choices
from aliasfree_jax.ops.padding import WindowPadding, pad, same_padding
from aliasfree_jax.ops.resample import Precision


def patches(x: jax.Array, size: int) -> jax.Array:
    """The full windows of [N, H, W, C] at stride 1, flat: [N, H - size + 1, W - size + 1, size^2 C]."""
    h, w = (side - size + 1 for side in x.shape[1:3])
    columns = jnp.concatenate([x[:, :, j : j + w] for j in range(size)], axis=-1)
    return jnp.concatenate([columns[:, i : i + h] for i in range(size)], axis=-1)


def conv2d(
    x: jax.Array,
    kernel: jax.Array,
    stride: int = 1,
    padding: WindowPadding = "none",
    precision: Precision = "highest",
    *,
    groups: int = 1,
) -> jax.Array:
    """Cross-correlation of [N, H, W, C] with [k, k, C / groups, F]: [N, H', W', F].

    Padding keeps the size but for the stride, H' = ceil(H / stride); "none" takes full windows only.
    On the CPU the gradient of XLA's convolution of a few channels at full resolution (an image, in the
    stem of an alias-free network) is 3 times slower than that of a product over patches.
    """
    size, _, channels, features = kernel.shape
    if padding != "none":
        x = pad(x, (same_padding(size),) * 2, padding)
    if stride == groups == 1 and channels <= choices().patches_to:
        windows = patches(x, size)
        flat = windows.reshape(-1, size**2 * channels)
        y = jnp.matmul(flat, kernel.reshape(-1, features), precision=precision)
        return y.reshape(*windows.shape[:3], features)
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        window_strides=(stride, stride),
        padding="VALID",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=groups,
        precision=precision,
    )

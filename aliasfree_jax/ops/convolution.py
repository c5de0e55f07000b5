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


def wide_patches(shape: tuple[int, ...], size: int, features: int, stride: int, *, groups: int) -> int:
    """How many numbers an image the patches for `conv2d` have, of maps [N, H, W, C], that exceed its result.

    0 where it needs no patches, or those are no wider than the result: that takes as much memory anyway.
    """
    _, h, w, channels = shape
    narrow = stride == groups == 1 and channels <= choices().patches_to
    return h * w * size**2 * channels if narrow and size**2 * channels > features else 0


def _patches_fit(x: jax.Array, size: int, features: int) -> bool:
    """Whether the patches of all images may be there at once; those of one image may."""
    images, limit = x.shape[0], choices().working_set
    large = wide_patches(x.shape, size, features, 1, groups=1) * x.dtype.itemsize
    return (
        not large or limit is None or (isinstance(images, int) and (images == 1 or images * large <= limit))
    )


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
    stem of an alias-free network) is 3 times slower than that of a product over patches. Where these take
    more than the working set, `layers.convolution.Conv` takes a few images at a time; this is XLA's then.
    """
    size, _, channels, features = kernel.shape
    if padding != "none":
        x = pad(x, (same_padding(size),) * 2, padding)
    narrow = stride == groups == 1 and channels <= choices().patches_to
    if narrow and _patches_fit(x, size, features):
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

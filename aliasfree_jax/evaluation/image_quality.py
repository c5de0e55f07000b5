"""Similarity of two images: mean squared error, PSNR, and SSIM with the defaults of scikit-image."""

import jax
import jax.numpy as jnp

WINDOW = 7  # pixels; images must be at least this large for SSIM
K1, K2 = 0.01, 0.03
SMALLEST_PEAK = 1e-6  # a smaller range is only rounding: the image has one grey value in [0, 1]


def spread(images: jax.Array, inside: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Largest value of each image, and the largest minus the smallest value.

    Args:
      images: `[N, H, W, C]`.
      inside: Pixels that count, `[N, H, W]`.

    Returns:
      Both values, each `[N]`.
    """
    inside = inside[..., None]
    largest = jnp.where(inside, images, -jnp.inf).max((1, 2, 3))
    return largest, largest - jnp.where(inside, images, jnp.inf).min((1, 2, 3))


def energy(images: jax.Array, inside: jax.Array) -> jax.Array:
    """Sum of squares of each image.

    Args:
      images: `[N, H, W, C]`.
      inside: Pixels that count, `[N, H, W]`.

    Returns:
      The sums, `[N]`.
    """
    return jnp.square(jnp.where(inside[..., None], images, 0)).sum((1, 2, 3))


def psnr(target: jax.Array, found: jax.Array, peak: jax.Array, inside: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio in dB: 10 log10 of peak^2 / mean squared error.

    Source: the usual definition.

    Args:
      target: Images `[N, H, W, C]`.
      found: Images to compare with them, `[N, H, W, C]`.
      peak: Range of the target's values, `[N]`.
      inside: Pixels that count, `[N, H, W]`.

    Returns:
      PSNR `[N]`: inf if there is no error, nan if the range is 0.
    """
    error = energy(found - target, inside) / (inside.sum((1, 2)) * target.shape[-1])
    decibels = 20 * jnp.log10(peak) - 10 * jnp.log10(error)
    return jnp.where(peak > SMALLEST_PEAK, decibels, jnp.nan)


def _window_means(images: jax.Array) -> jax.Array:
    """Means over all windows inside the images, `[N, H - 6, W - 6, C]`."""
    sums = jax.lax.optimization_barrier(images)  # XLA takes seconds to fold windows of constants
    for window in ((1, WINDOW, 1, 1), (1, 1, WINDOW, 1)):
        sums = jax.lax.reduce_window(sums, jnp.zeros((), sums.dtype), jax.lax.add, window, (1,) * 4, "VALID")
    return sums / WINDOW**2


def ssim(target: jax.Array, found: jax.Array, peak: jax.Array, inside: jax.Array) -> jax.Array:
    """Mean structural similarity over windows and channels.

    Windows of 7 x 7 pixels with equal weights, sample variances and constants are the defaults of
    `skimage.metrics.structural_similarity`, which fastMRI and the programs of APS use. A window counts only
    if all its pixels count.

    Source: Wang et al. 2004, Image quality assessment (IEEE Transactions on Image Processing 13).

    Args:
      target: Images `[N, H, W, C]`.
      found: Images to compare with them, `[N, H, W, C]`.
      peak: Range of the target's values, `[N]`.
      inside: Pixels that count, `[N, H, W]`.

    Returns:
      SSIM `[N]`: nan if the range is 0 or no window counts.
    """
    # Subtract the mean of each image first, so that variances are not differences of large numbers.
    middle = target.mean((1, 2), keepdims=True)
    x, y = target - middle, found - middle
    mean_x, mean_y = _window_means(x), _window_means(y)
    sample = WINDOW**2 / (WINDOW**2 - 1)
    variance_x = sample * (_window_means(x * x) - mean_x**2)
    variance_y = sample * (_window_means(y * y) - mean_y**2)
    covariance = sample * (_window_means(x * y) - mean_x * mean_y)
    first, second = ((k * peak[:, None, None, None]) ** 2 for k in (K1, K2))
    mean_x, mean_y = mean_x + middle, mean_y + middle
    luminance = (2 * mean_x * mean_y + first) / (mean_x**2 + mean_y**2 + first)
    similarity = luminance * (2 * covariance + second) / (variance_x + variance_y + second)
    whole = _window_means(inside[..., None].astype(x.dtype)) > 1 - 0.5 / WINDOW**2
    mean = jnp.where(whole, similarity, 0).sum((1, 2, 3)) / (whole.sum((1, 2, 3)) * x.shape[-1])
    return jnp.where(peak > SMALLEST_PEAK, mean, jnp.nan)

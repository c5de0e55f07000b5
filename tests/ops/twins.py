"""Reference implementations of operations (`_ref`): simple and slow, straight from the definition."""

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.ops.activation import Scale, polynomial
from aliasfree_jax.ops.blurring import binomial_taps
from aliasfree_jax.ops.convolution import conv2d
from aliasfree_jax.ops.padding import Padding


def blur_ref(x: np.ndarray, size: int, stride: int = 1) -> np.ndarray:
    """Reference for circular `blur`: correlation with the outer product, one tap at a time."""
    taps = binomial_taps(size)
    before = (size - 1) // 2
    y = np.zeros_like(x)
    for i in range(size):
        for j in range(size):
            y += taps[i] * taps[j] * np.roll(x, (before - i, before - j), axis=(1, 2))
    return y[:, ::stride, ::stride]


def conv2d_ref(x: np.ndarray, kernel: np.ndarray, dilation: tuple[int, int], padding: Padding) -> np.ndarray:
    """Reference for `conv2d` at stride 1: one tap at a time, at the source position of each padded sample."""
    rows, columns = kernel.shape[:2]
    y = np.zeros((*x.shape[:3], kernel.shape[3]))
    shown = []
    for side, size, step in zip(x.shape[1:3], (rows, columns), dilation, strict=True):
        before = (size - 1) * step // 2
        places = np.arange(side)[None] + step * np.arange(size)[:, None] - before  # [taps, side]
        within = (places >= 0) & (places < side) if padding == "ZERO" else np.ones_like(places, bool)
        if padding == "REFLECT":
            places = abs(places)
            places = np.minimum(places, 2 * (side - 1) - places)
        shown.append((places.clip(0, side - 1) if padding != "CIRCULAR" else places % side, within))
    (at_rows, rows_within), (at_columns, columns_within) = shown
    for i in range(rows):
        for j in range(columns):
            seen = x[:, at_rows[i]][:, :, at_columns[j]]
            y += (seen * (rows_within[i][:, None] * columns_within[j])[..., None]) @ kernel[i, j]
    return y


def mean_convolution_ref(x: jax.Array, kernel: jax.Array, padding: Padding = "CIRCULAR") -> jax.Array:
    """Reference for `mean_convolution`: the convolution, then its mean."""
    return jnp.mean(conv2d(x, kernel, 1, padding, "highest"), axis=(1, 2))


def polyphase_downsample_ref(x: jax.Array) -> jax.Array:
    """Reference for l2 `polyphase_downsample` on even sides: strided slices in a Python loop."""
    samples = []
    for image in x:
        parts = [image[i::2, j::2] for j in (0, 1) for i in (0, 1)]
        samples.append(max(parts, key=lambda part: float((part**2).sum())))
    return jnp.stack(samples)


def up_polynomial_down_ref(
    x: jax.Array,
    coefficients: jax.Array,
    in_scale: Scale = 1.0,
    out_scale: Scale = 1.0,
) -> jax.Array:
    """Reference for `up_polynomial_down` of quadratics, like the original: on the 2N grid, by FFT."""
    n, h, w, c = x.shape
    spread = jnp.zeros((n, 2 * h, 2 * w, c), x.dtype).at[:, ::2, ::2].set(4 * x)

    def mask(size: int, nyquist: float) -> jax.Array:
        k = jnp.abs(jnp.fft.fftfreq(2 * size, 1 / (2 * size)))
        return jnp.where(2 * k < size, 1.0, jnp.where(2 * k == size, nyquist, 0.0))

    def lowpass(z: jax.Array, nyquist: float) -> jax.Array:
        gains = mask(h, nyquist)[:, None, None] * mask(w, nyquist)[:, None]
        return jnp.fft.ifft2(jnp.fft.fft2(z, axes=(1, 2)) * gains, axes=(1, 2)).real

    return lowpass(polynomial(lowpass(spread, 0.5), coefficients, in_scale, out_scale), 0.0)[:, ::2, ::2]


def up_gate_down_ref(x: jax.Array, by: jax.Array, in_scale: Scale = 1.0, out_scale: Scale = 1.0) -> jax.Array:
    """Reference for `up_gate_down` without any grid: the convolution of both maps' Fourier coefficients.

    The Nyquist frequency has the weight 0 in both maps and in the result.
    """
    (_, h, w, _), half = x.shape, (x.shape[1] // 2, x.shape[2] // 2)

    def waves(side: int) -> jax.Array:
        """exp(2 pi i k n / side) for n and |k| < side / 2, [side, k], and 0 at |k| = side / 2."""
        k = jnp.arange(-(side // 2), side // 2 + 1)
        return (2 * abs(k) < side) * jnp.exp(2j * jnp.pi * jnp.arange(side)[:, None] * k / side)

    def coefficients(z: jax.Array) -> jax.Array:
        rows, columns = waves(h).conj() / h, waves(w).conj() / w
        return jnp.einsum("hp,wq,nhwc->npqc", rows, columns, z)

    a, b = coefficients(x), coefficients(by)
    around = jnp.pad(b, ((0, 0), (2 * half[0],) * 2, (2 * half[1],) * 2, (0, 0)))
    product = jnp.zeros_like(a)
    for row in range(a.shape[1]):
        for column in range(a.shape[2]):
            # Frequency k of the product is the sum of a(j) b(k - j): b shifted by j = row - half.
            top, left = 3 * half[0] - row, 3 * half[1] - column
            moved = around[:, top : top + a.shape[1], left : left + a.shape[2]]
            product += a[:, row, column][:, None, None] * moved
    y = a + jnp.reshape(jnp.asarray(in_scale), ()) * product
    y = jnp.einsum("hp,wq,npqc->nhwc", waves(h), waves(w), y).real
    return jnp.reshape(jnp.asarray(out_scale), ()) * y.astype(x.dtype)

"""Equivariance error of a feature map: compares the map of a shifted image with the shifted map."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

Shift = tuple[float, float]


def pair(shift: Shift) -> str:
    """Formats a shift, e.g. (0.5, 1)."""
    return f"({shift[0]:g}, {shift[1]:g})"


def tolerance(dtype: Any) -> float:
    """The error above which a layer that computes in `dtype` breaks equivariance.

    The tolerance is 1e-9 in float64. Rounding errors are smaller: 200 layers that each sum 10^4 values reach
    at most 200 * 10^4 * 2.2e-16 = 4e-10, if all roundings have the worst direction. Exact networks measure
    1e-16 to 1e-14. Aliasing is larger: the weakest case is 5e-7, for GELUs with ideal samplers and the
    initial layer scale of a ConvNeXt, 1e-6. Float32 cannot separate 5e-7 from its rounding errors. Therefore
    narrower types than float64 are used only if the network's code requires them. Their tolerance is 1000
    roundings: 1e-4 in float32.
    """
    epsilon = float(jnp.finfo(dtype).eps)
    return 1e-9 if epsilon < 1e-12 else 1000 * epsilon


def displacements(shift: float, side: int, full: int) -> np.ndarray:
    """Possible displacements of a map of `side` samples, in samples, if the image (`full` pixels) is shifted.

    The first is proportional to `shift`. If the map is coarser by a factor q, the others are those of an
    image shifted by k more pixels, |k| < q. Reason: the grid of an adaptive sampler starts at any of q
    pixels, and the start may differ for the shifted image.
    """
    if side >= full:
        return np.array([shift * side / full])
    if full % side:  # the map was padded: only moves by whole samples do not need an exact period
        proportional = shift * side / full
        return np.array([proportional, math.floor(proportional), math.ceil(proportional)])
    q = full // side
    return (shift + np.array([0, *range(1 - q, 0), *range(1, q)])) / q


def _closest(product: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """For each image, the displacement `[N, 2]` in rows x columns that has the largest correlation.

    If the map moved by one of them, this is the displacement found (Cauchy-Schwarz). `product` `[N, h, w]`
    is the spectrum of the correlation.
    """
    waves = [
        np.exp(2j * np.pi * np.outer(d, np.fft.fftfreq(side)))
        for d, side in zip((rows, columns), product.shape[1:], strict=True)
    ]
    correlation = np.einsum("ah,nhw,bw->nab", waves[0], product, waves[1], optimize=True).real
    best = correlation.reshape(len(product), -1).argmax(-1)
    return np.stack([rows[best // len(columns)], columns[best % len(columns)]], -1)


def moved_along(spectrum: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Shifts maps by ideal interpolation.

    This is `ops.shift.fractional_shift` in NumPy. An audit uses dozens of shapes only once each, and NumPy
    needs no compilation.

    Args:
      spectrum: Fourier transform of the maps, `[N, h, w, C]`.
      by: Shift of each map in samples, `[N, 2]`.

    Returns:
      The shifted maps `[N, h, w, C]`.
    """
    for axis in (1, 2):
        side = spectrum.shape[axis]
        phase = np.exp(-2j * np.pi * np.outer(by[:, axis - 1], np.fft.fftfreq(side)))
        if side % 2 == 0:
            phase[:, side // 2] = phase[:, side // 2].real  # keeps the Nyquist frequency real
        spectrum = spectrum * np.expand_dims(phase, (3 - axis, 3))
    return np.fft.ifft2(spectrum, axes=(1, 2)).real


def candidates(
    still: np.ndarray, moved: np.ndarray, shift: Shift, image: tuple[int, ...]
) -> list[np.ndarray]:
    """Displacements to compare: the one proportional to the shift, then the one that fits the maps best.

    Args:
      still: Maps of the image, `[N, h, w, C]`.
      moved: Maps of the shifted image, `[N, h, w, C]`.
      shift: Shift of the image in pixels: rows and columns.
      image: Shape of the image, `[N, H, W, C]`.

    Returns:
      One or two arrays `[N, 2]`.
    """
    rows, columns = (
        displacements(s, side, full)
        for s, side, full in zip(shift, still.shape[1:3], image[1:3], strict=True)
    )
    found = [np.tile([rows[0], columns[0]], (len(still), 1))]
    if len(rows) * len(columns) > 1:
        spectra = [np.fft.fft2(maps, axes=(1, 2)) for maps in (still, moved)]
        found.append(_closest((spectra[0].conj() * spectra[1]).sum(-1), rows, columns))
    return found


def equivariance_error(
    still: np.ndarray, moved: np.ndarray, shift: Shift, image: tuple[int, ...], exact: float
) -> tuple[float, bool]:
    """Largest difference between the map of the shifted image and the shifted map.

    The error is relative to the largest absolute value of the map. Vectors should not change at all.

    Source: this package.

    Args:
      still: Maps `[N, h, w, C]` or vectors `[N, C]` of the image.
      moved: The same for the shifted image.
      shift: Shift of the image in pixels: rows and columns.
      image: Shape of the image, `[N, H, W, C]`.
      exact: Largest error for which the proportional displacement is accepted, even if another fits better.

    Returns:
      The error: nan if both maps are zero everywhere, inf if a number is not finite. And a boolean: True if
      the map is displaced by additional pixels of the image, which is the effect of adaptive sampling.
    """
    still, moved = still.astype(np.float64), moved.astype(np.float64)
    if not (np.isfinite(still).all() and np.isfinite(moved).all()):
        return math.inf, False
    scale = float(np.abs(still).max(initial=0))
    if scale == 0:
        return (math.nan if not moved.any() else math.inf), False
    if still.ndim == 2:
        return float(np.abs(moved - still).max()) / scale, False
    spectrum = np.fft.fft2(still, axes=(1, 2))
    errors = [
        np.abs(moved - moved_along(spectrum, by)).max(axis=(1, 2, 3)) / scale
        for by in candidates(still, moved, shift, image)
    ]
    proportional, closest = errors[0], errors[-1]
    if proportional.max() <= exact:
        return float(proportional.max()), False
    return float(np.minimum(proportional, closest).max()), bool((closest < proportional).any())

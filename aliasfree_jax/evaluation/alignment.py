"""How far a feature map is from itself, moved along with the image."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np

Shift = tuple[float, float]


def pair(shift: Shift) -> str:
    """The shift as text: (0.5, 1)."""
    return f"({shift[0]:g}, {shift[1]:g})"


def tolerance(dtype: Any) -> float:
    """The error above which a layer that computes in `dtype` breaks equivariance.

    In float64 1e-9. Rounding stays below: a path of 200 layers that sum 10^4 values each would have to
    round each time in the worst direction to reach 200 * 10^4 * 2.2e-16 = 4e-10 (exact networks measure
    1e-16 to 1e-14). Aliasing is above: at its weakest 5e-7, of GELUs behind a new ConvNeXt's layer scale of
    1e-6 and ideal samplers. Float32 cannot tell that from its rounding; narrower types than float64 decide
    only where a network's code allows nothing wider: 1000 roundings, 1e-4 in float32.
    """
    epsilon = float(jnp.finfo(dtype).eps)
    return 1e-9 if epsilon < 1e-12 else 1000 * epsilon


def displacements(shift: float, side: int, full: int) -> np.ndarray:
    """By how many samples a map of `side` samples may have moved, the image of `full` pixels by `shift`.

    First in proportion; where the map is coarser by q, also as if the image had moved by k pixels more,
    |k| < q: an adaptive sampler begins its grid on any of q pixels, for the moved image on another one.
    """
    if side >= full:
        return np.array([shift * side / full])
    if full % side:  # padded on the way: whole samples are the only moves that need no exact period
        proportional = shift * side / full
        return np.array([proportional, math.floor(proportional), math.ceil(proportional)])
    q = full // side
    return (shift + np.array([0, *range(1 - q, 0), *range(1, q)])) / q


def _closest(product: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """For each image the displacement [N, 2] among rows x columns of the largest correlation.

    For a map that did move by one of them, that is this one (Cauchy-Schwarz). `product` [N, h, w] is the
    spectrum of the correlation.
    """
    waves = [
        np.exp(2j * np.pi * np.outer(d, np.fft.fftfreq(side)))
        for d, side in zip((rows, columns), product.shape[1:], strict=True)
    ]
    correlation = np.einsum("ah,nhw,bw->nab", waves[0], product, waves[1], optimize=True).real
    best = correlation.reshape(len(product), -1).argmax(-1)
    return np.stack([rows[best // len(columns)], columns[best % len(columns)]], -1)


def moved_along(spectrum: np.ndarray, by: np.ndarray) -> np.ndarray:
    """The maps [N, h, w, C] of this spectrum, each shifted by its row of `by` [N, 2].

    `ops.shift.fractional_shift` in NumPy: an audit meets dozens of shapes once, and this compiles for none.
    """
    for axis in (1, 2):
        side = spectrum.shape[axis]
        phase = np.exp(-2j * np.pi * np.outer(by[:, axis - 1], np.fft.fftfreq(side)))
        if side % 2 == 0:
            phase[:, side // 2] = phase[:, side // 2].real  # the Nyquist frequency has no direction
        spectrum = spectrum * np.expand_dims(phase, (3 - axis, 3))
    return np.fft.ifft2(spectrum, axes=(1, 2)).real


def candidates(
    still: np.ndarray, moved: np.ndarray, shift: Shift, image: tuple[int, ...]
) -> list[np.ndarray]:
    """The displacements [N, 2] that may fit maps [N, h, w, C]: the proportional, then the closest of all.

    Args:
      still, moved: of the image and the moved one.
      shift: of the image, rows and columns, in pixels.
      image: its shape, [N, H, W, C].
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
    """The largest |moved - still, moved along|, relative to the largest |still|.

    Args:
      still, moved: maps [N, h, w, C], or vectors [N, C], which are to stay, of the image and the moved one.
      shift: of the image, rows and columns, in pixels.
      image: its shape, [N, H, W, C].
      exact: error up to which a map counts as moved in proportion, whatever fits better.

    Returns:
      The error, nan if both are zero everywhere, inf if not all numbers are finite; True if the map is off
      the proportional place by pixels of the image, as adaptive sampling leaves it.
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

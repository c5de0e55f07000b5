"""Ideal filters of one periodic axis, as real matrices built once in float64 (numpy only).

A real, shift-invariant filter of an axis of n samples is given by weights `w_0` to `w_K` of its
frequencies. The frequencies +k and -k (in cycles per axis) both have the weight `w_k`. The Nyquist
frequency k = n/2 of an even axis is one bin, shared by both signs: the weight 1/2 passes it unchanged. The
filtered signal at positions p (in samples) is a product with the matrix

    A[i, j] = 1/n (w_0 + 2 sum_k w_k cos(2 pi k (p_i - j) / n)).

Low-pass filters, interpolation, decimation and fractional shifts all have this form. Only the weights and
positions differ.
"""

import functools

import numpy as np

Weights = tuple[float, ...]


def lowpass_weights(n: int, cutoff: float) -> Weights:
    """Weights of the ideal low-pass filter of an axis of `n` samples.

    `cutoff` is a fraction of the Nyquist frequency. The rule is that of `alias_free_convnets`. Frequencies
    up to floor(n cutoff / 2) pass. If n is a multiple of 4, the last of them is dropped, because it is the
    new Nyquist frequency. For n = 4 j with odd n cutoff / 2 (36 at 1/4, for example) this also drops the
    highest legal frequency. This is kept because published weights were trained with it; it does not reduce
    equivariance.

    Two cases differ from the original. DC always passes (the original raises an error if it would not). A
    frequency exactly at the cutoff is dropped for every n, not only for multiples of 4. This changes
    nothing at 1/4, 1/2 and 3/4, but strides such as 3 would alias otherwise (18 at 1/3).
    """
    highest = int(n * cutoff // 2)
    if n % 4 == 0 or (cutoff < 1 and 2 * highest == n * cutoff):
        highest -= 1
    weights = [1.0] * (max(highest, 0) + 1)
    if 2 * highest == n:
        weights[-1] = 0.5
    return tuple(weights)


def band_weights(n: int, highest: int) -> Weights:
    """Weights that pass every frequency up to `highest` cycles per axis and remove the others."""
    weights = [1.0] * (min(highest, n // 2) + 1)
    if 2 * (len(weights) - 1) == n:
        weights[-1] = 0.5
    return tuple(weights)


def resample_weights(n: int, m: int, nyquist: bool = True) -> Weights:
    """Weights of ideal resampling from `n` to `m` samples.

    Upsampling passes all frequencies, with half of the Nyquist frequency on each side, or without it.
    Downsampling passes those that the coarse grid represents without ambiguity, |k| <= (m - 1) // 2.
    """
    return band_weights(n, n // 2 if nyquist and m >= n else (min(n, m) - 1) // 2)


def original_upsample_weights(n: int, factor: int) -> Weights:
    """Weights of `alias_free_convnets`' interpolation by an integer factor, including its errors.

    Its mask halves the last bin whenever the fine grid is a multiple of 4. This is right for factor 2. For
    other factors it also halves the highest legal frequency of an odd axis (7 by 4), and passes twice the
    Nyquist frequency of 14 by 3.
    """
    last = 0.5 if (n * factor) % 4 == 0 else 1.0
    return (*[1.0] * (n // 2), last) if n > 1 else (1.0,)


def exact_grid(n: int, degree: int, kept: int | None = None, nyquist: bool = True) -> int:
    """Returns the number of samples on which a polynomial of `degree` is exact after low-pass filtering.

    The input has frequencies up to K = n // 2 (without the Nyquist frequency: (n - 1) // 2), the polynomial
    up to degree K. An axis of `kept` samples, by default n, keeps only |k| <= R = (kept - 1) // 2. Aliases
    miss the kept band if and only if the grid has more than degree K + R samples.
    """
    highest = n // 2 if nyquist else (n - 1) // 2
    return degree * highest + ((n if kept is None else kept) - 1) // 2 + 1


@functools.lru_cache(maxsize=256)
def filter_matrix(n: int, positions: tuple[float, ...], weights: Weights) -> np.ndarray:
    """Returns the matrix `[len(positions), n]` (float64) that reads the filtered axis at `positions`."""
    frequencies = np.arange(len(weights))
    gains = np.where(frequencies == 0, 1.0, 2.0) * np.asarray(weights) / n
    # Reduced modulo n first, so that large angles keep a rounding error of 1e-16.
    turns_out = np.mod(np.outer(positions, frequencies), n) / n
    turns_in = np.mod(np.outer(np.arange(n), frequencies), n) / n
    cosines = np.cos(2 * np.pi * turns_out) * gains @ np.cos(2 * np.pi * turns_in).T
    sines = np.sin(2 * np.pi * turns_out) * gains @ np.sin(2 * np.pi * turns_in).T
    matrix = cosines + sines
    matrix.setflags(write=False)
    return matrix


def uniform_positions(n: int, m: int, offset: float = 0.0) -> tuple[float, ...]:
    """Returns `m` equidistant positions on an axis of `n` samples, the first at `offset`."""
    return tuple((np.arange(m) * n / m + offset).tolist())


def strided_positions(
    n: int, stride: int, *, taps: int = 1, first: int = 0, any_size: bool = False
) -> tuple[float, ...]:
    """Returns the positions that a filter of `taps` samples reads when it slides by `stride`.

    There are ceil(n / stride) outputs. Output i reads the positions `i * step + first` to `i * step + first
    + taps - 1`, and the result lists them output by output. `step` is the stride, as in the originals. With
    `any_size` it is n / ceil(n / stride), which divides the axis evenly if the stride does not.
    """
    outputs = -(-n // stride)
    step = n / outputs if any_size else stride
    return tuple(float(i * step + first + tap) for i in range(outputs) for tap in range(taps))

"""Ideal filters of one periodic axis, as real matrices built once in float64 (numpy only).

A real, shift-invariant filter of an axis of n samples is given by the weights w_0..w_K of its
frequencies: each of +k and -k (in cycles an axis) carries w_k. The Nyquist frequency k = n/2 of an
even axis is one bin, shared by both signs: it passes unchanged with weight 1/2. Reading the filtered
signal at arbitrary positions p (in samples) is the matrix

    A[i, j] = 1/n (w_0 + 2 sum_k w_k cos(2 pi k (p_i - j) / n)).

Low-pass filters, interpolation, decimation and fractional shifts are all of this form; only the
weights and the positions differ.
"""

import functools

import numpy as np

Weights = tuple[float, ...]


def lowpass_weights(n: int, cutoff: float) -> Weights:
    """Weights of the ideal low-pass filter of an axis of `n` samples.

    `cutoff` is a fraction of the Nyquist frequency. The rule is that of alias_free_convnets: frequencies
    up to floor(n cutoff / 2) pass, the last of them only if n is not a multiple of 4, so that the new
    Nyquist frequency is dropped. For n = 4 j with odd n cutoff / 2 (36 at 1/4, say) this also drops the
    highest legal frequency: kept, since published weights were trained with it; it costs nothing in
    equivariance. DC always passes (the original fails where it would not). A frequency exactly at the
    cutoff is dropped for every n, not only for multiples of 4: no difference at 1/4, 1/2, 3/4, but strides
    such as 3 alias otherwise (18 at 1/3).
    """
    highest = int(n * cutoff // 2)
    if n % 4 == 0 or (cutoff < 1 and 2 * highest == n * cutoff):
        highest -= 1
    weights = [1.0] * (max(highest, 0) + 1)
    if 2 * highest == n:
        weights[-1] = 0.5
    return tuple(weights)


def band_weights(n: int, highest: int) -> Weights:
    """Weights that pass every frequency up to `highest` cycles an axis and stop the others."""
    weights = [1.0] * (min(highest, n // 2) + 1)
    if 2 * (len(weights) - 1) == n:
        weights[-1] = 0.5
    return tuple(weights)


def resample_weights(n: int, m: int) -> Weights:
    """Weights of ideal resampling from `n` to `m` samples.

    Upwards everything passes, with half of the Nyquist frequency on either side; downwards what the
    coarse grid can hold without ambiguity: |k| <= (m - 1) // 2.
    """
    return band_weights(n, n // 2 if m >= n else (m - 1) // 2)


def original_upsample_weights(n: int, factor: int) -> Weights:
    """Weights of alias_free_convnets' interpolation by an integer factor, wrong cases included.

    Its mask halves the last bin whenever the fine grid is a multiple of 4. That is right for factor
    2, but also halves the highest legal frequency of an odd axis (7 by 4) and passes twice the
    Nyquist frequency of 14 by 3.
    """
    last = 0.5 if (n * factor) % 4 == 0 else 1.0
    return (*[1.0] * (n // 2), last) if n > 1 else (1.0,)


def exact_grid(n: int, degree: int) -> int:
    """Samples on which a polynomial of `degree` can be taken without harm.

    The input reaches frequency K = n // 2, the product degree K; only |k| <= R = (n - 1) // 2 is
    kept afterwards. Aliases miss the kept band iff the grid has more than degree K + R samples.
    """
    return degree * (n // 2) + (n - 1) // 2 + 1


@functools.lru_cache(maxsize=256)
def filter_matrix(n: int, positions: tuple[float, ...], weights: Weights) -> np.ndarray:
    """The matrix [len(positions), n], float64, that reads the filtered axis at `positions`."""
    frequencies = np.arange(len(weights))
    gains = np.where(frequencies == 0, 1.0, 2.0) * np.asarray(weights) / n
    # Reduced modulo n first: the angle then has a rounding error of 1e-16, not 1e-16 times its size.
    turns_out = np.mod(np.outer(positions, frequencies), n) / n
    turns_in = np.mod(np.outer(np.arange(n), frequencies), n) / n
    cosines = np.cos(2 * np.pi * turns_out) * gains @ np.cos(2 * np.pi * turns_in).T
    sines = np.sin(2 * np.pi * turns_out) * gains @ np.sin(2 * np.pi * turns_in).T
    matrix = cosines + sines
    matrix.setflags(write=False)
    return matrix


def uniform_positions(n: int, m: int, offset: float = 0.0) -> tuple[float, ...]:
    """`m` equidistant positions round an axis of `n` samples, the first at `offset`."""
    return tuple((np.arange(m) * n / m + offset).tolist())


def strided_positions(
    n: int, stride: int, *, taps: int = 1, first: int = 0, any_size: bool = False
) -> tuple[float, ...]:
    """Where the `taps` of a filter that slides by `stride` read an axis of `n` samples.

    There are ceil(n / stride) outputs; output i reads at i * step + first, ..., + first + taps - 1,
    and the positions are listed output by output. `step` is the stride itself, as in the originals;
    with `any_size` it is n / ceil(n / stride), which divides the circle evenly where the stride does
    not (the same where it does).
    """
    outputs = -(-n // stride)
    step = n / outputs if any_size else stride
    return tuple(float(i * step + first + tap) for i in range(outputs) for tap in range(taps))

"""Ideal (band-limited, circular) filtering and resampling of images.

Everything is separable, so a 2-D operation is one small constant matrix along the rows and one along
the columns: no FFT, any size, any dtype, and it stays local when the batch is sharded. The FFT is
the second implementation (`method="fft"`). Sources: Michaeli et al. 2023 (arXiv 2303.08085), section
3.
"""

from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.errors import ConfigError, ShapeError, unknown
from aliasfree_jax.ops import spectrum
from aliasfree_jax.ops.choices import choices
from aliasfree_jax.ops.operation import operation, spell
from aliasfree_jax.ops.shapes import Pair, check_images, pair

Method = Literal["matmul", "fft", "auto"]
Precision = jax.lax.Precision | str | None
Matrix = np.ndarray | jax.Array


def _check_target(shape: tuple[int, int]) -> None:
    if min(shape) < 1:
        raise ShapeError(f"cannot resample to {shape}: both sides must be at least 1.")


def _use_fft(method: str, shape: Sequence[int]) -> bool:
    if method not in ("matmul", "fft", "auto"):
        raise ConfigError(unknown("method", method, ("matmul", "fft", "auto")))
    return method == "fft" or (method == "auto" and max(shape[1:3]) >= choices().fft_from)


def apply_matrices(
    x: jax.Array, rows: Matrix, columns: Matrix, precision: Precision = "highest"
) -> jax.Array:
    """Multiplies the row axis of `x` by `rows` and the column axis by `columns`.

    Args:
      x: [N, H, W, C]; half-precision maps are accumulated in float32.
      rows: [P, H]; columns: [Q, W].
      precision: of the products; anything below "highest" costs exactness on GPUs and TPUs.

    Returns:
      [N, P, Q, C] in the dtype of `x`.
    """

    # The row axis is the efficient one (one large product an image); give it the smaller map.
    if columns.shape[0] <= columns.shape[1]:
        return _multiply_columns(_multiply_rows(x, rows, precision), columns, precision)
    return _multiply_rows(_multiply_columns(x, columns, precision), rows, precision)


def _multiply_rows(x: jax.Array, matrix: Matrix, precision: Precision) -> jax.Array:
    n, h, w, c = x.shape
    return _batched_product(matrix, x.reshape(n, h, w * c), precision).reshape(n, len(matrix), w, c)


def _multiply_columns(x: jax.Array, matrix: Matrix, precision: Precision) -> jax.Array:
    n, h, w, c = x.shape
    return _batched_product(matrix, x.reshape(n * h, w, c), precision).reshape(n, h, len(matrix), c)


def _batched_product(matrix: Matrix, maps: jax.Array, precision: Precision) -> jax.Array:
    """`matrix` [P, K] times each of `maps` [B, K, C], to [B, P, C] in the dtype of `maps`.

    On the CPU as a batched product with the matrix repeated: XLA otherwise transposes the maps, which
    takes 2 to 10 times as long. Narrow maps (images) are better transposed: for them the repeated
    matrix would be the larger operand, and the product 10 times as long.
    """
    constant = jnp.asarray(matrix, maps.dtype)
    accumulator = jnp.promote_types(maps.dtype, jnp.float32)
    if maps.shape[-1] >= choices().repeat_matrix_from * matrix.shape[0]:
        repeated = jnp.broadcast_to(constant, (maps.shape[0], *constant.shape))
        y = jnp.matmul(repeated, maps, precision=precision, preferred_element_type=accumulator)
    else:
        y = jnp.einsum("pk,bkc->bpc", constant, maps, precision=precision, preferred_element_type=accumulator)
    return y.astype(maps.dtype)


def _fft_gains(n: int, m: int, weights: spectrum.Weights, offset: float) -> np.ndarray:
    """What each frequency of an axis of `n` samples is multiplied by, to be read at `m` positions."""
    frequencies = np.arange(len(weights))
    return np.asarray(weights) * np.exp(2j * np.pi * frequencies * offset / n) * (m / n)


def _fft_axis(x: jax.Array, axis: int, m: int, gains: jax.Array) -> jax.Array:
    """Reads the filtered `axis` at `m` equidistant positions, by FFT."""
    count = len(gains)
    shape = [1] * x.ndim
    shape[axis] = count
    kept = jax.lax.slice_in_dim(jnp.fft.rfft(x, axis=axis), 0, count, axis=axis)
    kept = kept * jnp.asarray(gains, kept.dtype).reshape(shape)
    if 2 * (count - 1) == m:  # both signs meet in the Nyquist bin of the output
        nyquist = 2 * jax.lax.slice_in_dim(kept, count - 1, count, axis=axis).real
        kept = jnp.concatenate(
            [jax.lax.slice_in_dim(kept, 0, count - 1, axis=axis), nyquist.astype(kept.dtype)], axis
        )
    return jnp.fft.irfft(kept, n=m, axis=axis)


def _apply_gains(x: jax.Array, rows: jax.Array, columns: jax.Array, *, shape: tuple[int, int]) -> jax.Array:
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))  # XLA has no half-precision FFT
    return _fft_axis(_fft_axis(wide, 1, shape[0], rows), 2, shape[1], columns).astype(x.dtype)


def resample_uniformly(
    x: jax.Array,
    shape: tuple[int, int],
    weights: tuple[spectrum.Weights, spectrum.Weights],
    method: str,
    precision: Precision,
    offset: tuple[float, float] = (0.0, 0.0),
) -> jax.Array:
    """Filters both axes and reads them at equidistant positions: `shape` of them, from `offset`."""
    check_images(x)
    passed, starts = (len(weights[0]) - 1, len(weights[1]) - 1), (int(offset[0] == 0), int(offset[1] == 0))
    name = spell("ideal_resample", passed=passed, zero_offset=starts)
    axes = list(zip(x.shape[1:3], shape, weights, offset, strict=True))
    if _use_fft(method, x.shape):
        rows, columns = (_fft_gains(n, m, w, o) for n, m, w, o in axes)
        return operation(name, _apply_gains, x, rows, columns, shape=(shape[0], shape[1]))
    matrices = [spectrum.filter_matrix(n, spectrum.uniform_positions(n, m, o), w) for n, m, w, o in axes]
    return _apply_by_name(name, x, matrices, precision)


def _apply_by_name(name: str, x: jax.Array, matrices: list[np.ndarray], precision: Precision) -> jax.Array:
    rows, columns = (matrix.astype(x.dtype) for matrix in matrices)  # rounded once, from float64
    return operation(name, apply_matrices, x, rows, columns, precision=precision)


def ideal_lowpass(
    x: jax.Array,
    cutoff: float | tuple[float, float] = 0.5,
    *,
    band: int | None = None,
    method: Method = "matmul",
    precision: Precision = "highest",
) -> jax.Array:
    """Removes all frequencies above `cutoff`, a fraction of the Nyquist frequency, on both axes.

    Args:
      x: [N, H, W, C], any sides.
      cutoff: in (0, 1], of both axes or of each; see `spectrum.lowpass_weights` for the exact rule.
      band: if given, pass |k| <= band // 2 cycles an image instead ("fixed_size" of the original).

    Raises:
      ConfigError: cutoff outside (0, 1], unknown method.
      ShapeError: not floating-point [N, H, W, C].
    """
    rows, columns = cutoff if isinstance(cutoff, tuple) else (cutoff, cutoff)
    if not (0.0 < rows <= 1.0 and 0.0 < columns <= 1.0):
        raise ConfigError(f"cutoff must lie in (0, 1] (a fraction of the Nyquist frequency), got {cutoff}.")
    check_images(x)
    h, w = x.shape[1:3]
    if band is None:
        weights = spectrum.lowpass_weights(h, rows), spectrum.lowpass_weights(w, columns)
    else:
        weights = spectrum.band_weights(h, band // 2), spectrum.band_weights(w, band // 2)
    return resample_uniformly(x, (h, w), weights, method, precision)


def ideal_resample(
    x: jax.Array, shape: tuple[int, int], *, method: Method = "matmul", precision: Precision = "highest"
) -> jax.Array:
    """Resamples [N, H, W, C] to `shape` = (rows, columns) of any size and ratio, without aliasing."""
    check_images(x)
    _check_target(shape)
    weights = tuple(spectrum.resample_weights(n, m) for n, m in zip(x.shape[1:3], shape, strict=True))
    return resample_uniformly(x, shape, (weights[0], weights[1]), method, precision)


def remove_nyquist(x: jax.Array, precision: Precision = "highest") -> jax.Array:
    """[N, H, W, C] without the Nyquist frequency of even sides, which no fractional shift keeps."""
    check_images(x)
    h, w = x.shape[1:3]
    weights = spectrum.band_weights(h, (h - 1) // 2), spectrum.band_weights(w, (w - 1) // 2)
    return resample_uniformly(x, (h, w), weights, "matmul", precision)


def ideal_upsample(
    x: jax.Array,
    factor: Pair = 2,
    *,
    masks: Literal["exact", "original"] = "exact",
    method: Method = "matmul",
    precision: Precision = "highest",
) -> jax.Array:
    """Interpolates [N, H, W, C] to [N, factor H, factor W, C]; `y[::factor, ::factor]` equals `x`.

    `masks="original"` reproduces alias_free_convnets where its filter is wrong
    (`spectrum.original_upsample_weights`); for factor 2 the two are the same. The original's output
    loses a column where the width is odd; this one does not.

    Raises:
      ConfigError: unknown masks or method, a factor below 1.
      ShapeError: not floating-point [N, H, W, C].
    """
    check_images(x)
    h, w = x.shape[1:3]
    rows, columns = pair(factor, "factor")
    if masks not in ("exact", "original"):
        raise ConfigError(unknown("masks", masks, ("exact", "original")))
    if masks == "original":
        weights = spectrum.original_upsample_weights(h, rows), spectrum.original_upsample_weights(w, columns)
    else:
        weights = spectrum.resample_weights(h, h * rows), spectrum.resample_weights(w, w * columns)
    return resample_uniformly(x, (h * rows, w * columns), weights, method, precision)


def ideal_downsample(
    x: jax.Array,
    strides: Pair = 2,
    *,
    any_size: bool = False,
    method: Method = "matmul",
    precision: Precision = "highest",
) -> jax.Array:
    """Low-pass filter at 1 / stride of the Nyquist frequency, then every `strides`-th sample.

    [N, H, W, C] to [N, ceil(H / stride), ceil(W / stride), C]. As in the original, sides that are no
    multiple of the stride are read unevenly round the circle, which breaks fractional (and integer)
    equivariance; `any_size` reads them evenly (`ideal_resample`) and is exact for every size.

    Raises:
      ShapeError: not floating-point [N, H, W, C].
      ConfigError: unknown method.
    """
    rows, columns = pair(strides, "strides")
    check_images(x)
    h, w = x.shape[1:3]
    if any_size:
        return ideal_resample(x, (-(-h // rows), -(-w // columns)), method=method, precision=precision)
    if _use_fft(method, x.shape):
        return ideal_lowpass(x, (1 / rows, 1 / columns), method="fft")[:, ::rows, ::columns]
    return ideal_strided_taps(x, strides, precision=precision)


def ideal_strided_taps(
    x: jax.Array,
    strides: Pair,
    *,
    taps: Pair = 1,
    first: tuple[int, int] = (0, 0),
    any_size: bool = False,
    precision: Precision = "highest",
) -> jax.Array:
    """The low-passed map at every position that a strided convolution reads.

    [N, H, W, C] to [N, taps ceil(H / stride), taps ceil(W / stride), C]: output i of the convolution
    reads samples taps i, ..., taps i + taps - 1 of the result, so the convolution that follows has
    stride `taps` and no padding. `first` is the offset of tap 0 (minus the padding before the axis).
    """
    steps, counts = pair(strides, "strides"), pair(taps, "taps")
    check_images(x)
    matrices, passed = [], []
    for n, stride, count, offset in zip(x.shape[1:3], steps, counts, first, strict=True):
        positions = spectrum.strided_positions(n, stride, taps=count, first=offset, any_size=any_size)
        outputs = len(positions) // count
        weights = (
            spectrum.resample_weights(n, outputs) if any_size else spectrum.lowpass_weights(n, 1 / stride)
        )
        passed.append(len(weights) - 1)
        matrices.append(spectrum.filter_matrix(n, positions, weights))
    numbers = {"passed": tuple(passed), "taps": counts, "strides": steps, "any_size": (int(any_size),)}
    return _apply_by_name(spell("ideal_strided_taps", **numbers), x, matrices, precision)

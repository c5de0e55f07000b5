"""Ideal (band-limited, circular) filtering and resampling of images.

All filters are separable. A 2-D operation is one small constant matrix along the rows and one along the
columns. No FFT is needed, and any size and dtype works. The operation stays local when the batch is
sharded. The FFT is the second implementation (`method="fft"`).

Source: Michaeli et al. 2023 (arXiv 2303.08085), section 3.
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
      x: maps `[N, H, W, C]`. Half-precision maps are accumulated in float32.
      rows: matrix `[P, H]`.
      columns: matrix `[Q, W]`.
      precision: precision of the products. Values below "highest" cost exactness on GPUs and TPUs.

    Returns:
      `[N, P, Q, C]` in the dtype of `x`.
    """

    # The product along the rows is faster (one large product per image), so it gets the smaller map.
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
    """Multiplies `matrix` `[P, K]` with each of `maps` `[B, K, C]`: `[B, P, C]` in the dtype of `maps`.

    On CPUs this is a batched product with the matrix repeated. Otherwise XLA transposes the maps, which
    takes 2 to 10 times as long. Narrow maps (images) are transposed: the repeated matrix would be the
    larger operand, and the product would take 10 times as long.
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
    """Returns the factor of each frequency of an axis of `n` samples that is read at `m` positions."""
    frequencies = np.arange(len(weights))
    return np.asarray(weights) * np.exp(2j * np.pi * frequencies * offset / n) * (m / n)


def _fft_axis(x: jax.Array, axis: int, m: int, gains: jax.Array) -> jax.Array:
    """Reads the filtered `axis` at `m` equidistant positions, by FFT."""
    count = len(gains)
    shape = [1] * x.ndim
    shape[axis] = count
    kept = jax.lax.slice_in_dim(jnp.fft.rfft(x, axis=axis), 0, count, axis=axis)
    kept = kept * jnp.asarray(gains, kept.dtype).reshape(shape)
    if 2 * (count - 1) == m:  # both signs share the Nyquist bin of the output
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
    """Filters both axes and reads them at `shape` equidistant positions, starting at `offset`."""
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
    """Removes all frequencies above `cutoff` on both axes.

    Args:
      x: maps `[N, H, W, C]` of any size.
      cutoff: fraction of the Nyquist frequency in (0, 1], one for both axes or one each.
        `ops.spectrum.lowpass_weights` states the exact rule.
      band: if given, passes the frequencies |k| <= band // 2 cycles per image instead (`"fixed_size"` of
        the original).
      method: "matmul" (products with constant matrices), "fft", or "auto" (`ops.choices`).
      precision: precision of the products with the resampling matrices.

    Returns:
      `[N, H, W, C]`.

    Raises:
      ConfigError: the cutoff is outside (0, 1], or the method is unknown.
      ShapeError: `x` is not floating-point `[N, H, W, C]`.

    Source: Michaeli et al. 2023 (arXiv 2303.08085), section 3.1.
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
    x: jax.Array,
    shape: tuple[int, int],
    *,
    nyquist: bool = True,
    method: Method = "matmul",
    precision: Precision = "highest",
) -> jax.Array:
    """Resamples maps to any size and ratio without aliasing.

    Args:
      x: maps `[N, H, W, C]`.
      shape: size of the result (rows, columns).
      nyquist: whether to keep the Nyquist frequency of even sides that do not become smaller. No fractional
        shift can preserve it.
      method: "matmul" (products with constant matrices), "fft", or "auto" (`ops.choices`).
      precision: precision of the products with the resampling matrices.

    Returns:
      `[N, rows, columns, C]`.

    Raises:
      ShapeError: `x` is not floating-point `[N, H, W, C]`, or a target side is below 1.
      ConfigError: unknown method.

    Source: this package, by the filters of Michaeli et al. 2023 (arXiv 2303.08085), section 3.
    """
    check_images(x)
    _check_target(shape)
    sides = zip(x.shape[1:3], shape, strict=True)
    weights = tuple(spectrum.resample_weights(n, m, nyquist) for n, m in sides)
    return resample_uniformly(x, shape, (weights[0], weights[1]), method, precision)


def remove_nyquist(x: jax.Array, precision: Precision = "highest") -> jax.Array:
    """Removes the Nyquist frequency of even sides, which no fractional shift can preserve.

    Args:
      x: maps `[N, H, W, C]`.
      precision: precision of the products with the filter matrices.

    Returns:
      `[N, H, W, C]`.

    Raises:
      ShapeError: `x` is not floating-point `[N, H, W, C]`.

    Source: this package. The sampling of Michaeli et al. 2023 (arXiv 2303.08085) drops the Nyquist frequency
    of the coarse grid in the same way.
    """
    check_images(x)
    return ideal_resample(x, (x.shape[1], x.shape[2]), nyquist=False, precision=precision)


def ideal_upsample(
    x: jax.Array,
    factor: Pair = 2,
    *,
    masks: Literal["exact", "original"] = "exact",
    method: Method = "matmul",
    precision: Precision = "highest",
) -> jax.Array:
    """Interpolates maps by an integer factor: `y[::factor, ::factor]` equals `x`.

    Args:
      x: maps `[N, H, W, C]`.
      factor: upsampling factors.
      masks: "exact", or "original" for the filters of `alias_free_convnets`, also where these are wrong
        (`ops.spectrum.original_upsample_weights`). Both are the same for factor 2.
      method: "matmul" (products with constant matrices), "fft", or "auto" (`ops.choices`).
      precision: precision of the products with the resampling matrices.

    Returns:
      `[N, factor H, factor W, C]`.

    Raises:
      ConfigError: unknown masks or method, or a factor below 1.
      ShapeError: `x` is not floating-point `[N, H, W, C]`.

    Source: Michaeli et al. 2023 (arXiv 2303.08085), section 3.2.

    Differs from the original: the original loses one column of the output if the width is odd.
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
    """Low-passes at 1 / stride of the Nyquist frequency, then keeps every `strides`-th sample.

    As in the original, sides that are not multiples of the stride are sampled unevenly. This breaks
    equivariance to fractional and integer shifts. `any_size` samples evenly (`ideal_resample`) and is exact
    for every size.

    Args:
      x: maps `[N, H, W, C]`.
      strides: sampling strides.
      any_size: whether to sample sides evenly that are not multiples of the stride.
      method: "matmul" (products with constant matrices), "fft", or "auto" (`ops.choices`).
      precision: precision of the products with the resampling matrices.

    Returns:
      `[N, ceil(H / stride), ceil(W / stride), C]`.

    Raises:
      ShapeError: `x` is not floating-point `[N, H, W, C]`.
      ConfigError: unknown method.

    Source: Michaeli et al. 2023 (arXiv 2303.08085), section 3.1; `any_size` is this package's.
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
    """Returns the low-passed map at every position that a strided convolution reads.

    The result is `[N, taps ceil(H / stride), taps ceil(W / stride), C]`. Output i of the convolution reads
    the samples taps i to taps i + taps - 1. So the convolution that follows has stride `taps` and no
    padding. `first` is the offset of tap 0 (minus the padding before the axis).
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

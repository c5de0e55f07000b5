"""The alias-free polynomial activation as one GPU kernel: the fine grid never leaves the chip.

Twin of `activation.up_polynomial_down` by matrices (fast_exact rule 8), written in Pallas for its Triton
backend. As products of matrices one activation moves about 17 N^2 values a channel through device memory
(maps of 1, 3/2 and 9/4 N^2 between the steps); this reads N^2 and writes N^2, its gradient reads 2 N^2
and writes N^2. `fused_kernels` has the kernels, `fused_tiles` the sizes.

Coarse sides are padded to powers of two, fine ones to multiples of 16, by zeros in the matrices, which
leave the result alone: multiplications a channel are 2.0 M instead of 1.3 M at 56, 0.25 M for 0.16 M at
28, 49 k for 21 k at 14, 16 k for 2 k at 7.

Compiled for Hopper without one (Triton 3.9, ptxas 12.9), the maps of ConvNeXt at 224 take 9 to 48 KiB of
shared memory a program in bfloat16 (17 to 88 for the gradient), 17 to 52 in float32 (33 to 92), and spill
no register. Bfloat16 runs on the tensor cores. Float32 at "highest" does not: Triton computes it by plain
multiply-adds, so there the kernel is bound by arithmetic and cuBLAS may win;
`precision="TF32_TF32_F32_X3"` uses tensor cores at nearly float32's accuracy. No time was measured yet.

Not for TPUs: they want 128 channels in the last axis, which do not fit, and have no such gathers. JAX 0.12
announces the end of the Triton backend in favour of Mosaic GPU, which has no exact float32 product.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.ops import spectrum
from aliasfree_jax.ops.fused_kernels import Program, backward_kernel, forward_kernel
from aliasfree_jax.ops.fused_tiles import SMALLEST, plan_tiles
from aliasfree_jax.ops.resample import Precision
from aliasfree_jax.ops.shapes import check_images

# Of 32 threads with up to 255 registers each. Compiled for maps of 56 in bfloat16, 4 spill and so do 16.
WARPS = 8


def _matrix(n: int, m: int, shape: tuple[int, int]) -> np.ndarray:
    """Ideal resampling from `n` to `m` samples, with zeros up to `shape`."""
    matrix = spectrum.filter_matrix(n, spectrum.uniform_positions(n, m), spectrum.resample_weights(n, m))
    return np.pad(matrix, ((0, shape[0] - m), (0, shape[1] - n)))


def _matrices(program: Program, degree: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """U and D, each for rows and columns."""
    tiles = program.tiles
    coarse, fine = (tiles.height, tiles.width), (tiles.strips * SMALLEST, tiles.tiles * tiles.columns)
    grid = [spectrum.exact_grid(n, degree) for n in program.shape[:2]]
    sizes = list(zip(program.shape[:2], grid, coarse, fine, strict=True))
    return [_matrix(n, m, (b, a)) for n, m, a, b in sizes], [_matrix(m, n, (a, b)) for n, m, a, b in sizes]


@dataclasses.dataclass(frozen=True)
class _Options:
    precision: Precision
    interpret: bool
    channels: int | None


def _call(
    kernel: Callable[..., None],
    maps: Sequence[jax.Array],
    coefficients: jax.Array,
    options: _Options,
    transposed: bool = False,
) -> list[jax.Array]:
    """Runs `kernel` on maps [N, H, W, C]; returns maps and, of the gradient, sums [N, d + 1, C]."""
    n, h, w, c = maps[0].shape
    dtype, degree = maps[0].dtype, coefficients.shape[-1] - 1
    tiles = plan_tiles((h, w), c, degree, dtype.itemsize, options.channels)
    program = Program(tiles, (h, w, c), options.precision)
    accurate = jnp.promote_types(dtype, jnp.float32)
    up, down = _matrices(program, degree)
    shapes = [jax.ShapeDtypeStruct((n, h, w * c), dtype)]
    pairs = [up, down]
    if transposed:
        pairs = [up, [matrix.T for matrix in down], [matrix.T for matrix in up]]
        shapes.append(jax.ShapeDtypeStruct((n, degree + 1, c), accurate))
    y, *sums = pl.pallas_call(
        functools.partial(kernel, program=program),
        grid=(-(-c // tiles.channels), n),
        out_shape=shapes,
        interpret=options.interpret,
        compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=1),
    )(
        *(z.reshape(n, h, w * c) for z in maps),
        coefficients.T.astype(accurate),
        *([jnp.asarray(matrix, dtype) for matrix in pair] for pair in pairs),
    )
    return [y.reshape(maps[0].shape), *sums]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _fused(x: jax.Array, coefficients: jax.Array, options: _Options) -> jax.Array:
    return _call(forward_kernel, [x], coefficients, options)[0]


def _forward(
    x: jax.Array, coefficients: jax.Array, options: _Options
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _fused(x, coefficients, options), (x, coefficients)


def _backward(
    options: _Options, residuals: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, coefficients = residuals
    dx, sums = _call(backward_kernel, [x, dy], coefficients, options, transposed=True)
    return dx, jnp.sum(sums, axis=0).T.astype(coefficients.dtype)


_fused.defvjp(_forward, _backward)


def fused_up_polynomial_down(
    x: jax.Array,
    coefficients: jax.Array,
    *,
    precision: Precision = "highest",
    interpret: bool = False,
    channels_per_program: int | None = None,
) -> jax.Array:
    """Alias-free polynomial activation in one kernel: `activation.up_polynomial_down`, scales folded in.

    Its gradient (one kernel too) needs `x` and the coefficients only, and is the same in every run. In a
    `jit` whose batch is sharded call it under `jax.shard_map`: XLA gathers the operands of kernels.

    Args:
      x: [N, H, W, C] in float32 or bfloat16 (any floating type with `interpret`).
      coefficients: [C, d + 1], or [d + 1] for all channels; column k belongs to power k.
      precision: of the products. "highest" is exact in float32; below it they are TF32 products.
      interpret: run the kernel's operations one by one on any backend, for tests.
      channels_per_program: a power of two; chosen by `plan_tiles` if not given.

    Returns:
      [N, H, W, C] in the dtype of `x`, without the Nyquist frequency of even sides.

    Raises:
      ShapeError: not floating-point [N, H, W, C], another number of rows of coefficients than channels.
      ConfigError: no GPU, another type on one, maps that do not fit on the chip, bad `channels_per_program`.
    """
    check_images(x)
    channels = x.shape[-1]
    if coefficients.shape[:-1] not in ((), (channels,)):
        raise ShapeError(
            f"expected coefficients [{channels}, degree + 1] or [degree + 1], got {list(coefficients.shape)}."
        )
    if not interpret and jax.default_backend() != "gpu":
        raise ConfigError(
            f"the fused activation is a kernel for GPUs and does not run on {jax.default_backend()!r}; use "
            "method='matmul' (or interpret=True in tests)."
        )
    if not interpret and x.dtype not in (jnp.float32, jnp.bfloat16):
        raise ConfigError(
            f"the fused activation takes float32 or bfloat16, got {x.dtype}; use method='matmul'."
        )
    rows = jnp.broadcast_to(coefficients, (channels, coefficients.shape[-1]))
    return _fused(x, rows, _Options(precision, interpret, channels_per_program))

"""What "auto" means on each backend: one table, and where each of its entries comes from.

Entries are read while a function is traced, for `jax.default_backend()` or for the row of `assume`.
Those of the CPU were measured (`python -m benchmarks`, docs/benchmarks.md). Those of GPUs and TPUs
follow from the arithmetic on the same page and are what `python -m benchmarks` there is to settle.
"""

import dataclasses
from contextlib import AbstractContextManager
from typing import Literal

import jax


@dataclasses.dataclass(frozen=True)
class Choices:
    """The method of every operation that has several.

    Attributes:
      depthwise: "shifted" sums of slices, or the "conv" of XLA.
      fft_from: side of the map from which resampling by "auto" takes the FFT.
      repeat_matrix_from: resampling products of at least this many channels for each row of the matrix
        run as batched products with the matrix repeated, narrower ones as one product of a transposed
        map (`ops.resample`); infinity where the backend has no use for repeating.
      patches_to: stride-1 convolutions of at most this many channels run as a product over patches.
      mlp_grid: where the linear layers of an alias-free MLP run: on the "fine" or the "coarse" grid, or
        where it takes "fewer" multiply-adds (`layers.mlp`).
      working_set: bytes that the widest map of an MLP or stem should not exceed: a larger batch is
        taken in pieces (`layers.batching`). None: always the whole batch.
    """

    depthwise: Literal["shifted", "conv"]
    fft_from: int
    repeat_matrix_from: float
    patches_to: int
    mlp_grid: Literal["fewer", "fine", "coarse"]
    working_set: int | None


_ACCELERATOR = Choices(
    depthwise="conv",  # cuDNN and the TPU have kernels for it; 49 slices would read the map 49 times
    fft_from=1 << 30,  # products run on tensor cores and stay local when the batch is divided
    repeat_matrix_from=float("inf"),
    patches_to=0,
    mlp_grid="fine",  # bound by memory: the other order moves up to 4 times as many wide maps
    working_set=None,  # one large product fills the device better than many small ones
)

CHOICES: dict[str, Choices] = {
    "cpu": Choices(
        depthwise="shifted",
        fft_from=256,
        repeat_matrix_from=1 / 8,
        patches_to=4,
        mlp_grid="fewer",
        working_set=24 * 2**20,  # measured where the last-level cache is 32 MiB
    ),
    "gpu": _ACCELERATOR,
    "tpu": _ACCELERATOR,
}


_assumed = jax.make_user_context(None)


def assume(row: Choices) -> AbstractContextManager[None]:
    """Within the block, `choices()` returns `row` on every backend.

    For programs that are traced on one machine and run on another. The row is part of JAX's cache keys: a
    function that was traced under another row is traced again.
    """
    context: AbstractContextManager[None] = _assumed(row)
    return context


def choices() -> Choices:
    """The row of `assume`, or the table's row for the default backend.

    Backends that the table does not list have the GPU's row.
    """
    return _assumed.value or CHOICES.get(jax.default_backend(), _ACCELERATOR)

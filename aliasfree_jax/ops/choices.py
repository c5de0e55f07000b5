"""The implementation that "auto" selects on each backend, in one table.

Entries are read when a function is traced, for `jax.default_backend()` or for the row of `assume`. The CPU
entries were measured (`python -m benchmarks`, docs/benchmarks.md). The GPU and TPU entries follow from the
arithmetic on the same page; running `python -m benchmarks` on these devices should confirm or replace them.
"""

import dataclasses
from contextlib import AbstractContextManager
from typing import Literal

import jax


@dataclasses.dataclass(frozen=True)
class Choices:
    """The method of every operation that has several implementations.

    Attributes:
      depthwise: "shifted" (sums of slices) or "conv" (XLA's grouped convolution).
      fft_from: smallest side of a map for which "auto" resampling uses the FFT.
      repeat_matrix_from: smallest ratio of channels to matrix rows for which a resampling product repeats
        the matrix over the batch (`ops.resample`). Narrower maps are transposed instead. Infinity: never
        repeat.
      patches_to: largest number of channels for which a stride-1 convolution runs as a product over
        patches.
      mlp_grid: grid of the linear layers of an alias-free MLP: "fine", "coarse", or the one with "fewer"
        multiply-adds (`layers.mlp`).
      working_set: largest size in bytes of the widest map of an MLP or stem. Larger batches are processed
        in pieces (`layers.batching`). None: always the whole batch.
    """

    depthwise: Literal["shifted", "conv"]
    fft_from: int
    repeat_matrix_from: float
    patches_to: int
    mlp_grid: Literal["fewer", "fine", "coarse"]
    working_set: int | None


_ACCELERATOR = Choices(
    depthwise="conv",  # cuDNN and TPUs have fast kernels; 49 slices would read the map 49 times
    fft_from=1 << 30,  # products use tensor cores and stay local when the batch is sharded
    repeat_matrix_from=float("inf"),
    patches_to=0,
    mlp_grid="fine",  # memory-bound: the other order moves up to 4 times as many wide maps
    working_set=None,  # one large product uses the device better than many small ones
)

CHOICES: dict[str, Choices] = {
    "cpu": Choices(
        depthwise="shifted",
        fft_from=256,
        repeat_matrix_from=1 / 2,
        patches_to=4,
        mlp_grid="fewer",
        working_set=24 * 2**20,  # measured on a CPU with 32 MiB of last-level cache
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
    """Returns the row of `assume`, or the row of the default backend (the GPU's row if it has none)."""
    return _assumed.value or CHOICES.get(jax.default_backend(), _ACCELERATOR)

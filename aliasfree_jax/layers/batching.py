"""Processes a batch in pieces, and recomputes values in the gradient instead of storing them.

The hidden maps on the finer grid are by far the largest maps of an alias-free network. If images do not
depend on each other, small pieces of the batch keep these maps in the cache of a CPU. Recomputing a map is
as fast as reading it from memory, and needs a fifth of the memory.
"""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax

from aliasfree_jax.ops.choices import choices

# What the gradient recomputes instead of storing: the MLPs and the stem (their hidden maps are the largest),
# whole blocks, nothing, or only layers whose batch is processed in pieces ("auto").
Remat = Literal["auto", "none", "mlp", "block"]


def images_at_once(batch: int, bytes_each: int) -> int:
    """Returns how many of `batch` images to process at once if the widest map of one has `bytes_each`.

    The result divides the batch. With several devices it is always the whole batch: the batch is sharded
    already, and a loop over a sharded axis would gather it. It is also the whole batch if its size is
    unknown (`jax.export`).
    """
    limit = choices().working_set
    if limit is None or jax.device_count() > 1 or not isinstance(batch, int) or batch == 0:
        return batch
    most = max(1, limit // max(1, bytes_each))
    return max(divisor for divisor in range(1, batch + 1) if batch % divisor == 0 and divisor <= most)


def over_images(
    module: nn.Module,
    method: Callable[[Any, jax.Array], jax.Array],
    x: jax.Array,
    *,
    at_once: int,
    remat: Remat,
) -> jax.Array:
    """Computes `method(module, x)`, which treats every image separately, `at_once` images at a time.

    Args:
      module: module that draws no random numbers and changes no statistics.
      x: `[N, ...]`, where N is a multiple of `at_once`.
      remat: with "mlp", and with "auto" if the batch is processed in pieces, the gradient stores only `x`
        and recomputes everything else.
    """
    whole = at_once >= x.shape[0]
    recompute = remat == "mlp" or (remat == "auto" and not whole)
    run = nn.remat(method, prevent_cse=whole) if recompute else method
    # A loop would lose captured intermediates, so capturing them processes the whole batch.
    if whole or module.is_initializing() or module.is_mutable_collection("intermediates"):
        return run(module, x)
    loop = nn.scan(
        lambda inner, carry, piece: (carry, run(inner, piece)),
        variable_broadcast=True,
        split_rngs={"params": False},
    )
    _, y = loop(module, (), x.reshape(-1, at_once, *x.shape[1:]))
    result: jax.Array = y.reshape(-1, *y.shape[2:])
    return result

"""Taking a batch in pieces, and computing again in the gradient what need not be kept.

The hidden maps of an alias-free network on the finer grid are its largest by far.
Where the images do not depend on one another, a piece of the batch at a time keeps them in the cache of
a CPU; and what has left it is computed again as fast as it is read back, in a fifth of the memory.
"""

from collections.abc import Callable
from typing import Any, Literal

import flax.linen as nn
import jax

from aliasfree_jax.ops.choices import choices

# What the gradient computes again instead of keeping it: the MLPs and the stem (whose hidden maps are the
# largest), whole blocks, nothing, or what the batch is cut for ("auto").
Remat = Literal["auto", "none", "mlp", "block"]


def images_at_once(batch: int, bytes_each: int) -> int:
    """How many of `batch` images to take at a time, where the widest map of one has `bytes_each`.

    A divisor of the batch. With several devices the batch is divided already, and a loop over a
    divided axis would gather it: then always the whole batch. So is one of no known size (`jax.export`).
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
    """`method(module, x)` for a method that treats every image alone: `at_once` images at a time.

    Args:
      module: has parameters at most (no statistics, no random numbers).
      x: [N, ...], with N a multiple of `at_once`.
      remat: with "mlp", or "auto" where the batch is cut, the gradient keeps only `x` and computes
        everything else again.
    """
    whole = at_once >= x.shape[0]
    recompute = remat == "mlp" or (remat == "auto" and not whole)
    run = nn.remat(method, prevent_cse=whole) if recompute else method
    # Captured outputs of the pieces would be lost: who looks at inner maps gets those of the whole batch.
    if whole or module.is_initializing() or module.is_mutable_collection("intermediates"):
        return run(module, x)
    loop = nn.scan(
        lambda inner, carry, piece: (carry, run(inner, piece)),
        variable_broadcast="params",
        split_rngs={"params": False},
    )
    _, y = loop(module, (), x.reshape(-1, at_once, *x.shape[1:]))
    result: jax.Array = y.reshape(-1, *y.shape[2:])
    return result

"""How a network computes: number format of its maps and precision of its products."""

import dataclasses
from typing import Any

import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class Numerics:
    """Passed to every layer, so that one choice holds for the whole network.

    Attributes:
      dtype: of maps and products; None takes that of the inputs and parameters (float64 under x64).
        Statistics of norms and polynomials always use at least float32.
      precision: of products, as in `jax.lax.Precision`.
    """

    dtype: Any = None
    precision: str = "highest"


PRECISIONS: dict[str, Numerics] = {
    # Exact: products as accurate as the maps, which are at least float32.
    "float32": Numerics(None, "highest"),
    # Float32 maps; products of 10 mantissa bits on NVIDIA GPUs, of three bfloat16 passes on TPUs.
    "tf32": Numerics(None, "high"),
    "bfloat16": Numerics(jnp.bfloat16, "default"),
}
"""The modes a network computes in; what each costs in exactness is measured in docs/benchmarks.md."""


def accurate_dtype(dtype: Any) -> Any:
    """`dtype`, or float32 if that is wider: where sums of many values are accumulated."""
    return jnp.promote_types(dtype, jnp.float32)

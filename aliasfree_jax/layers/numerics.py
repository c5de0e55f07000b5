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
      precision: of products: "highest" keeps float32 exact; "high" and "default" allow TF32 and
        bfloat16 passes on accelerators, which costs equivariance (1e-7 becomes 1e-3).
    """

    dtype: Any = None
    precision: str = "highest"


def accurate_dtype(dtype: Any) -> Any:
    """`dtype`, or float32 if that is wider: where sums of many values are accumulated."""
    return jnp.promote_types(dtype, jnp.float32)

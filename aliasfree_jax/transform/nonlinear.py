"""Evaluates non-linearities on finer grids: as written, or as fitted quadratics.

A non-linearity creates frequencies above the limit of its grid. They alias, and the network then changes
under shifts by fractions of a pixel. A finer grid, followed by a low-pass filter, reduces the aliases, and
removes those of polynomials (Karras et al. 2021, arXiv 2106.12423, section 3; Michaeli et al. 2023, arXiv
2303.08085, section 3.2). The program shows which operations are non-linearities: elementwise functions of
one map that are not affine, and whose other operands are equal at all positions.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.ops.activation import polynomial_grid
from aliasfree_jax.ops.resample import ideal_resample
from aliasfree_jax.transform.interpreter import TransformError
from aliasfree_jax.transform.maps import Map
from aliasfree_jax.transform.values import Pointwise

NODES = 32  # nodes of the Gauss-Hermite rule, which is exact for polynomials up to degree 63


@dataclasses.dataclass(frozen=True)
class Oversample:
    """Evaluates non-linearities on a grid `factor` times finer, then applies an ideal low-pass filter.

    StyleGAN3 does the same. A larger factor reduces the change under fractional shifts. Functions of
    unbounded band (ReLU, GELU, SiLU) do not become exact. Memory for activations grows by `factor` squared.

    Source: Karras et al. 2021 (arXiv 2106.12423), section 3.

    Attributes:
      factor: Factor of the finer grid, at least 1. 1 keeps the grid.

    Raises:
      ConfigError: The factor is below 1.
    """

    factor: int = 2

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ConfigError(f"Oversample expects a factor of at least 1, got {self.factor}.")

    def realized(self, value: Pointwise) -> Map:
        """The function evaluated on the finer grid, filtered and sampled back."""
        rows, columns = value.roots[0].sides
        return _on_grid(value, (self.factor * rows, self.factor * columns))

    def refuse(self, eqn: Any, what: str) -> None:
        """Accepts other non-linearities (a max pool, a maximum over channels). They stay on their grid."""


@dataclasses.dataclass(frozen=True)
class Quadratics:
    """Replaces non-linearities by quadratics, which are exact on a grid 3/2 times finer.

    The quadratic is the least-squares fit to the function under a normal distribution. Its mean and variance
    are those of the image's map over all positions and channels. Shifts change neither them nor the fit.
    If the function's constants differ by channel, so does the quadratic. Polynomials of the program (squares,
    products of two maps) are not fitted. They are evaluated on the grid on which they are exact.
    """

    def realized(self, value: Pointwise) -> Map:
        """The quadratic fitted to the function, or the function if it is a polynomial.

        Raises:
          TransformError: The function divides by a map or takes its root, or combines two maps and is not a
            polynomial.
        """
        root = value.roots[0]
        if math.isfinite(value.degree):
            return _on_grid(value, polynomial_grid(root.sides, int(value.degree)))
        if value.origin.primitive.name in ("div", "rsqrt", "sqrt", "cbrt", "log", "pow"):
            self.refuse(value.origin, "divides by a map, or uses its root or logarithm,")
        if len(value.roots) > 1 or not jnp.issubdtype(value.dtype, jnp.inexact):
            self.refuse(value.origin, "combines several maps, or compares a map,")
        mean, deviation = _distribution(root)
        quadratic = _fitted(value, root, mean, deviation)

        def compute(known: dict[int, jax.Array]) -> jax.Array:
            t = (known[id(root)] - mean) / deviation
            c0, c1, c2 = quadratic
            return (c0 + t * (c1 + t * c2)).astype(value.dtype)

        fitted = Pointwise((root,), compute, 2, value.origin, value.dtype)
        return _on_grid(fitted, polynomial_grid(root.sides, 2))

    def refuse(self, eqn: Any, what: str) -> None:
        """Refuses an operation that no quadratic can replace.

        Raises:
          TransformError: Always.
        """
        raise TransformError(
            eqn,
            f"{what} which no quadratic can replace",
            "Use layers.SpatialNorm instead of a norm over channels, a sampler instead of a max pool, or "
            "activations=Oversample(2), which is approximate",
        )


def _on_grid(value: Pointwise, grid: tuple[int, int]) -> Map:
    """The function evaluated on a finer `grid`, then filtered and sampled back to the grid of its maps."""
    first = value.roots[0]
    if grid == first.sides:
        return first.like(value.at({id(root): root.array for root in value.roots}))
    finer = {id(root): _resampled(root, root.array, grid) for root in value.roots}
    return first.like(_resampled(first, value.at(finer), first.sides))


def _resampled(layout: Map, array: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """`array`, laid out as the map `layout`, on another grid."""
    images, back = layout.like(array).images()
    return back(ideal_resample(images, grid))


def _distribution(root: Map) -> tuple[jax.Array, jax.Array]:
    """Mean and standard deviation of each image over all positions and channels."""
    axes = tuple(axis for axis in range(root.array.ndim) if axis not in root.batch)
    wide = root.array.astype(jnp.promote_types(root.dtype, jnp.float32))
    mean = wide.mean(axes, keepdims=True)
    variance = jnp.square(wide - mean).mean(axes, keepdims=True)
    return mean, jnp.sqrt(variance + jnp.finfo(wide.dtype).tiny ** 0.5)


def _fitted(
    value: Pointwise, root: Map, mean: jax.Array, deviation: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Coefficients of 1, t and t^2 for the normalised map t: projections on the Hermite polynomials."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(NODES)
    shape = [1] * root.array.ndim
    shape[root.space[0]] = NODES
    t = jnp.asarray(nodes.reshape(shape), mean.dtype)
    w = jnp.asarray((weights / weights.sum()).reshape(shape), mean.dtype)
    values = value.at({id(root): (mean + deviation * t).astype(root.dtype)}).astype(mean.dtype)

    def projected(on: jax.Array) -> jax.Array:
        return jnp.sum(w * on * values, axis=root.space[0], keepdims=True)

    c2 = projected(t * t - 1) / 2
    return projected(jnp.ones_like(t)) - c2, projected(t), c2

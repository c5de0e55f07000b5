"""Non-linearities evaluated on finer grids: as they are, or as quadratics fitted to them.

A non-linearity creates frequencies that its own grid cannot hold; they alias, and the network then changes
under shifts by fractions of a pixel. On a finer grid, with a low-pass filter back, fewer alias, and those of
polynomials do not (Karras et al. 2021, arXiv 2106.12423, section 3; Michaeli et al. 2023, arXiv 2303.08085,
section 3.2). Non-linearities are found in the program: functions of each element of one map, which are not
affine and whose other operands are the same at every place.
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

NODES = 32  # of the Gauss-Hermite rule: exact for polynomials up to degree 63, so for quadratics times GELU's


@dataclasses.dataclass(frozen=True)
class Oversample:
    """Evaluates non-linearities on a grid `factor` times finer, with an ideal low-pass filter back.

    As StyleGAN3 does. The larger `factor`, the less the network changes under fractional shifts; functions of
    unbounded band (ReLU, GELU, SiLU) do not become exact. Memory of activations grows by `factor` squared.

    Attributes:
      factor: 1 or more; 1 evaluates them where they are.

    Raises:
      ConfigError: a factor below 1.
    """

    factor: int = 2

    def __post_init__(self) -> None:
        if self.factor < 1:
            raise ConfigError(f"Oversample takes a factor of at least 1, got {self.factor}.")

    def realized(self, value: Pointwise) -> Map:
        """The function on the finer grid, filtered back."""
        rows, columns = value.roots[0].sides
        return _on_grid(value, (self.factor * rows, self.factor * columns))

    def refuse(self, eqn: Any, what: str) -> None:
        """Other non-linearities (a max pool, a maximum over channels) stay on their grid."""


@dataclasses.dataclass(frozen=True)
class Quadratics:
    """Replaces non-linearities by quadratics, which are exact on a grid 3/2 times finer.

    The quadratic is the least-squares fit to the function under a normal distribution with the mean and
    variance of the image's map over all places and channels. Shifts do not change these, nor the fit.
    Where the function's constants differ by channel, so does the quadratic. Polynomials of the program itself
    (squares, products of two maps) are evaluated as they are, on the grid on which they are exact.
    """

    def realized(self, value: Pointwise) -> Map:
        """The function's quadratic; its own values where it is a polynomial.

        Raises:
          TransformError: a division by a map or a root of one, a function of two maps that is no polynomial.
        """
        root = value.roots[0]
        if math.isfinite(value.degree):
            return _on_grid(value, polynomial_grid(root.sides, int(value.degree)))
        if value.origin.primitive.name in ("div", "rsqrt", "sqrt", "cbrt", "log", "pow"):
            self.refuse(value.origin, "divides by a map, or takes its root or logarithm,")
        if len(value.roots) > 1 or not jnp.issubdtype(value.dtype, jnp.inexact):
            self.refuse(value.origin, "combines several maps, or decides by a map,")
        mean, deviation = _distribution(root)
        quadratic = _fitted(value, root, mean, deviation)

        def compute(known: dict[int, jax.Array]) -> jax.Array:
            t = (known[id(root)] - mean) / deviation
            c0, c1, c2 = quadratic
            return (c0 + t * (c1 + t * c2)).astype(value.dtype)

        fitted = Pointwise((root,), compute, 2, value.origin, value.dtype)
        return _on_grid(fitted, polynomial_grid(root.sides, 2))

    def refuse(self, eqn: Any, what: str) -> None:
        """Refuses an operation that no quadratic replaces.

        Raises:
          TransformError: always.
        """
        raise TransformError(
            eqn,
            f"{what} which no quadratic replaces",
            "Use layers.SpatialNorm in place of a norm over channels, sampling in place of a max pool, or "
            "activations=Oversample(2), which is approximate",
        )


def _on_grid(value: Pointwise, grid: tuple[int, int]) -> Map:
    """The function evaluated on a grid of `grid` rows and columns, low-passed back to that of its maps."""
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
    """Mean and standard deviation of each image over all places and channels."""
    axes = tuple(axis for axis in range(root.array.ndim) if axis not in root.batch)
    wide = root.array.astype(jnp.promote_types(root.dtype, jnp.float32))
    mean = wide.mean(axes, keepdims=True)
    variance = jnp.square(wide - mean).mean(axes, keepdims=True)
    return mean, jnp.sqrt(variance + jnp.finfo(wide.dtype).tiny ** 0.5)


def _fitted(
    value: Pointwise, root: Map, mean: jax.Array, deviation: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Coefficients of 1, t and t^2, t the normalised map: projections on the Hermite polynomials."""
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

"""The pointwise part of a ConvNeXt block, in whichever order costs less."""

import math
from typing import Literal

import flax.linen as nn
import jax

from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.layers.activation import FinerGrid, Gelu, Relu, Scaled, arity
from aliasfree_jax.layers.batching import Remat, images_at_once, over_images
from aliasfree_jax.layers.initializers import Initializer, normal
from aliasfree_jax.layers.layer import Layer, ModuleFactory
from aliasfree_jax.ops.activation import polynomial_grid
from aliasfree_jax.ops.choices import choices
from aliasfree_jax.ops.shapes import check_images

MlpGrid = Literal["auto", "fine", "coarse"]


def resampling_cost(shape: tuple[int, int], grid: tuple[int, int]) -> int:
    """Multiply-adds for one channel to be brought from `shape` to `grid` and back."""
    (h, w), (fine_h, fine_w) = shape, grid
    return 2 * (h * w * fine_w + h * fine_w * fine_h)


def mlp_costs(
    shape: tuple[int, int], channels: int, hidden: int, degree: int = 2, arity: int = 1
) -> dict[str, int]:
    """Multiply-adds of the MLP with its linear layers on the fine and on the coarse grid.

    "fine" resamples `channels` maps and runs the layers on the activation's grid; "coarse" runs them
    on the map's own grid and resamples `arity * hidden` maps there and `hidden` back.
    """
    grid = polynomial_grid(shape, degree)
    resampling, layers = resampling_cost(shape, grid), (arity + 1) * channels * hidden
    return {
        "fine": layers * math.prod(grid) + channels * resampling,
        "coarse": layers * math.prod(shape) + (arity + 1) * hidden * resampling // 2,
    }


def hidden_width(channels: int, activation: ModuleFactory, ratio: float = 4.0) -> int:
    """Hidden channels of an MLP with 2 ratio C^2 weights: ratio C, or 2/3 of that where it is gated.

    Rounded to a multiple of 8 if it is no whole number.
    """
    width = 2 * ratio * channels / (1 + arity(activation))
    return round(width) if width == round(width) else 8 * max(1, round(width / 8))


class Mlp(Layer):
    """Expand, activate, project: [N, H, W, C] to [N, H, W, C].

    Linear layers with bias commute with ideal resampling, which keeps constants; so an activation with a
    `FinerGrid` may enclose them ("fine") or stand between them ("coarse"), with the same
    parameters and result. "auto" is the backend's choice (`ops.choices`): on the CPU the order with
    fewer multiply-adds (`mlp_costs`).

    Attributes:
      hidden: channels after the activation; a gate takes twice as many (`hidden_width`).
      remat: "mlp" for a gradient that keeps the input only (`layers.batching`).
    """

    hidden: int
    activation: ModuleFactory
    grid: MlpGrid = "auto"
    remat: Remat = "auto"
    kernel_init: Initializer = normal(0.02)

    def __call__(self, x: jax.Array) -> jax.Array:
        """[N, H, W, C] to [N, H, W, C]."""
        check_images(x)
        x = self.cast(x)
        return over_images(self, Mlp._forward, x, at_once=self._at_once(x), remat=self.remat)

    @nn.compact
    def _forward(self, x: jax.Array) -> jax.Array:
        def dense(features: int, name: str) -> nn.Dense:
            return nn.Dense(
                features,
                kernel_init=self.kernel_init,
                **self.numerics,
                name=name,
            )

        shape, channels = (x.shape[1], x.shape[2]), x.shape[-1]
        expand, project = dense(arity(self.activation) * self.hidden, "expand"), dense(channels, "project")
        activation = self.activation(**self.numerics, name="activation")
        if isinstance(activation, FinerGrid) and self._grid(shape, channels, activation) == "fine":
            return activation.down(project(activation.pointwise(expand(activation.up(x)))), shape)
        return project(activation(expand(x)))

    def _grid(self, shape: tuple[int, int], channels: int, activation: FinerGrid) -> str:
        if self.grid not in ("auto", "fine", "coarse"):
            raise ConfigError(unknown("mlp_grid", self.grid, ("auto", "fine", "coarse")))
        grid = choices().mlp_grid if self.grid == "auto" else self.grid
        if grid != "fewer":
            return grid
        costs = mlp_costs(shape, channels, self.hidden, activation.degree, arity(self.activation))
        return min(costs, key=lambda grid: costs[grid])

    def _at_once(self, x: jax.Array) -> int:
        activation = self.activation(parent=None)
        if not isinstance(activation, Gelu | Relu | Scaled):  # may depend on other images
            return x.shape[0]
        shape = (x.shape[1], x.shape[2])
        if isinstance(activation, FinerGrid):
            shape = polynomial_grid(shape, activation.degree)
        widest = arity(self.activation) * self.hidden
        return images_at_once(x.shape[0], math.prod(shape) * widest * x.dtype.itemsize)

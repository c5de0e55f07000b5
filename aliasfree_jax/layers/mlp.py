"""The pointwise part of a ConvNeXt block, computed in the cheaper order of linear layers and resampling."""

import math
from typing import Any, Literal, get_args

import flax.linen as nn
import jax

from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.layers.activation import FinerGrid, Gelu, Relu, ScaledActivation, expansion, is_gated
from aliasfree_jax.layers.batching import Remat, images_at_once, over_images
from aliasfree_jax.layers.layer import Initializer, Layer, ModuleFactory, normal
from aliasfree_jax.ops.choices import choices
from aliasfree_jax.ops.shapes import check_images

MlpGrid = Literal["auto", "fine", "coarse"]


def resampling_cost(shape: tuple[int, int], grid: tuple[int, int]) -> int:
    """Multiply-adds for resampling one channel from `shape` to `grid` and back."""
    (h, w), (fine_h, fine_w) = shape, grid
    return 2 * (h * w * fine_w + h * fine_w * fine_h)


def mlp_costs(
    shape: tuple[int, int], grid: tuple[int, int], channels: int, hidden: int, gated: bool = False
) -> dict[str, int]:
    """Multiply-adds of the MLP with its linear layers on the fine and on the coarse grid.

    "fine" resamples `channels` maps and runs the linear layers on the activation's `grid`. "coarse" runs
    them on the map's own grid. It resamples `hidden` maps (twice as many for a gate) to the fine grid and
    `hidden` maps back.
    """
    maps = (3 if gated else 2) * hidden
    resampling = resampling_cost(shape, grid)
    return {
        "fine": maps * channels * math.prod(grid) + channels * resampling,
        "coarse": maps * channels * math.prod(shape) + maps * resampling // 2,
    }


def hidden_width(channels: int, activation: ModuleFactory, ratio: float = 4.0, multiple: int = 8) -> int:
    """Hidden channels of an MLP with 2 ratio C^2 weights: ratio C, or 2/3 of that for gated activations.

    The result is rounded to a multiple of `multiple` if it is not an integer.
    """
    width = 2 * ratio * channels / (3 if is_gated(activation) else 2)
    return round(width) if width == round(width) else multiple * max(1, round(width / multiple))


class Mlp(Layer):
    """Expands the channels, activates, and projects back: `[N, H, W, C]` to `[N, H, W, C]`.

    Linear layers with bias commute with ideal resampling, which preserves constants. So they can run on the
    finer grid of an activation ("fine") or on the grid of the map ("coarse"). Parameters and results are
    the same. "auto" is the backend's choice (`ops.choices`): on CPUs, the order with fewer multiply-adds.

    Attributes:
      hidden: channels after the activation. A gate needs twice this number before it.
      activation: the activation, a module class or `Factory`.
      grid: grid of the linear layers: "auto", "fine" or "coarse".
      remat: what the gradient recomputes instead of storing. "mlp": everything except the input. "auto":
        the same if the batch is processed in pieces (`layers.batching`). "none" and "block": nothing.
      kernel_init: initializer of both linear layers.

    Source: Liu et al. 2022 (arXiv 2201.03545); Michaeli et al. 2023 (arXiv 2303.08085) for the finer grid;
    the choice of the order is this package's.
    """

    hidden: int
    activation: ModuleFactory
    grid: MlpGrid = "auto"
    remat: Remat = "auto"
    kernel_init: Initializer = normal(0.02)

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[N, H, W, C]` to `[N, H, W, C]`.

        Raises:
          ShapeError: `x` is not floating-point `[N, H, W, C]`.
          ConfigError: unknown grid.
        """
        check_images(x)
        x = self.cast(x)
        return over_images(self, Mlp._forward, x, at_once=self._at_once(x), remat=self.remat)

    @nn.compact
    def _forward(self, x: jax.Array) -> jax.Array:
        how: dict[str, Any] = {"kernel_init": self.kernel_init, **self.numerics}
        expand = nn.Dense(self._expanded(), **how, name="expand")
        project = nn.Dense(x.shape[-1], **how, name="project")
        activation = self.activation(**self.numerics, name="activation")
        if isinstance(activation, FinerGrid) and self._grid(x, activation) == "fine":
            return activation.between(x, expand, project)
        return project(activation(expand(x)))

    def _expanded(self) -> int:
        """Channels before the activation."""
        return expansion(self.activation) * self.hidden

    def _grid(self, x: jax.Array, activation: FinerGrid) -> str:
        if self.grid not in get_args(MlpGrid):
            raise ConfigError(unknown("mlp_grid", self.grid, get_args(MlpGrid)))
        grid = choices().mlp_grid if self.grid == "auto" else self.grid
        if grid != "fewer":
            return grid
        shape, gated = (x.shape[1], x.shape[2]), is_gated(self.activation)
        costs = mlp_costs(shape, activation.grid(shape), x.shape[-1], self.hidden, gated)
        return min(costs, key=lambda grid: costs[grid])

    def _at_once(self, x: jax.Array) -> int:
        activation = self.activation(parent=None)
        if not isinstance(activation, Gelu | Relu | ScaledActivation):  # it may mix images
            return x.shape[0]
        shape = (x.shape[1], x.shape[2])
        if isinstance(activation, FinerGrid):
            shape = activation.grid(shape)
        return images_at_once(x.shape[0], math.prod(shape) * self._expanded() * x.dtype.itemsize)

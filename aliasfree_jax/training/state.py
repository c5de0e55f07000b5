"""Everything that changes during training, as one pytree."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh

from aliasfree_jax.checkpoint import PyTree
from aliasfree_jax.training.mesh import state_shardings


@struct.dataclass
class TrainState:
    """State of a run after `step` parameter updates.

    Attributes:
      step: int32, number of updates.
      params: the parameters.
      collections: the other variables, e.g. "batch_stats".
      opt_state: state of the optimizer.
      ema: averages of all variables; None if the run keeps none.
      key: typed random key. It never changes: the step is folded in.
    """

    step: jax.Array
    params: PyTree
    collections: dict[str, PyTree]
    opt_state: PyTree
    ema: dict[str, PyTree] | None
    key: jax.Array

    def evaluated(self) -> dict[str, PyTree]:
        """The variables to evaluate: the averages if there are any, else the current variables."""
        return self.raw() if self.ema is None else self.ema

    def raw(self) -> dict[str, PyTree]:
        """The variables that the updates change, never averages."""
        return {"params": self.params, **self.collections}

    def rest(self) -> dict[str, Any]:
        """Everything except `evaluated`. A checkpoint contains both."""
        rest = {"step": self.step, "opt_state": self.opt_state, "key": self.key}
        if self.ema is not None:
            rest |= {"params": self.params, "collections": self.collections}
        return rest

    def replaced(self, evaluated: dict[str, PyTree], rest: dict[str, Any]) -> "TrainState":
        """The state with the contents of `evaluated` and `rest` from a checkpoint."""
        if self.ema is not None:
            return dataclasses.replace(self, ema=evaluated, **rest)
        collections = {k: v for k, v in evaluated.items() if k != "params"}
        return dataclasses.replace(self, params=evaluated["params"], collections=collections, **rest)


@dataclasses.dataclass(frozen=True, eq=False)  # compared by identity: parts of networks may have no hash
class StateBuilder:
    """Makes the state before the first update, on all devices of `mesh`.

    Attributes:
      module: the network.
      optimizer: transformation of gradients.
      image_shape: (height, width, channels) of one input.
      mesh: the devices.
      average: whether the state keeps an exponential moving average of the variables.
      seed: seed of the initial parameters and of everything random in the steps.
    """

    module: nn.Module
    optimizer: optax.GradientTransformation
    image_shape: tuple[int, int, int]
    mesh: Mesh
    average: bool = False
    seed: int = 0

    def _fresh(self, variables: dict[str, PyTree] | None = None) -> TrainState:
        init_key, run_key = jax.random.split(jax.random.key(self.seed))
        if variables is None:
            variables = dict(self.module.init(init_key, jnp.zeros((1, *self.image_shape)), train=False))
        params = variables["params"]
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            collections={k: v for k, v in variables.items() if k != "params"},
            opt_state=self.optimizer.init(params),
            ema=variables if self.average else None,
            key=run_key,
        )

    def build(self, variables: dict[str, PyTree] | None = None) -> TrainState:
        """The state with these initial variables. None: they are drawn from `seed`."""
        # Via the host, because arrays committed to one device cannot be spread over a larger mesh.
        values = jax.device_get(variables)
        shardings = state_shardings(jax.eval_shape(self._fresh, values), self.mesh)
        # With out_shardings, no two arrays of the result share memory, so the step may donate them.
        return jax.jit(self._fresh, out_shardings=shardings)(values)

    def abstract(self) -> TrainState:
        """Shapes, dtypes and shardings of the result of `build`, without computing it."""
        shapes = jax.eval_shape(self._fresh)
        return jax.tree.map(
            lambda a, sharding: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding),
            shapes,
            state_shardings(shapes, self.mesh),
        )

"""Everything that changes during training, as one pytree; drawn at random, or from weights that are there."""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh

from aliasfree_jax.checkpoint import (
    ModelCard,
    PyTree,
    Shapes,
    abstract_variables,
    differences,
    leaf_shapes,
    named_leaves,
    network_of,
)
from aliasfree_jax.data.class_names import ClassNamesError, match_classes
from aliasfree_jax.errors import CheckpointError, listed
from aliasfree_jax.models.parts import KIND_OF_OPTION
from aliasfree_jax.training.mesh import state_shardings


class Pretrained(NamedTuple):
    """A network whose weights a run starts from."""

    card: ModelCard
    variables: PyTree


@struct.dataclass
class TrainState:
    """State of a run after `step` parameter updates."""

    step: jax.Array  # int32, number of updates done
    params: PyTree
    collections: dict[str, PyTree]  # the other variables, e.g. "batch_stats"
    opt_state: PyTree
    ema: dict[str, PyTree] | None  # averages of all variables; None if the run keeps none
    key: jax.Array  # typed random key; never changes, the step is folded in

    def evaluated(self) -> dict[str, PyTree]:
        """The variables to evaluate: the averages if there are any, else the live ones."""
        return self.raw() if self.ema is None else self.ema

    def raw(self) -> dict[str, PyTree]:
        """The variables that the updates change, never averages."""
        return {"params": self.params, **self.collections}

    def rest(self) -> dict[str, Any]:
        """All but `evaluated`; the two together are what a checkpoint holds."""
        rest = {"step": self.step, "opt_state": self.opt_state, "key": self.key}
        if self.ema is not None:
            rest |= {"params": self.params, "collections": self.collections}
        return rest

    def replaced(self, evaluated: dict[str, PyTree], rest: dict[str, Any]) -> "TrainState":
        """The state with the contents of `evaluated` and `rest`, as a checkpoint gives them back."""
        if self.ema is not None:
            return dataclasses.replace(self, ema=evaluated, **rest)
        collections = {k: v for k, v in evaluated.items() if k != "params"}
        return dataclasses.replace(self, params=evaluated["params"], collections=collections, **rest)


@dataclasses.dataclass(frozen=True, eq=False)  # known by identity: networks may have parts without a hash
class StateBuilder:
    """Makes the state before the first update, on all devices of `mesh`.

    Attributes:
      module: the network.
      optimizer: transformation of gradients.
      image_shape: (height, width, channels) of one input.
      mesh: devices to place it on.
      average: whether an exponential moving average of the variables is kept.
      seed: of the initial parameters and of everything random in the steps.
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
        """The state with these initial variables; None: drawn from `seed`."""
        # Through the host: arrays committed to one device could not be spread over a mesh of several.
        values = jax.device_get(variables)
        shardings = state_shardings(jax.eval_shape(self._fresh, values), self.mesh)
        # With out_shardings, every array of the result has memory of its own, which the step may donate.
        return jax.jit(self._fresh, out_shardings=shardings)(values)

    def abstract(self) -> TrainState:
        """Shapes, dtypes and shardings of what `build` returns, without computing it."""
        shapes = jax.eval_shape(self._fresh)
        return jax.tree.map(
            lambda a, sharding: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=sharding),
            shapes,
            state_shardings(shapes, self.mesh),
        )


def _head(expected: Shapes, wider: Shapes, found: Shapes, old: int) -> list[str]:
    """Names of the arrays whose last axis is the number of classes, and which differ in nothing else.

    Args:
      expected: of the network.
      wider: of the same for more classes.
      found: of the weights, for `old` classes.
    """
    return [
        name
        for name, shape in expected.items()
        if shape != wider[name] and found.get(name) == (*shape[:-1], old)
    ]


def with_classes(card: ModelCard, count: int) -> ModelCard:
    """The card of the same network for another number of classes."""
    return dataclasses.replace(card, options={**card.options, "num_classes": count})


def _outputs(old: tuple[str, ...], new: tuple[str, ...], accept: bool) -> tuple[tuple[int, ...] | None, str]:
    """The old output for each new class, None if these are other classes; and a line on it."""
    try:
        match = match_classes(old, new, owner="the initial network", accept=accept)
    except ClassNamesError as error:
        return None, str(error) if len(old) == len(new) else ""
    return match.outputs, match.note


def _with_parts_of(module: nn.Module, other: nn.Module) -> nn.Module:
    """`module` with the samplers, activations and norms of a network of the same class."""
    if type(other) is not type(module):
        return module
    with_weights = ("stem", "shortcut")
    options = [option for option, kind in KIND_OF_OPTION.items() if kind not in with_weights]
    return module.clone(**{name: getattr(other, name) for name in options if hasattr(other, name)})


def adopt(
    pretrained: Pretrained,
    module: nn.Module,
    mine: ModelCard,
    *,
    seed: int,
    tell: Callable[[str], None],
    accept_class_names: bool = False,
) -> PyTree:
    """Variables for `module`, which `mine` describes, taken from those of another network.

    What only the samplers, activations and norms of `module` have begins at its initial values: polynomials
    of an alias-free network that starts from plain weights. The head is kept where both cards name the same
    classes, its outputs in the order of `mine`; else it is drawn afresh.

    Args:
      tell: called with a line on the head, unless it is kept as it is, and one on what begins anew.
      accept_class_names: keep the head for as many classes with other names.

    Raises:
      CheckpointError: they differ in anything else.
    """
    card, variables = pretrained

    def shapes(network: nn.Module) -> Shapes:
        return leaf_shapes(abstract_variables(network, mine.image_size, mine.channels))

    old, new = card.outputs(), mine.outputs()
    abstract = abstract_variables(module, mine.image_size, mine.channels)
    expected, found = leaf_shapes(abstract), leaf_shapes(variables)
    outputs, why = _outputs(old, new, accept_class_names)
    unchanged = outputs == tuple(range(len(new)))
    wider = expected if unchanged else shapes(network_of(with_classes(mine, len(new) + 1)))
    head = _head(expected, wider, found, len(old))
    if wider == expected and not unchanged:
        raise CheckpointError(
            f"the weights of {card.model!r} ({card.origin}) are of other classes, in number, name or order, "
            f"and it is not known which layer of {mine.model!r} is the head: its function takes no "
            "num_classes. Let it take them, `def make_network(num_classes)`, or start from weights of the "
            "same classes."
        )
    drawn = head if outputs is None else []
    added = [name for name in expected if name not in found]
    if added:
        plain = shapes(_with_parts_of(module, network_of(card)))
        added = [name for name in added if name not in plain]
    faults = differences(
        {n: s for n, s in expected.items() if n not in drawn + added},
        {n: s for n, s in found.items() if n not in drawn},
    )
    if faults:
        raise CheckpointError(
            f"the weights of {card.model!r} ({card.origin}) do not fit the model {mine.model!r}:\n{faults}\n"
            "Set model.name and model.options to a network with the layers of these weights (only parameters "
            "of its own samplers, activations and norms may be missing), or another init_from."
        )
    if drawn:
        tell(f"drawn afresh for {len(new)} classes: {', '.join(drawn)}" + f", since {why}" * bool(why))
    elif why:
        tell(why)
    if added:
        tell(
            f"{len(found) - len(drawn)} arrays are taken over; {len(added)} of {mine.model!r} that the "
            f"weights lack begin at their initial values: {listed(added, 6)}"
        )
    taken = {name: leaf for name, leaf in named_leaves(variables).items() if name not in drawn}
    if outputs is not None:
        taken |= {name: taken[name][..., np.asarray(outputs)] for name in head}
    if drawn or added:
        image = jnp.zeros((1, mine.image_size, mine.image_size, mine.channels))
        fresh = jax.jit(lambda: module.init(jax.random.key(seed), image, train=False))()
        taken = named_leaves(fresh) | taken
    return jax.tree.unflatten(jax.tree.structure(abstract), [taken[name] for name in expected])

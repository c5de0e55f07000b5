"""Weights of another run or of a conversion as the start of a new run, possibly with other classes."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from aliasfree_jax.checkpoint import ModelCard, PyTree, differences, leaf_shapes, named_leaves
from aliasfree_jax.checkpoint.card import Shapes
from aliasfree_jax.data.class_names import ClassNamesError, match_classes
from aliasfree_jax.errors import CheckpointError


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


def _outputs(old: tuple[str, ...], new: tuple[str, ...], accept: bool) -> tuple[tuple[int, ...] | None, str]:
    """The old output for each new class, None if these are other classes; and a line on it."""
    try:
        match = match_classes(old, new, owner="the initial network", accept=accept)
    except ClassNamesError as error:
        return None, str(error) if len(old) == len(new) else ""
    return match.outputs, match.note


def adopt(
    card: ModelCard,
    variables: PyTree,
    module: nn.Module,
    mine: ModelCard,
    *,
    seed: int,
    tell: Callable[[str], None],
    start: nn.Module | None = None,
    accept_class_names: bool = False,
) -> PyTree:
    """Variables for `module` (described by `mine`) taken from `variables` (described by `card`).

    Where `start` is given, they are its; what only `module` has gets its initial values. The head is kept
    where both cards name the same classes, its outputs in the order of `mine`; else it is drawn afresh.

    Args:
      tell: called with a line on the head, unless it is kept as it is.
      accept_class_names: keep the head for as many classes with other names.

    Raises:
      CheckpointError: they differ in anything else.
    """
    image = jnp.zeros((1, mine.image_size, mine.image_size, mine.channels))

    def init(network: nn.Module = module) -> PyTree:
        return network.init(jax.random.key(seed), image, train=False)

    def shapes(network: nn.Module) -> Shapes:
        return leaf_shapes(jax.eval_shape(lambda: init(network)))

    old, new = card.outputs(), mine.outputs()
    network = start or module
    expected, found = shapes(network), leaf_shapes(variables)
    outputs, why = _outputs(old, new, accept_class_names)
    unchanged = outputs == tuple(range(len(new)))
    wider = expected if unchanged else shapes(network.clone(num_classes=len(new) + 1))
    head = _head(expected, wider, found, len(old))
    drawn = head if outputs is None else []
    faults = differences(
        {n: s for n, s in expected.items() if n not in drawn},
        {n: s for n, s in found.items() if n not in drawn},
    )
    if faults:
        raise CheckpointError(
            f"the weights of {card.model!r} ({card.origin}) do not fit the model {mine.model!r}:\n{faults}\n"
            "Set model.name and model.options as they were, or another init_from."
        )
    if drawn:
        tell(f"drawn afresh for {len(new)} classes: {', '.join(drawn)}" + f", since {why}" * bool(why))
    elif why:
        tell(why)
    taken = {name: leaf for name, leaf in named_leaves(variables).items() if name not in drawn}
    if outputs is not None:
        taken |= {name: taken[name][..., np.asarray(outputs)] for name in head}
    abstract = jax.eval_shape(init)
    names = leaf_shapes(abstract)
    leaves = (named_leaves(jax.jit(init)()) | taken) if len(taken) < len(names) else taken
    return jax.tree.unflatten(jax.tree.structure(abstract), [leaves[name] for name in names])

"""Weights of another run or of a conversion as the start of a new run, possibly with other classes."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from aliasfree_jax.checkpoint import ModelCard, PyTree, differences, leaf_shapes, named_leaves
from aliasfree_jax.errors import CheckpointError


def _classes(card: ModelCard) -> int:
    return int(card.options.get("num_classes", len(card.class_names)))


def _head(
    expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]], new: int, old: int
) -> list[str]:
    """Names of the arrays that differ in the number of classes, their last axis, and in nothing else."""
    return [
        name
        for name, shape in expected.items()
        if new != old and shape[-1:] == (new,) and found.get(name) == (*shape[:-1], old)
    ]


def adopt(
    card: ModelCard,
    variables: PyTree,
    module: nn.Module,
    mine: ModelCard,
    *,
    seed: int,
    start: nn.Module | None = None,
) -> tuple[PyTree, list[str]]:
    """Variables for `module` (described by `mine`) taken from `variables` (described by `card`).

    Where `start` is given, they are its; what only `module` has gets its initial values.

    Returns:
      The variables; and the names of the arrays that were drawn afresh because the number of classes
      differs, empty if it does not.

    Raises:
      CheckpointError: they differ in anything else.
    """
    image = jnp.zeros((1, mine.image_size, mine.image_size, mine.channels))

    def init(network: nn.Module = module) -> PyTree:
        return network.init(jax.random.key(seed), image, train=False)

    abstract = jax.eval_shape(init)
    expected = leaf_shapes(jax.eval_shape(lambda: init(start)) if start else abstract)
    found = leaf_shapes(variables)
    head = _head(expected, found, _classes(mine), _classes(card))
    faults = differences(
        {n: s for n, s in expected.items() if n not in head},
        {n: s for n, s in found.items() if n not in head},
    )
    if faults:
        raise CheckpointError(
            f"the weights of {card.model!r} ({card.origin}) do not fit the model {mine.model!r}:\n{faults}\n"
            "Set model.name and model.options as they were, or another init_from."
        )
    taken = {name: leaf for name, leaf in named_leaves(variables).items() if name not in head}
    names = leaf_shapes(abstract)
    leaves = (named_leaves(jax.jit(init)()) | taken) if len(taken) < len(names) else taken
    return jax.tree.unflatten(jax.tree.structure(abstract), [leaves[name] for name in names]), head

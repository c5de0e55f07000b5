"""Takes initial weights from a network with other classes, samplers or activations.

The weights of a classifier can become the backbone of a network for dense prediction.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

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

BACKBONE = "backbone"  # in a network for dense prediction: the module that is a classifier without its head


class Pretrained(NamedTuple):
    """A network whose weights start a run."""

    card: ModelCard
    variables: PyTree


def _head(expected: Shapes, wider: Shapes, found: Shapes, old: int) -> list[str]:
    """Names of the arrays that differ only in the last axis, which is the number of classes.

    Args:
      expected: shapes of the network.
      wider: shapes of the same network with more classes.
      found: shapes of the weights, for `old` classes.
      old: number of classes of the weights.
    """
    return [
        name
        for name, shape in expected.items()
        if shape != wider[name] and found.get(name) == (*shape[:-1], old)
    ]


def with_classes(card: ModelCard, count: int) -> ModelCard:
    """The card of the same network with another number of classes."""
    return dataclasses.replace(card, options={**card.options, "num_classes": count})


def _outputs(old: tuple[str, ...], new: tuple[str, ...], accept: bool) -> tuple[tuple[int, ...] | None, str]:
    """The old output for each new class, or None if the classes differ; and a note about it."""
    try:
        match = match_classes(old, new, owner="the initial network", accept=accept)
    except ClassNamesError as error:
        return None, str(error) if len(old) == len(new) else ""
    return match.outputs, match.note


def _with_parts_of(module: nn.Module, other: nn.Module) -> nn.Module:
    """`module` with the samplers, activations and norms of `other`, a network of the same class."""
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
    """Takes the variables of `module` from the weights of another network.

    New variables of samplers, activations and norms keep their initial values, e.g. the polynomials of an
    alias-free network that starts from plain weights. If both cards name the same classes, the head is kept
    and its outputs are put in the order of `mine`. Otherwise the head is initialised randomly. If `module`
    has a backbone, the weights of a classifier become its backbone, and everything else keeps its initial
    values.

    Args:
      pretrained: the other network.
      module: the network that needs variables.
      mine: the card of `module`.
      seed: seed of the initial values.
      tell: called with a note about the head, unless it is kept unchanged, and a note about new variables.
      accept_class_names: keep the head for equally many classes with other names.

    Raises:
      CheckpointError: the networks differ in anything else.
    """
    card, variables = pretrained
    abstract = abstract_variables(module, mine.image_size, mine.channels)
    if BACKBONE in abstract["params"] and BACKBONE not in variables["params"]:
        return _adopt_backbone(pretrained, module, mine, seed=seed, tell=tell)

    def shapes(network: nn.Module) -> Shapes:
        return leaf_shapes(abstract_variables(network, mine.image_size, mine.channels))

    old, new = card.outputs(), mine.outputs()
    expected, found = leaf_shapes(abstract), leaf_shapes(variables)
    outputs, why = _outputs(old, new, accept_class_names)
    unchanged = outputs == tuple(range(len(new)))
    wider = expected if unchanged else shapes(network_of(with_classes(mine, len(new) + 1)))
    head = _head(expected, wider, found, len(old))
    if wider == expected and not unchanged:
        raise CheckpointError(
            f"the weights of {card.model!r} ({card.origin}) have other classes, in number, name or order, "
            f"and the head of {mine.model!r} cannot be found, because its function has no argument "
            "num_classes. Add it, `def make_network(num_classes)`, or start from weights with the same "
            "classes."
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
            "Set model.name and model.options to a network with the layers of these weights, or use another "
            "init_from. Only parameters of samplers, activations and norms may be missing in the weights."
        )
    if drawn:
        tell(
            f"initialised randomly for {len(new)} classes: {', '.join(drawn)}" + f", since {why}" * bool(why)
        )
    elif why:
        tell(why)
    if added:
        tell(
            f"{len(found) - len(drawn)} arrays are taken from the weights; {len(added)} arrays of "
            f"{mine.model!r} are not in them and keep their initial values: {listed(added, 6)}"
        )
    taken = {name: leaf for name, leaf in named_leaves(variables).items() if name not in drawn}
    if outputs is not None:
        taken |= {name: taken[name][..., np.asarray(outputs)] for name in head}
    if drawn or added:
        taken = named_leaves(_fresh(module, mine, seed)) | taken
    return jax.tree.unflatten(jax.tree.structure(abstract), [taken[name] for name in expected])


def _fresh(module: nn.Module, card: ModelCard, seed: int) -> PyTree:
    """Initial variables for images of the shape that `card` describes."""
    image = jnp.zeros((1, card.image_size, card.image_size, card.channels))
    return jax.jit(lambda: module.init(jax.random.key(seed), image, train=False))()


def _adopt_backbone(
    pretrained: Pretrained, module: Any, mine: ModelCard, *, seed: int, tell: Callable[[str], None]
) -> PyTree:
    """The part of `adopt` for backbones: the weights of a classifier without its head become the backbone."""
    card, variables = pretrained
    headless = {name: {k: v for k, v in of.items() if k != "head"} for name, of in variables.items()}
    # The backbone has no classes, so they cannot differ.
    same = dataclasses.replace(mine, class_names=card.class_names, options=card.options)
    backbone = module.backbone(**module.numerics)
    adopt(Pretrained(card, headless), backbone, same, seed=seed, tell=tell)  # only to check and to tell
    fresh = _fresh(module, mine, seed)
    taken = {path.replace("/", f"/{BACKBONE}/", 1): leaf for path, leaf in named_leaves(headless).items()}
    leaves = named_leaves(fresh)
    decoder = sum(BACKBONE not in path.split("/") for path in leaves)
    tell(f"the backbone has the weights of {card.model}; {decoder} other arrays keep their initial values")
    return jax.tree.unflatten(jax.tree.structure(fresh), [*(leaves | taken).values()])

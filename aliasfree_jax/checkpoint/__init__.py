"""Saves networks and training states with Orbax, each with a card that describes how to rebuild the network.

A run keeps `<run>/checkpoints/<step>/`. Its best network is in `<run>/best/`. Like a converted or exported
network, that is a step directory without `state`:

    card/metadata   JSON: the `ModelCard`, and name and shape of every stored array
    variables/      the variables to evaluate: averaged parameters if the run averages, else the trained ones
    state/          the rest of the training state (runs only)

`best/results.json` holds the results and how the network was chosen. If a result of the raw weights decided,
`variables` holds the raw weights.

Evaluation reads only `variables`. A checkpoint of another network is recognised from its card before any
array is read.
"""

from aliasfree_jax.checkpoint.card import PREPARATION, ModelCard
from aliasfree_jax.checkpoint.directory import (
    PyTree,
    Shapes,
    differences,
    finished_steps,
    leaf_shapes,
    named_leaves,
    weights_sha256,
)
from aliasfree_jax.checkpoint.network import (
    abstract_variables,
    how_chosen,
    keep_best,
    load_card,
    load_model,
    load_variables,
    network_of,
    newest_run,
    save_model,
    set_best_aside,
)
from aliasfree_jax.checkpoint.run import RunCheckpoints, newest_card

__all__ = [
    "PREPARATION",
    "ModelCard",
    "PyTree",
    "RunCheckpoints",
    "Shapes",
    "abstract_variables",
    "differences",
    "finished_steps",
    "how_chosen",
    "keep_best",
    "leaf_shapes",
    "load_card",
    "load_model",
    "load_variables",
    "named_leaves",
    "network_of",
    "newest_card",
    "newest_run",
    "save_model",
    "set_best_aside",
    "weights_sha256",
]

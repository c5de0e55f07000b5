"""Networks and training states on disk (Orbax), each with a card that says how to rebuild the network.

A run keeps `<run>/checkpoints/<step>/`; its best network in `<run>/best/`, like a converted or exported
one, is one such step directory without `state`:

    card/metadata   JSON: the `ModelCard`, and name and shape of every stored array
    variables/      what is evaluated: the averaged parameters if the run averages, else the live ones
    state/          the rest of the training state (runs only)

In `best/`, `results.json` says what was found and how the network was chosen; where that was by a result of
the raw weights, `variables` are these.

Evaluation so reads only `variables`, and a checkpoint of another network is recognised from the card,
before any array is read.
"""

from aliasfree_jax.checkpoint.directory import (
    PREPARATION,
    ModelCard,
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

"""Checks, before anything is computed, that a network from outside this package can be trained."""

from typing import Any

import jax
import jax.numpy as jnp

from aliasfree_jax.checkpoint import ModelCard
from aliasfree_jax.commands import TRAINING, running
from aliasfree_jax.errors import ShapeError
from aliasfree_jax.foreign import Adapted, as_written
from aliasfree_jax.training.step import STREAMS, random_streams

IMAGES = 2
REMEDY = (
    "Images have data.image_size rows and columns, and one channel for each value of data.mean. The "
    f"argument that says whether the call is training may be named {', '.join(TRAINING)}. In training, the "
    f"network may use the random streams {', '.join(STREAMS)}."
)


def _images(card: ModelCard) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((IMAGES, card.image_size, card.image_size, card.channels), jnp.float32)


def _traced(network: Adapted, card: ModelCard, now: dict[str, Any]) -> None:
    """Initialises, evaluates and trains the network on shapes only."""
    key, images = jax.random.key(0), _images(card)
    variables = jax.eval_shape(lambda x: network.init(key, x), images)
    jax.eval_shape(network.apply, variables, images)
    collections = [name for name in variables if name != "params"]

    def trained(variables: Any, images: Any, now: Any) -> Any:
        how: dict[str, Any] = {"rngs": random_streams(key), "mutable": collections}
        logits, _ = network.apply(variables, images, train=True, **now, **how)
        return logits

    jax.eval_shape(trained, variables, images, now)


def check_call(network: Adapted, card: ModelCard, **now: jax.ShapeDtypeStruct) -> None:
    """Checks that the network can be evaluated and trained on images of the shape that `card` describes.

    Args:
      network: the network.
      card: describes the images.
      **now: further arguments of the network's call in training.

    Raises:
      ShapeError: the network does not run as written.
      AliasFreeError: the network cannot be transformed.
    """
    with running(card.model, _images(card).shape[1:], REMEDY):
        _traced(network.clone(transform=as_written), card, now)
    if network.transform is not as_written:
        _traced(network, card, now)


def check_outputs(network: Adapted, card: ModelCard) -> None:
    """Checks the shape of the network's output for the task of `card`.

    For classification it is one logit for each class; for dense tasks, one logit or value at each pixel.

    Args:
      network: the network.
      card: describes the images, the task and the classes.

    Raises:
      ShapeError: the output has another shape.
    """
    with running(card.model, _images(card).shape[1:], REMEDY):
        result, _ = jax.eval_shape(lambda x: network.init_with_output(jax.random.key(0), x), _images(card))
    count, what = len(card.class_names), "channels" if card.task == "regression" else "classes"
    of_pixels = card.task != "classification"
    wanted = (IMAGES, *_images(card).shape[1:3], count) if of_pixels else (IMAGES, count)
    if getattr(result, "shape", None) == wanted and jnp.issubdtype(result.dtype, jnp.floating):
        return
    found = jax.tree.map(lambda leaf: f"{leaf.dtype}{list(leaf.shape)}", result)
    raise ShapeError(
        f"{card.model} returns {found} for {IMAGES} images. The data has {count} {what}, so the expected "
        f"output is one array, float32{list(wanted)} (task = {card.task!r}). Add the argument num_classes, "
        "`def make_network(num_classes)`, and let the module return only that array."
    )

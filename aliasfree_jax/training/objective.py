"""The training objective: the loss of images, of pixels, or of output images, by its name.

Every term has a sum over the counted parts of an example, and their number. The step divides the sums of a
whole batch. So the weight of an image is proportional to its number of counted pixels.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from aliasfree_jax.data.sources import IGNORED


@dataclass(frozen=True)
class Term:
    """A quantity that is averaged over a batch.

    Attributes:
      sums: (outputs `[B, ...]`, label `[B, ...]`) -> `[B]`, the sum over the counted parts of each example.
      counts: label `[B, ...]` -> `[B]`, the number of counted parts of each example.
    """

    sums: Callable[[jax.Array, jax.Array], jax.Array]
    counts: Callable[[jax.Array], jax.Array]


Objective = Mapping[str, Term]
"""The terms by name: "loss", and other quantities for the training log."""


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy with smoothed labels, in nats.

    Returns one value for each example or pixel. The caller averages, because it knows what counts.

    Args:
      logits: `[..., K]`.
      labels: integers `[...]` in [0, K).
      smoothing: share of the target that is spread evenly over all K classes.

    Returns:
      float32 `[...]`.
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    classes = logits.shape[-1]
    # One-hot rows instead of a gather: they need no communication if the batch is divided.
    targets = jax.nn.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
    return -jnp.sum(targets * log_probs, axis=-1)


def correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """1 if the largest logit is the label's, else 0: `[..., K]`, `[...]` -> float32 `[...]`."""
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)


def _one_each(label: jax.Array) -> jax.Array:
    return jnp.ones(len(label), jnp.float32)


def _of_pixels(values: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[..., jax.Array]:
    """The sum of `values` over the pixels of each image that are not ignored."""
    return lambda logits, label: jnp.sum(values(logits, label) * (label != IGNORED), axis=(1, 2))


def _counted(label: jax.Array) -> jax.Array:
    return jnp.sum(label != IGNORED, axis=(1, 2), dtype=jnp.float32)


def _all_pixels(label: jax.Array) -> jax.Array:
    return jnp.full(len(label), label.shape[1] * label.shape[2], jnp.float32)


def _error(distance: Callable[[jax.Array], jax.Array]) -> Term:
    """The mean of a distance over pixels and channels, in units of the normalised images."""

    def of_images(outputs: jax.Array, label: jax.Array) -> jax.Array:
        return jnp.mean(distance(outputs.astype(jnp.float32) - label), axis=(1, 2, 3))

    return Term(of_images, _one_each)


def make_objective(task: str, loss: str = "cross_entropy", smoothing: float = 0.0) -> Objective:
    """The objective for `config.task` and the loss `config.train.loss` (see `config.LOSSES`)."""
    if task == "regression":
        return {"loss": _error({"l1": jnp.abs, "l2": jnp.square}[loss])}
    entropy = partial(cross_entropy, smoothing=smoothing)
    if task == "classification":
        return {"loss": Term(entropy, _one_each), "accuracy": Term(correct, _one_each)}
    # The default of learnable_polyphase_sampling is the mean over all pixels, with zeros for ignored ones.
    counts = _all_pixels if loss == "cross_entropy_of_all" else _counted
    return {"loss": Term(_of_pixels(entropy), counts), "accuracy": Term(_of_pixels(correct), _counted)}


CLASSIFICATION = make_objective("classification")

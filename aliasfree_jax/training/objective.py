"""What a network is trained for: the loss of images, of pixels, or of images as outputs, by its name.

Every term is a sum over what counts in an example, and how much that is: the step divides the sums of a whole
batch. So an image with many ignored pixels weighs as little as it has pixels that count.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp

from aliasfree_jax.data.sources import IGNORED


@dataclass(frozen=True)
class Term:
    """Something to average over a batch.

    Attributes:
      sums: (outputs [B, ...], label [B, ...]) -> [B], over what counts of each example.
      counts: label [B, ...] -> [B], how much of each example counts.
    """

    sums: Callable[[jax.Array, jax.Array], jax.Array]
    counts: Callable[[jax.Array], jax.Array]


Objective = Mapping[str, Term]
"""The terms by name: "loss", and what else the training log has."""


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy with smoothed labels, in nats.

    One value an example or pixel: averaging is left to the caller, who knows what counts.

    Args:
      logits: [..., K].
      labels: [...], integers in [0, K).
      smoothing: share of the target that is spread evenly over all K classes.

    Returns:
      [...], float32.
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    classes = logits.shape[-1]
    # A product with one-hot rows, not a gather: it needs no communication when the batch is divided.
    targets = jax.nn.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
    return -jnp.sum(targets * log_probs, axis=-1)


def correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """1 where the largest logit is the label's, else 0: [..., K], [...] -> [...], float32."""
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)


def _one_each(label: jax.Array) -> jax.Array:
    return jnp.ones(len(label), jnp.float32)


def _of_pixels(values: Callable[[jax.Array, jax.Array], jax.Array]) -> Callable[..., jax.Array]:
    """The sum of the `values` at the pixels of each image that are not ignored."""
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
    """The objective of `config.task` with the loss `config.train.loss`; see `config.LOSSES`."""
    if task == "regression":
        return {"loss": _error({"l1": jnp.abs, "l2": jnp.square}[loss])}
    entropy = partial(cross_entropy, smoothing=smoothing)
    if task == "classification":
        return {"loss": Term(entropy, _one_each), "accuracy": Term(correct, _one_each)}
    # The mean over all pixels, ignored ones as zeros, is the default of learnable_polyphase_sampling.
    counts = _all_pixels if loss == "cross_entropy_of_all" else _counted
    return {"loss": Term(_of_pixels(entropy), counts), "accuracy": Term(_of_pixels(correct), _counted)}


CLASSIFICATION = make_objective("classification")

"""What is minimised, one value an example: averaging is left to the caller, who knows the mask."""

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
    """Cross-entropy with smoothed labels, in nats.

    Args:
      logits: [B, K].
      labels: [B], integers in [0, K).
      smoothing: share of the target that is spread evenly over all K classes.

    Returns:
      [B], float32.
    """
    log_probs = jax.nn.log_softmax(logits.astype(jnp.float32))
    classes = logits.shape[-1]
    # A product with one-hot rows, not a gather: it needs no communication when the batch is divided.
    targets = jax.nn.one_hot(labels, classes) * (1 - smoothing) + smoothing / classes
    return -jnp.sum(targets * log_probs, axis=-1)


def correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """1 where the largest logit is the label's, else 0: [B, K], [B] -> [B], float32."""
    return (jnp.argmax(logits, axis=-1) == labels).astype(jnp.float32)

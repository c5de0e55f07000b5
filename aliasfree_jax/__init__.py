"""Shift-invariant and alias-free convolutional networks in JAX and Flax."""

from aliasfree_jax.models import create_model, list_models

__version__ = "0.1.0"

__all__ = ["__version__", "create_model", "list_models"]

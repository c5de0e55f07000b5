"""Networks, assembled from layers by injecting their parts."""

from aliasfree_jax.models.registry import create_model, list_models

__all__ = ["create_model", "list_models"]

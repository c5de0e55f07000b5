"""Shift-invariant and alias-free convolutional networks in JAX and Flax."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aliasfree_jax.models import create_model, list_models

__version__ = "0.1.0"

__all__ = ["__version__", "create_model", "list_models"]


def __getattr__(name: str) -> Any:
    """Imports the networks when first asked for: processes that only decode images need no jax."""
    if name in ("create_model", "list_models"):
        from aliasfree_jax import models

        return getattr(models, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Shift-invariant and alias-free convolutional networks in JAX and Flax."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aliasfree_jax.models import list_models
    from aliasfree_jax.transform import Oversample, check, create_model, shift_invariant

__version__ = "0.1.0"

__all__ = ["Oversample", "__version__", "check", "create_model", "list_models", "shift_invariant"]


def __getattr__(name: str) -> Any:
    """Imports the networks when first asked for: processes that only decode images need no jax."""
    if name == "list_models":
        from aliasfree_jax import models

        return models.list_models
    if name in ("Oversample", "check", "create_model", "shift_invariant"):
        from aliasfree_jax import transform

        return getattr(transform, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

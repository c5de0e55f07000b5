"""Shift-invariant and alias-free convolutional networks in JAX and Flax."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aliasfree_jax.conversion import list_pretrained, load_pretrained
    from aliasfree_jax.evaluation.audit import audit
    from aliasfree_jax.models import list_models
    from aliasfree_jax.transform import Oversample, check, create_model, shift_invariant

__version__ = "0.1.0"

__all__ = [
    "Oversample",
    "__version__",
    "audit",
    "check",
    "create_model",
    "list_models",
    "list_pretrained",
    "load_pretrained",
    "shift_invariant",
]

_HOMES = {
    **dict.fromkeys(("list_pretrained", "load_pretrained"), "aliasfree_jax.conversion"),
    "list_models": "aliasfree_jax.models",
    **dict.fromkeys(("Oversample", "check", "create_model", "shift_invariant"), "aliasfree_jax.transform"),
    "audit": "aliasfree_jax.evaluation.audit",
}


def __getattr__(name: str) -> Any:
    """Imports the networks at their first use: processes that only decode images do not need jax."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

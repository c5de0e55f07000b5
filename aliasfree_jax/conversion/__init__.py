"""Converts weights of other code bases to this package's networks, and back. PyTorch is not needed."""

from aliasfree_jax.conversion.originals import from_original, to_original
from aliasfree_jax.conversion.pretrained import (
    is_checkpoint,
    list_pretrained,
    load_for_command,
    load_pretrained,
)

__all__ = [
    "from_original",
    "is_checkpoint",
    "list_pretrained",
    "load_for_command",
    "load_pretrained",
    "to_original",
]

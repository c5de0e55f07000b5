"""Weights from wherever people keep them to this package's networks, and back, without PyTorch."""

from aliasfree_jax.conversion.originals import from_original, to_original
from aliasfree_jax.conversion.pretrained import is_checkpoint, load_for_command, load_pretrained

__all__ = ["from_original", "is_checkpoint", "load_for_command", "load_pretrained", "to_original"]

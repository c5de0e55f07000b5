"""Published PyTorch weights to this package's networks, without PyTorch."""

from aliasfree_jax.conversion.originals import from_original, load_pth

__all__ = ["from_original", "load_pth"]

"""Published PyTorch weights to this package's networks and back, without PyTorch."""

from aliasfree_jax.conversion.originals import from_original, load_pth, load_weights, to_original

__all__ = ["from_original", "load_pth", "load_weights", "to_original"]

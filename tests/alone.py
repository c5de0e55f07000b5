"""Imported first in a process of its own: from then on jax, flax, numpy and what they need are all there is.

`allow("optax")` lets one more package through, with what it needs.
"""

import sys

from aliasfree_jax.errors import OPTIONAL, REQUIRED

OWN = {"jax", "numpy", "flax", "aliasfree_jax"}
# jax imports ml_dtypes and, for few functions, scipy; flax.linen imports absl.
THEIRS = {"ml_dtypes", "scipy", "absl"}


class Refusal:
    """Stands before all that finds modules."""

    refused = {*REQUIRED, *OPTIONAL, "tensorstore", "torch", "tensorflow"} - OWN - THEIRS
    allowed: set[str] | None = None  # None: all that is not refused

    def find_spec(self, name: str, *_: object) -> None:
        """Raises as Python does for what is not installed."""
        package = name.partition(".")[0]
        if package in self.refused or (self.allowed is not None and package not in self.allowed):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def allow(package: str) -> None:
    """Lets one of the refused through, and what is not named here."""
    _refusal.refused.remove(package)
    _refusal.allowed = None


_refusal = Refusal()
sys.meta_path.insert(0, _refusal)

import flax.linen  # noqa: E402, F401
import jax.numpy  # noqa: E402, F401
import numpy  # noqa: E402, F401

loaded = {name.partition(".")[0] for name in sys.modules}
_refusal.allowed = {*sys.stdlib_module_names, *loaded, *OWN, *THEIRS}

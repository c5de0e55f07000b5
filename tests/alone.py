"""Import this first in a new process: it allows only jax, flax, numpy and their dependencies.

`allow("optax")` also allows one more package with its dependencies.
"""

import sys

from aliasfree_jax.errors import OPTIONAL, REQUIRED

OWN = {"jax", "numpy", "flax", "aliasfree_jax"}
# jax imports ml_dtypes, and scipy for a few functions. flax.linen imports absl.
THEIRS = {"ml_dtypes", "scipy", "absl"}


class Refusal:
    """First entry of `sys.meta_path`; refuses packages."""

    refused = {*REQUIRED, *OPTIONAL, "tensorstore", "torch", "tensorflow"} - OWN - THEIRS
    allowed: set[str] | None = None  # None: all packages that are not refused

    def find_spec(self, name: str, *_: object) -> None:
        """Raises the same error as Python for packages that are not installed."""
        package = name.partition(".")[0]
        if package in self.refused or (self.allowed is not None and package not in self.allowed):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def allow(package: str) -> None:
    """Allows one of the refused packages, and all packages that are not listed here."""
    _refusal.refused.remove(package)
    _refusal.allowed = None


_refusal = Refusal()
sys.meta_path.insert(0, _refusal)

import flax.linen  # noqa: E402, F401
import jax.numpy  # noqa: E402, F401
import numpy  # noqa: E402, F401

loaded = {name.partition(".")[0] for name in sys.modules}
_refusal.allowed = {*sys.stdlib_module_names, *loaded, *OWN, *THEIRS}

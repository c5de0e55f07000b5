"""Reads a JAX function of images as a program, and makes it shift-invariant or checks its invariance."""

from aliasfree_jax.transform import control, cutting, loops, reductions, shapes, windows  # noqa: F401  rules
from aliasfree_jax.transform.building import create_model, what_is_left
from aliasfree_jax.transform.checking import Finding, Findings, check
from aliasfree_jax.transform.interpreter import TransformError
from aliasfree_jax.transform.invariant import shift_invariant
from aliasfree_jax.transform.nonlinear import Oversample
from aliasfree_jax.transform.program import StatefulError

__all__ = [
    "Finding",
    "Findings",
    "Oversample",
    "StatefulError",
    "TransformError",
    "check",
    "create_model",
    "shift_invariant",
    "what_is_left",
]

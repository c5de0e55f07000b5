"""Linen modules: parameters around the pure functions of `aliasfree_jax.ops`, one concept a file."""

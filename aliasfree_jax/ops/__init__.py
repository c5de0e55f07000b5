"""Pure functions on NHWC arrays: the mathematics of the package. Imports jax and numpy, never flax."""

"""Fixtures of the tests of layers."""

from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture
def x64() -> Iterator[None]:
    """Float64 within the test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def draw() -> Callable[..., jax.Array]:
    """Normal random numbers of a shape, the same in every run."""

    def normal(*shape: int, seed: int = 0, dtype: str | None = None) -> jax.Array:
        wanted = dtype or ("float64" if jax.config.jax_enable_x64 else "float32")
        return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), wanted)

    return normal

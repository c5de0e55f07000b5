"""Four virtual CPU devices for every test, set before anything imports jax; fixtures that all share."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4".strip()
)

ROOT = str(Path(__file__).resolve().parent.parent)
if ROOT not in sys.path:  # train.py, eval.py and configs/ are not part of the installed package
    sys.path.append(ROOT)

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402


@pytest.fixture(autouse=True)
def optimisation(request: pytest.FixtureRequest) -> Iterator[None]:
    """Most of the fast suite's time is XLA's optimisation, which few of its tests are about.

    The slow tests, and those marked `optimised` (compiled programs, memory, counted arithmetic, equal bits
    between programs), run what users run.
    """
    marks = [request.node.get_closest_marker(name) for name in ("slow", "optimised")]
    jax.config.update("jax_disable_most_optimizations", not any(marks))
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture
def x64() -> Iterator[None]:
    """Float64 within the test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def draw() -> Callable[..., jax.Array]:
    """Normal random numbers of a shape, the same in every run; float64 under x64."""

    def normal(*shape: int, seed: int = 0, dtype: str | None = None) -> jax.Array:
        wanted = dtype or ("float64" if jax.config.jax_enable_x64 else "float32")
        return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), wanted)

    return normal

"""Devices, compiler and cache of every test, set before anything runs on jax; fixtures that all share."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # train.py, eval.py and configs/ are not part of the installed package
    sys.path.append(str(ROOT))

os.environ["JAX_PLATFORMS"] = "cpu"
# What is compiled is kept for the next run and for the processes that tests start: two thirds of the time.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".jax_cache"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import jax  # noqa: E402
import jax.numpy as jnp  # noqa: E402
import jaxlib  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

from aliasfree_jax.startup import xla_flags  # noqa: E402


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--devices", type=int, default=4, help="virtual CPU devices; 1: all as users have it")


def pytest_configure(config: pytest.Config) -> None:
    """How XLA compiles, here and in processes that tests start; it reads its flags with the first program.

    Most of the tests' time is optimisation, which few of them are about. With one device they run what users
    run, with all of it.
    """
    flags = [f"--xla_force_host_platform_device_count={config.option.devices}"]
    if config.option.devices > 1:
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
        jax.config.update("jax_disable_most_optimizations", True)
        # Threads that compile parts of one program cost more work, and the tests take every core.
        flags.append("--xla_cpu_parallel_codegen_split_count=1")
        # These compile twice as slowly as the code generator before them, which jax 0.10 has too.
        if jaxlib.__version__.startswith("0.10."):
            flags.append("--xla_cpu_use_fusion_emitters=false")
    given = " ".join([os.environ.get("XLA_FLAGS", ""), *flags]).strip()
    os.environ["XLA_FLAGS"] = xla_flags(given, jaxlib.__version__)


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


def _floats() -> str:
    return "float64" if jax.config.jax_enable_x64 else "float32"


@pytest.fixture
def randomised() -> Callable[..., Any]:
    """Variables of a network with every parameter moved off its initial value.

    Zero biases and gains, and layer scales of 1e-6, would hide most of a network from its output.
    """

    def variables(network: Any, *image_shape: int) -> Any:
        images = jax.ShapeDtypeStruct(image_shape, _floats())
        shapes = jax.eval_shape(
            lambda: network.init(jax.random.key(0), jnp.zeros(images.shape, images.dtype))
        )
        rng = np.random.default_rng(0)

        def value(path: Any, leaf: Any) -> jax.Array:
            name = path[-1].key
            if name == "kernel":
                array = rng.standard_normal(leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
            elif name == "coefficients":
                array = np.array([0.02, 0.5, 0.3]) * (1 + 0.2 * rng.standard_normal(leaf.shape))
            else:
                centre = {"bias": 0.0, "mean": 0.0, "layer_scale": 0.3, "gain": 0.3}.get(name, 1.0)
                array = centre + 0.1 * rng.standard_normal(leaf.shape)
            return jnp.asarray(array, _floats())

        return jax.tree_util.tree_map_with_path(value, shapes)

    return variables

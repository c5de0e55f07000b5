"""Sets devices, compiler and cache of all tests before jax runs; defines shared fixtures."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT) not in sys.path:  # train.py, eval.py and configs/ are not part of the installed package
    sys.path.append(str(ROOT))

os.environ["JAX_PLATFORMS"] = "cpu"
# Compiled programs are stored for the next run and for the processes that tests start. This saves two thirds
# of the time.
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
    parser.addoption("--devices", type=int, default=4, help="virtual CPU devices; 1: compile as users do")


def pytest_configure(config: pytest.Config) -> None:
    """Sets how XLA compiles, here and in processes that tests start. XLA reads its flags at its first use.

    Optimisation would take most of the tests' time, and few tests need it. With one device, tests compile
    with all optimisation, like users.
    """
    flags = [f"--xla_force_host_platform_device_count={config.option.devices}"]
    if config.option.devices > 1:
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
        jax.config.update("jax_disable_most_optimizations", True)
        # Compiling parts of one program in parallel needs more work, and the tests already use all cores.
        flags.append("--xla_cpu_parallel_codegen_split_count=1")
        # Fusion emitters compile twice as slowly as the older code generator, which jax 0.10 still has.
        if jaxlib.__version__.startswith("0.10."):
            flags.append("--xla_cpu_use_fusion_emitters=false")
    given = " ".join([os.environ.get("XLA_FLAGS", ""), *flags]).strip()
    os.environ["XLA_FLAGS"] = xla_flags(given, jaxlib.__version__)


@pytest.fixture
def x64() -> Iterator[None]:
    """Enables float64 within the test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def draw() -> Callable[..., jax.Array]:
    """Returns a function that draws normal random numbers: equal in every run; float64 with `x64`."""

    def normal(*shape: int, seed: int = 0, dtype: str | None = None) -> jax.Array:
        wanted = dtype or ("float64" if jax.config.jax_enable_x64 else "float32")
        return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), wanted)

    return normal


def _floats() -> str:
    return "float64" if jax.config.jax_enable_x64 else "float32"


@pytest.fixture
def randomised() -> Callable[..., Any]:
    """Returns a function that makes random variables of a network.

    Initial values would hide most of a network from its output: biases and gains are zero, layer scales 1e-6.
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

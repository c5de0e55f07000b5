"""Fixtures of the tests of networks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest


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

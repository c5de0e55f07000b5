"""Logits of BlurPool's networks with options that no golden case has.

Weights and images follow a rule that needs no file: the fractional parts of a large sine.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.checkpoint import abstract_variables
from aliasfree_jax.conversion import from_original
from aliasfree_jax.conversion.antialiased_cnns import BLURPOOL, SOURCE, translate
from aliasfree_jax.models import create_model

# Architecture, side, options, first four logits and the sum of all ten.
ROWS = [
    ("alexnet", 128, {"pool_only": True}, (0.406415, -0.635862, -1.35948, 2.4384), -4.92766),
    ("alexnet", 128, {"relu_first": False}, (1.95733, 0.347604, 0.38383, -0.337104), 0.600748),
    ("resnet18", 64, {"filter_size": 1}, (-4.13972, 5.22528, -12.2878, 29.4755), 55.7082),
    ("resnet18", 65, {"filter_size": 5}, (-12.2312, 2.33172, -14.8791, 16.1851), 19.2808),
    ("resnet18", 96, {"filter_size": 7}, (-14.9452, 5.42869, -19.6341, 27.8184), 45.3972),
    (
        "densenet121",
        64,
        {"filter_size": 3, "pool_only": False},
        (1.51089, 3.50395, 2.12988, -2.18533),
        8.24485,
    ),
    ("mobilenet_v2", 64, {"filter_size": 5}, (-0.426536, 0.634796, -0.344441, -4.53727), -0.0135336),
]
QUICK = ("resnet18", "mobilenet_v2")


def fraction(size: int, number: int) -> np.ndarray:
    s = np.sin(12.9898 * np.arange(size) + 78.233 * number) * 43758.5453
    return s - np.floor(s)


def state_dict(shapes: dict[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    state = {}
    for number, key in enumerate(sorted(shapes)):
        shape = shapes[key]
        u = fraction(int(np.prod(shape)), number).reshape(shape)
        if len(shape) >= 2:
            state[key] = (2 * u - 1) * np.sqrt(6 / np.prod(shape[1:]))
        elif key.endswith(("running_var", "weight")):
            state[key] = 0.5 + u
        else:
            state[key] = 0.2 * (2 * u - 1)
    return state


def row_id(row: tuple) -> str:
    return f"{row[0]} {row[1]} {row[2]}"


@pytest.mark.parametrize(
    "row",
    [pytest.param(row, marks=() if row[0] in QUICK else pytest.mark.slow, id=row_id(row)) for row in ROWS],
)
def test_logits_of_the_original(row):
    model, side, options, first, total = row
    options = {"filter_size": 4, **options, "num_classes": 10}  # 4 is the original's default
    name, ours = translate(model, options)
    flat = jax.tree_util.tree_flatten_with_path(abstract_variables(create_model(name, **ours), side, 3))[0]
    here = {"/".join(p.key for p in path): leaf.shape for path, leaf in flat}
    shapes = {
        entry.key: entry.layout.there(np.broadcast_to(0.0, here[entry.path])).shape
        for entry in BLURPOOL.table(model, options)
        if entry.constant is None
    }
    module, variables = from_original(SOURCE, model, options, state_dict(shapes))
    images = (2 * fraction(3 * side**2, 1000) - 1).reshape(1, 3, side, side).transpose(0, 2, 3, 1)
    logits = np.asarray(jax.jit(module.apply)(variables, jnp.asarray(images, jnp.float32)))[0]
    # Float32 runs of the original differ by up to 2e-6 of the largest logit, and its table has 6 digits.
    scale = np.abs(logits).max()
    np.testing.assert_allclose(logits[:4], first, atol=1e-5 * scale)
    assert abs(logits.sum() - total) < 5e-5 * scale

"""Shared checks of each library's networks against golden cases."""

import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from aliasfree_jax.checkpoint import abstract_variables
from aliasfree_jax.conversion.converting import convert, export
from aliasfree_jax.conversion.description import described, differences
from aliasfree_jax.conversion.entries import CodeBase
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.models import create_model

# Relative to the largest output. In float32, the libraries differ by 1e-7 to 1e-6 from their float64 outputs,
# this package by at most 1.1e-6.
SINGLE = 1e-5
# Float64 rounding through up to 60 layers. Measured: 3e-15.
DOUBLE = 1e-10
# Feature maps are stored in float32, which rounds to 6e-8.
DOUBLE_OF_MAPS = 1e-6


# Outputs of the libraries for these tests, in the format of the golden cases.
OWN = pathlib.Path(__file__).parent / "data"


@functools.cache
def converted(base: CodeBase, name: str) -> tuple[golden.Case, Any, Any]:
    """A golden case with its network and variables."""
    case = golden.load(name, OWN) if (OWN / f"{name}.npz").exists() else golden.load(name)
    model, options = case.meta["model"], case.meta["options"]
    ours, ours_options = base.translate(model, options)
    module = create_model(ours, **ours_options)
    shapes = abstract_variables(module, case.inputs.shape[2], case.inputs.shape[1])
    return case, module, convert(case.state_dict, base.table(model, options), shapes)


def logits(case: golden.Case, module: Any, variables: Any, dtype: str = "float32") -> np.ndarray:
    """Outputs for the case's images. Feature maps are [N, C, H, W], as in the original."""
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables)
    images = jnp.asarray(case.inputs.transpose(0, 2, 3, 1), dtype)
    result = np.asarray(jax.jit(module.apply)(variables, images))
    assert result.dtype == dtype
    return result.transpose(0, 3, 1, 2) if result.ndim == 4 else result


def check_output(base: CodeBase, name: str, dtype: str) -> None:
    """Checks that the network's logits equal the case's output."""
    case, module, variables = converted(base, name)
    with jax.enable_x64(dtype == "float64"):
        result = logits(case, module, variables, dtype)
    double = DOUBLE if result.ndim == 2 else DOUBLE_OF_MAPS
    tolerance = double if dtype == "float64" else SINGLE
    assert result.shape == case.output.shape
    assert np.abs(result - case.output).max() < tolerance * np.abs(case.output).max()


def check_way_back(base: CodeBase, name: str) -> None:
    """Checks that export returns the same state dict and finds the same network."""
    case, module, variables = converted(base, name)
    state = export(variables, base.table(case.meta["model"], case.meta["options"]))
    assert set(state) == set(case.state_dict)
    for key, value in case.state_dict.items():
        assert state[key].dtype == value.dtype, key
        np.testing.assert_array_equal(state[key], value, err_msg=key)
    ours = described(module)
    found = [base.translate(*candidate) for candidate in base.candidates(ours)]
    assert any(not differences(ours, described(create_model(name, **options))) for name, options in found)


def unused_keys(base: CodeBase, name: str, least: float = 1e-4) -> Iterator[str]:
    """Keys of a case whose change alters the logits by less than this."""
    case, module, variables = converted(base, name)
    flat = {path: jnp.asarray(leaf) for path, leaf in traverse_util.flatten_dict(variables, sep="/").items()}
    images = jnp.asarray(case.inputs[:1].transpose(0, 2, 3, 1))

    @jax.jit
    def apply(flat: dict[str, jax.Array]) -> jax.Array:
        return module.apply(traverse_util.unflatten_dict(flat, sep="/"), images)

    before = apply(flat)
    random = np.random.default_rng(0)
    for entry in base.table(case.meta["model"], case.meta["options"]):
        if entry.constant is None:
            # Increased, so that variances stay positive.
            noise = random.uniform(0.1, 1, flat[entry.path].shape).astype(np.float32)
            after = apply({**flat, entry.path: flat[entry.path] + noise})
            # Rounding alone changes logits of order 1 by 1e-6.
            if not np.abs(after - before).max() > least:
                yield entry.key


def named(base: CodeBase, module: Any) -> tuple[str, dict[str, Any]]:
    """Original name and options of one of our networks: those of the first equal candidate."""
    ours = described(module)
    for model, options in base.candidates(ours):
        name, translated = base.translate(model, options)
        if not differences(ours, described(create_model(name, **translated))):
            return model, options
    raise AssertionError(f"no candidate of {base.source} is {ours}")


def check_strictness(base: CodeBase, name: str) -> None:
    """Checks that errors name a missing key and an extra key."""
    case, module, _ = converted(base, name)
    table = base.table(case.meta["model"], case.meta["options"])
    shapes = abstract_variables(module, case.inputs.shape[-1], case.inputs.shape[1])
    missing = next(entry.key for entry in table[len(table) // 2 :] if entry.constant is None)
    state = {key: value for key, value in case.state_dict.items() if key != missing}
    with pytest.raises(ConversionError) as error:
        convert({**state, "extra.weight": np.zeros(3)}, table, shapes)
    assert f"keys that are missing:\n    {missing} " in str(error.value)
    assert "keys that the network does not have:\n    extra.weight [3]" in str(error.value)

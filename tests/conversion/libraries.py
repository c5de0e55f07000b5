"""What tests of every library's dialect check with its golden cases."""

import functools
from collections.abc import Iterator
from typing import Any

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from aliasfree_jax.checkpoint import abstract_variables
from aliasfree_jax.conversion.description import described, differences
from aliasfree_jax.conversion.entries import CodeBase, convert, export
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.models import create_model

# Relative to the largest output. The libraries in float32 differ by 1e-7 to 1e-6 from their float64 output;
# ours by at most 1.1e-6.
SINGLE = 1e-5
# Float64 rounding through up to 60 layers; measured 3e-15.
DOUBLE = 1e-10


@functools.cache
def converted(base: CodeBase, name: str) -> tuple[golden.Case, Any, Any]:
    """A golden case with its network and variables."""
    case = golden.load(name)
    model, options = case.meta["model"], case.meta["options"]
    ours, ours_options = base.translate(model, options)
    module = create_model(ours, **ours_options)
    shapes = abstract_variables(module, case.inputs.shape[-1], case.inputs.shape[1])
    return case, module, convert(case.state_dict, base.table(model, options), shapes)


def logits(case: golden.Case, module: Any, variables: Any, dtype: str = "float32") -> np.ndarray:
    """Of the case's images."""
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables)
    images = jnp.asarray(case.inputs.transpose(0, 2, 3, 1), dtype)
    result = jax.jit(module.apply)(variables, images)
    assert result.dtype == dtype
    return np.asarray(result)


def check_output(base: CodeBase, name: str, dtype: str) -> None:
    """The logits of a case are its output."""
    case, module, variables = converted(base, name)
    with jax.enable_x64(dtype == "float64"):
        result = logits(case, module, variables, dtype)
    largest = np.abs(case.output).max()
    assert np.abs(result - case.output).max() < (DOUBLE if dtype == "float64" else SINGLE) * largest


def check_way_back(base: CodeBase, name: str) -> None:
    """The state dict comes back bit for bit, and the network is found again."""
    case, module, variables = converted(base, name)
    state = export(variables, base.table(case.meta["model"], case.meta["options"]))
    assert set(state) == set(case.state_dict)
    for key, value in case.state_dict.items():
        assert state[key].dtype == value.dtype, key
        np.testing.assert_array_equal(state[key], value, err_msg=key)
    ours = described(module)
    found = [base.translate(*candidate) for candidate in base.candidates(ours)]
    assert any(not differences(ours, described(create_model(name, **options))) for name, options in found)


def unused_keys(base: CodeBase, name: str) -> Iterator[str]:
    """Keys of a case that can be changed, as a whole, without changing the logits."""
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
            # Upwards, for variances stay positive.
            noise = random.uniform(0.1, 1, flat[entry.path].shape).astype(np.float32)
            after = apply({**flat, entry.path: flat[entry.path] + noise})
            # Rounding alone changes logits of order 1 by 1e-6.
            if not np.abs(after - before).max() > 1e-4:
                yield entry.key


def check_strictness(base: CodeBase, name: str) -> None:
    """A missing key and one too many are named."""
    case, module, _ = converted(base, name)
    table = base.table(case.meta["model"], case.meta["options"])
    shapes = abstract_variables(module, case.inputs.shape[-1], case.inputs.shape[1])
    missing = next(entry.key for entry in table[len(table) // 2 :] if entry.constant is None)
    state = {key: value for key, value in case.state_dict.items() if key != missing}
    with pytest.raises(ConversionError) as error:
        convert({**state, "extra.weight": np.zeros(3)}, table, shapes)
    assert f"source keys that are missing:\n    {missing} " in str(error.value)
    assert "source keys without a place:\n    extra.weight [3]" in str(error.value)

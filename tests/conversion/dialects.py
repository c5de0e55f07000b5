"""What tests of other libraries' dialects have in common: golden cases against one code base."""

import dataclasses
import functools
from typing import Any

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.checkpoint import abstract_variables
from aliasfree_jax.conversion.entries import CodeBase, Entry, convert, export
from aliasfree_jax.errors import ConversionError
from aliasfree_jax.models import create_model

# Relative to the largest logit. PyTorch itself in float32 differs by 1e-7 to 1e-6 from its float64 output.
SINGLE = 1e-5
# Float64 rounding through up to 53 layers; measured up to 3e-15.
DOUBLE = 1e-10
UNOPTIMISED = {"xla_backend_optimization_level": 0}


@dataclasses.dataclass
class Loaded:
    """A golden case, and what a code base makes of it."""

    case: golden.Case
    module: Any
    table: list[Entry]
    variables: Any

    def relative_error(self, dtype: str, variables: Any = None) -> float:
        """The largest difference from the original's output, relative to the largest logit."""
        apply = jax.jit(self.module.apply, compiler_options=UNOPTIMISED)
        variables = self.variables if variables is None else variables
        cast = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables)
        logits = apply(cast, jnp.asarray(self.case.inputs.transpose(0, 2, 3, 1), dtype))
        assert logits.dtype == dtype and logits.shape == self.case.output.shape
        return float(np.abs(np.asarray(logits) - self.case.output).max() / np.abs(self.case.output).max())


@functools.cache
def loaded(base: CodeBase, name: str) -> Loaded:
    """The case `name` in our words."""
    case = golden.load(name)
    model, options = case.meta["model"], case.meta["options"]
    name, ours = base.translate(model, options)
    module, table = create_model(name, **ours), base.table(model, options)
    shapes = abstract_variables(module, case.inputs.shape[-1], case.inputs.shape[1])
    return Loaded(case, module, table, convert(case.state_dict, table, shapes))


def check_way_back(found: Loaded) -> None:
    """The way back gives the same file: every key with its shape, bit for bit."""
    state = export(found.variables, found.table)
    assert set(state) == set(found.case.state_dict)
    for key, value in found.case.state_dict.items():
        assert state[key].dtype == value.dtype and state[key].shape == value.shape, key
        np.testing.assert_array_equal(state[key], value, err_msg=key)


def check_strict(found: Loaded) -> None:
    """One missing and one extra key are refused by name."""
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), found.variables)
    state = found.case.state_dict
    key = next(entry.key for entry in reversed(found.table) if entry.constant is None)
    with pytest.raises(ConversionError, match=f"missing:\\n    {key}"):
        convert({k: v for k, v in state.items() if k != key}, found.table, shapes)
    with pytest.raises(ConversionError, match=r"without a place:\n    extra.weight \[2\]"):
        convert({**state, "extra.weight": np.zeros(2)}, found.table, shapes)


def check_every_key(found: Loaded) -> None:
    """Noise on the whole of any one key changes the output: no key is without use."""
    keys = [entry for entry in found.table if entry.constant is None]
    leaves = jax.tree.map(jnp.asarray, found.variables)
    images = jnp.asarray(found.case.inputs.transpose(0, 2, 3, 1))

    @functools.partial(jax.jit, compiler_options=UNOPTIMISED)
    def slopes(variables: Any) -> Any:
        """How fast some mean of the logits changes with every value of every key."""
        weights = jnp.arange(1.0, found.case.output.size + 1).reshape(found.case.output.shape)
        return jax.grad(lambda v: (weights * found.module.apply(v, images)).sum())(variables)

    flat = {
        "/".join(part.key for part in path): leaf
        for path, leaf in jax.tree_util.tree_flatten_with_path(slopes(leaves))[0]
    }
    unused = [entry.key for entry in keys if not np.abs(flat[entry.path]).max() > 0]
    assert not unused

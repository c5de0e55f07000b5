"""What tests of other libraries' dialects have in common: golden cases against one code base."""

import dataclasses
import functools
from typing import Any

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.checkpoint import abstract_variables, named_leaves
from aliasfree_jax.conversion.description import described
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

    def relative_error(self, dtype: str) -> float:
        """The largest difference from the original's output, relative to the largest logit."""
        variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), self.variables)
        images, expected = jnp.asarray(self.case.inputs.transpose(0, 2, 3, 1), dtype), self.case.output
        logits = jax.jit(self.module.apply, compiler_options=UNOPTIMISED)(variables, images)
        assert logits.dtype == dtype and logits.shape == expected.shape
        return float(np.abs(np.asarray(logits) - expected).max() / np.abs(expected).max())


@functools.cache
def loaded(base: CodeBase, name: str, folder: Any = None) -> Loaded:
    """The case `name` in our words: of the golden cases, or of another folder."""
    case = golden.load(name) if folder is None else golden.load(name, folder)
    model, options = case.meta["model"], case.meta["options"]
    ours, translated = base.translate(model, options)
    module, table = create_model(ours, **translated), base.table(model, options)
    shapes = abstract_variables(module, case.inputs.shape[2], case.inputs.shape[1])
    return Loaded(case, module, table, convert(case.state_dict, table, shapes))


def check_way_back(found: Loaded) -> None:
    """The way back gives the same file: every key with its shape, bit for bit."""
    state = export(found.variables, found.table)
    assert set(state) == set(found.case.state_dict)
    for key, value in found.case.state_dict.items():
        assert state[key].dtype == value.dtype and state[key].shape == value.shape, key
        np.testing.assert_array_equal(state[key], value, err_msg=key)


def named(base: CodeBase, module: Any, **given: Any) -> tuple[str, dict[str, Any]]:
    """Name and options there of one of our networks: those of the first candidate that is the same."""
    ours = described(module)
    for model, options in base.candidates(ours):
        try:
            name, translated = base.translate(model, {**given, **options})
        except ConversionError:
            continue
        if described(create_model(name, **translated)) == ours:
            return model, options
    raise AssertionError(f"no candidate of {base.source} is {ours}")


def check_strict(found: Loaded) -> None:
    """One missing and one extra key are refused by name."""
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), found.variables)
    state = found.case.state_dict
    for entry in (entry for entry in found.table[-12::4] if entry.constant is None):
        with pytest.raises(ConversionError, match=f"that are missing:\n    {entry.key} "):
            convert({k: v for k, v in state.items() if k != entry.key}, found.table, shapes)
    with pytest.raises(ConversionError, match=r"without a place:\n    extra.weight \[2\]"):
        convert({**state, "extra.weight": np.zeros(2)}, found.table, shapes)


def check_every_key(found: Loaded) -> None:
    """The output has a slope in the values of every key: none is without use."""
    images = jnp.asarray(found.case.inputs.transpose(0, 2, 3, 1))
    weights = jnp.arange(1.0, found.case.output.size + 1).reshape(found.case.output.shape)

    @functools.partial(jax.jit, compiler_options=UNOPTIMISED)
    def slopes(variables: Any) -> Any:
        return jax.grad(lambda v: (weights * found.module.apply(v, images)).sum())(variables)

    for path, slope in named_leaves(slopes(found.variables)).items():
        assert np.abs(slope).max() > 0, path
    assert {entry.path for entry in found.table if entry.constant is None} == set(
        named_leaves(found.variables)
    )

"""Whole networks against the original code base, with weights and images that follow `rule.py`."""

import functools
import hashlib
import json
import pathlib

import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.conversion import from_original

HERE = pathlib.Path(golden.__file__).resolve().parent
# The collection these cases were copied from, where this repository lies beside it.
SHARED = HERE.parent.parent.parent / "shared" / "golden"

# Relative to the largest logit. The original itself in float32 differs by 1e-7 to 1e-6 from its
# float64 output; ours by at most 8e-7.
SINGLE = 1e-5
# Float64 rounding through up to 25 layers; measured 2e-15.
DOUBLE = 1e-10

# LLVM's optimisation takes half of the compilation time and changes no result beyond rounding.
UNOPTIMISED = {"xla_backend_optimization_level": 0}

NAMES = golden.cases()
MINI = [name for name in NAMES if "mini" in name]
LARGE = {"afc_baseline_tiny_224", "afc_small_128", "convnext_aps_tiny_224", "convnext_tiny_224"}


@functools.cache
def converted(name: str):
    case = golden.load(name)
    module, variables = from_original(
        case.meta["source"], case.meta["model"], case.meta["options"], case.state_dict
    )
    return case, module, variables


def relative_error(name: str, dtype: str, compiler_options: dict | None = None) -> float:
    case, module, variables = converted(name)
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables)
    images = jnp.asarray(case.inputs.transpose(0, 2, 3, 1), dtype)
    logits = jax.jit(module.apply, compiler_options=compiler_options)(variables, images)
    assert logits.dtype == dtype and logits.shape == case.output.shape
    return float(np.abs(np.asarray(logits) - case.output).max() / np.abs(case.output).max())


def test_the_cases_are_those_of_the_four_convnexts():
    assert len(NAMES) == 16 and len(MINI) == 11
    metas = [json.loads(str(np.load(HERE / "cases" / f"{name}.npz")["meta"])) for name in NAMES]
    assert {meta["source"] for meta in metas} == {"alias_free_convnets"}
    assert {meta["model"] for meta in metas} == {"convnext", "convnext_aps", "convnext_afc"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in LARGE else name for name in NAMES]
)
def test_float32(name):
    assert relative_error(name, "float32", UNOPTIMISED if name in MINI else None) < SINGLE


@pytest.mark.parametrize("name", MINI)
def test_float64(name):
    with jax.enable_x64(True):
        assert relative_error(name, "float64", UNOPTIMISED) < DOUBLE


def test_the_comparison_can_fail():
    case, module, variables = converted("afc_mini_128")
    variables = jax.tree.map(jnp.asarray, variables)
    variables["params"]["stage2_block1"]["mlp"]["activation"]["coefficients"] *= 1.001
    logits = jax.jit(module.apply, compiler_options=UNOPTIMISED)(variables, case.inputs.transpose(0, 2, 3, 1))
    assert np.abs(np.asarray(logits) - case.output).max() > 2 * SINGLE * np.abs(case.output).max()


@pytest.mark.skipif(not SHARED.is_dir(), reason="only where ../shared/golden lies beside the repository")
def test_the_copies_are_unchanged():
    ours = sorted(
        path for path in HERE.rglob("*") if path.suffix == ".npz" or path.name in ("golden.py", "rule.py")
    )
    for path in ours:
        original = SHARED / path.relative_to(HERE)
        digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (path, original)]
        assert digests[0] == digests[1], path
    patterns = ("afc_*.npz", "convnext*.npz", "ops.npz")
    theirs = {path.name for pattern in patterns for path in (SHARED / "cases").glob(pattern)}
    assert theirs == {path.name for path in ours if path.suffix == ".npz"}

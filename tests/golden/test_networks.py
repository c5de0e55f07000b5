"""Whole networks compared with the original code bases, with weights and images by `rule.py`."""

import collections
import functools
import hashlib
import json
import pathlib

import described
import golden
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from way_back import check_way_back

from aliasfree_jax.conversion import from_original

HERE = pathlib.Path(golden.__file__).resolve().parent
# The collection from which these cases were copied, if it is next to this repository.
SHARED = HERE.parent.parent.parent / "shared" / "golden"

# Relative to the largest logit. In float32, the original differs by 1e-7 to 1e-6 from its float64 output.
# This package differs by at most 8e-7.
SINGLE = 1e-5
# float64 rounding in up to 25 layers; 2e-15 was measured.
DOUBLE = 1e-10

NAMES = described.originals()
MINI = [name for name in NAMES if "mini" in name]
# A small case of each kind of sampler, stem and key layout. The others differ in size or filter taps.
KINDS = {
    "afc_mini_128",
    "afc_baseline_mini_128",
    "convnext_aps_mini_filt3_128",
    "convnext_mini_64",
    "aps_resnet18_aps2_l2_64",
    "aps_resnet18_lpf3_64",
    "blurpool_mobilenet_v2_lpf4_64",
    "blurpool_resnet18_lpf3_64",
    "blurpool_resnet18_lpf4_64_pool_onlyFalse",
    "cifar_resnet18_aps_3_zeros",
    "cifar_resnet20_1_circular",
    "cifar_resnet20_aps_1_circular",
    "cifar_resnet20_lpf_3_circular",
    "lps_basic_32",
    "lps_resnet18_ddac3_64",
    "lps_resnet18_max2norm_64",
    "lps_resnet18_noswap_64",
}
# Cases that are also compiled with default options, as users do. One of them has full size.
AS_USERS = KINDS | {"afc_tiny_224"}


@functools.cache
def converted(name: str):
    case = golden.load(name)
    module, variables = from_original(
        case.meta["source"], case.meta["model"], case.meta["options"], case.state_dict
    )
    return case, module, variables


def relative_error(name: str, dtype: str) -> float:
    case, module, variables = converted(name)
    variables = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), variables)
    images = jnp.asarray(case.inputs.transpose(0, 2, 3, 1), dtype)
    logits = jax.jit(module.apply)(variables, images)
    if case.meta["source"] == "learnable_polyphase_sampling":
        logits = jax.nn.log_softmax(logits)  # the original networks end with a log-softmax
    assert logits.dtype == dtype and logits.shape == case.output.shape
    return float(np.abs(np.asarray(logits) - case.output).max() / np.abs(case.output).max())


def test_the_cases_are_those_of_all_classifiers():
    assert len(MINI) == 17 and AS_USERS < set(NAMES)
    metas = [json.loads(str(np.load(HERE / "cases" / f"{name}.npz")["meta"])) for name in NAMES]
    assert collections.Counter(meta["source"] for meta in metas) == {
        "alias_free_convnets": 16,
        "antialiased-cnns": 14,
        "truly_shift_invariant_cnns": 11,
        "truly_shift_invariant_cnns/cifar10": 9,
        "learnable_polyphase_sampling": 9,
        "alias_free_vit": 7,
    }


# The scores of its last choice of a phase differ by 8e-8: a tie in float32 that rounding decides.
TIED = "aps_resnet18_aps3_l2_64"


def marks(name: str) -> list[pytest.MarkDecorator]:
    slow, users = name not in KINDS and name not in MINI, name in AS_USERS
    return [pytest.mark.slow] * slow + [pytest.mark.as_users] * users


@pytest.mark.parametrize("name", [pytest.param(n, marks=marks(n)) for n in NAMES if n != TIED])
def test_float32_and_the_way_back(name):
    assert relative_error(name, "float32") < SINGLE
    check_way_back(
        *converted(name)
    )  # here, because making the weights again takes as long as the rest of the test


@pytest.mark.parametrize("name", [*MINI, pytest.param(TIED, marks=pytest.mark.slow)])
def test_float64_and_the_way_back(name):
    with jax.enable_x64(True):
        assert relative_error(name, "float64") < DOUBLE
    check_way_back(*converted(name))


def test_the_comparison_can_fail():
    case, module, variables = converted("afc_mini_128")
    variables = jax.tree.map(jnp.asarray, variables)
    variables["params"]["stage2_block1"]["mlp"]["activation"]["coefficients"] *= 1.001
    logits = jax.jit(module.apply)(variables, case.inputs.transpose(0, 2, 3, 1))
    assert np.abs(np.asarray(logits) - case.output).max() > 2 * SINGLE * np.abs(case.output).max()


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/golden next to the repository")
def test_the_copies_are_unchanged():
    ours = sorted(
        path for path in HERE.rglob("*") if path.suffix == ".npz" or path.name in ("golden.py", "rule.py")
    )
    for path in ours:
        original = SHARED / path.relative_to(HERE)
        digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (path, original)]
        assert digests[0] == digests[1], path
    later = described.LIBRARIES  # some weights of other libraries are not copied
    theirs = {path.name for path in (SHARED / "cases").glob("*.npz") if not path.name.startswith(later)}
    assert theirs <= {path.name for path in ours if path.suffix == ".npz"}

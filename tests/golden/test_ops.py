"""Layers compared with the original code bases: every case of ops.npz.

The outputs of the cases are float64. Inputs and parameters follow `rule.py`.
"""

import collections
import contextlib
import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from golden import load_ops
from rule import make_array

from aliasfree_jax.conversion.converting import convert
from aliasfree_jax.conversion.learnable_polyphase_sampling import pool_entries, sampler
from aliasfree_jax.layers.adaptive import AdaptiveBlurPool, AdaptivePolyphase
from aliasfree_jax.layers.normalization import ChannelNorm, SpatialNorm
from aliasfree_jax.layers.sampling import BlurPool
from aliasfree_jax.layers.upsampling import PolyphaseUpsample
from aliasfree_jax.models.parts import resolve
from aliasfree_jax.ops.activation import lowpass_polynomial, polynomial, up_polynomial_down
from aliasfree_jax.ops.blurring import blur
from aliasfree_jax.ops.polyphase import row_order
from aliasfree_jax.ops.resample import ideal_lowpass, ideal_resample, ideal_upsample
from aliasfree_jax.ops.shift import fractional_shift

# Both sides compute in float64. The originals' filter masks and blur taps are float32 numbers, but their
# values (0, 1/2, 1 and binomials over powers of two) are exact in float32.
TOLERANCE = 1e-12

CASES = load_ops()

# Number of cases of each kind, so that a test notices missing cases.
USED = {
    "ideal_lowpass": 33,
    "ideal_lowpass_fixed": 11,
    "ideal_upsample": 18,
    "subpixel_shift": 6,
    "up_poly_per_channel": 4,
    "lpf_poly_per_channel": 8,
    "poly_per_channel": 1,
    "poly_scalar_degree3_quirk": 1,
    "layer_norm_CHW2": 1,
    "layer_norm_C": 1,
    "blurpool_adobe": 126,
    "blurpool_afc": 126,
    "apspool": 48,
    "aps_down_up": 6,
    "lpd": 15,
    "ddac": 2,
    "lowpass_lps": 5,
}


def kind(name: str) -> str:
    return name.split("/")[0]


def names(*kinds: str) -> list[str]:
    assert set(kinds) <= set(USED)
    return [name for name in CASES if kind(name) in kinds]


@pytest.fixture(autouse=True)
def _x64():
    with jax.enable_x64(True):
        yield


def arrays(name: str) -> tuple[dict, jax.Array, np.ndarray]:
    """Returns the parameters of a case, its input and its expected output, both NHWC in float64."""
    meta, x, expected = CASES[name]
    return meta, jnp.asarray(x.transpose(0, 2, 3, 1), jnp.float64), expected.transpose(0, 2, 3, 1)


def parameters(prefix: str = "") -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns the coefficients [3, 3] and both scales [1] of a polynomial of three channels."""
    rows = make_array(f"{prefix}coef", (3, 3, 1, 1))[:, :, 0, 0]
    scales = (make_array(f"{prefix}{name}", (1,)) for name in ("in_scale", "out_scale"))
    return tuple(jnp.asarray(value, jnp.float64) for value in (rows, *scales))


def check(actual: jax.Array, expected: np.ndarray) -> None:
    assert actual.dtype == jnp.float64
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE)


def test_no_case_is_skipped():
    assert collections.Counter(map(kind, CASES)) == USED
    tests = [value for name, value in globals().items() if name.startswith("test_")]
    marks = [mark for test in tests for mark in getattr(test, "pytestmark", []) if mark.name == "parametrize"]
    tested = [name for mark in marks for name in mark.args[1]]
    assert sorted(tested) == sorted(name for name in CASES if kind(name) in USED)


@pytest.mark.parametrize("name", names("ideal_lowpass"))
def test_lowpass(name):
    meta, x, expected = arrays(name)
    check(ideal_lowpass(x, meta["cutoff"]), expected)


@pytest.mark.parametrize("name", names("ideal_lowpass_fixed"))
def test_lowpass_of_fixed_size(name):
    meta, x, expected = arrays(name)
    check(ideal_lowpass(x, band=meta["fixed_size"]), expected)


@pytest.mark.parametrize("name", names("ideal_upsample"))
def test_upsample(name):
    meta, x, expected = arrays(name)
    up, side = meta["up"], meta["up"] * x.shape[2]
    if side % 2 == 0:
        check(ideal_upsample(x, up, masks="original"), expected)
    else:
        # The original's inverse transform assumes an even width. It spreads the spectrum of 15 columns over
        # 14 and divides by 14. This equals our function at 14 positions, up to a factor. `ideal_upsample`
        # keeps all 15 columns.
        assert expected.shape[2] == side - 1
        check(ideal_resample(x, (side, side - 1)) * (side / (side - 1)), expected)
        check(ideal_upsample(x, up, masks="original"), np.asarray(ideal_resample(x, (side, side))))


@pytest.mark.parametrize("name", names("subpixel_shift"))
def test_shift(name):
    meta, x, expected = arrays(name)
    up, steps = meta["up"], (meta["shift_x"], meta["shift_y"])
    fine = ideal_upsample(x, up, masks="original")
    check(jnp.roll(fine, (-steps[0], -steps[1]), axis=(1, 2))[:, ::up, ::up], expected)
    if (x.shape[1], up) != (14, 3):  # here the original's interpolation is wrong
        check(fractional_shift(x, (-steps[0] / up, -steps[1] / up)), expected)
    else:
        assert np.abs(fractional_shift(x, (-steps[0] / up, -steps[1] / up)) - expected).max() > 1e-2


@pytest.mark.parametrize("name", names("up_poly_per_channel"))
def test_alias_free_polynomial(name):
    _, x, expected = arrays(name)
    check(up_polynomial_down(x, *parameters("pact.")), expected)


@pytest.mark.parametrize("name", names("lpf_poly_per_channel"))
def test_lowpass_polynomial(name):
    meta, x, expected = arrays(name)
    lowpassed = ideal_lowpass(x, meta["cutoff"])
    check(lowpass_polynomial(x, lowpassed, *parameters()), expected)


@pytest.mark.parametrize("name", names("poly_per_channel", "poly_scalar_degree3_quirk"))
def test_polynomial(name):
    meta, x, expected = arrays(name)
    if "coef" in meta:
        stored = jnp.asarray(np.float32(meta["coef"]), jnp.float64)
        used = stored[:-1]  # the original never uses the highest coefficient
        check(polynomial(x, used, meta["in_scale"], meta["out_scale"]), expected)
    else:
        check(polynomial(x, *parameters()), expected)


@pytest.mark.parametrize("name", names("layer_norm_CHW2", "layer_norm_C"))
def test_norm(name):
    _, x, expected = arrays(name)
    layer = SpatialNorm() if name.endswith("CHW2") else ChannelNorm()
    scale_and_bias = {"scale": make_array("weight", (6,)), "bias": make_array("bias", (6,))}
    params = {key: jnp.asarray(value, jnp.float64) for key, value in scale_and_bias.items()}
    check(layer.apply({"params": params}, x), expected)


@pytest.mark.parametrize("name", names("blurpool_adobe", "blurpool_afc"))
def test_blur(name):
    meta, x, expected = arrays(name)
    check(BLUR(x, meta["filt_size"], meta["stride"], meta["pad"].upper()), expected)


# LLVM's optimisation takes half of the compilation time and changes results only by rounding.
UNOPTIMISED = {"xla_backend_optimization_level": 0}
# The cases of both code bases share the compiled function.
BLUR = jax.jit(blur, static_argnums=(1, 2, 3), compiler_options=UNOPTIMISED)


def aps(size: int, criterion: str = "l2") -> AdaptivePolyphase:
    return AdaptivePolyphase(criterion=criterion, inner=functools.partial(BlurPool, kernel_size=size))


@pytest.mark.parametrize("name", names("apspool"))
def test_adaptive_polyphase_pool(name):
    meta, x, expected = arrays(name)
    sampler = aps(meta["filt_size"], meta["criterion"])
    odd = x.shape[1] % 2 == 1
    with pytest.warns(UserWarning, match="9 x 9 is sampled by 2") if odd else contextlib.nullcontext():
        y, phases = jax.jit(
            lambda x: sampler.apply({}, x, method="with_phase"), compiler_options=UNOPTIMISED
        )(x)
    assert phases[0].tolist() == meta["indices"]
    check(y, expected)


@pytest.mark.parametrize("name", names("aps_down_up"))
def test_adaptive_polyphase_down_and_up(name):
    meta, x, expected = arrays(name)
    y, phase = aps(meta["filt_size"]).apply({}, x, method="with_phase")
    if name.endswith("up"):
        inner = functools.partial(BlurPool, kernel_size=meta["filt_size"])
        y = PolyphaseUpsample(inner=inner, gain=1.0).apply({}, y, phase)
    check(y, expected)


def learned(meta: dict) -> tuple[nn.Module, dict]:
    """Returns the sampler of an "lpd" case and its variables.

    Both branches of an attention network have the same scale.
    """
    options = {"logits": meta["logits_model"]}
    part = {**sampler(options), "evaluation": "convex" if meta["mode"] == "test_convex" else "hard"}
    module = resolve("sampler", part)()
    state = {key: make_array(key, shape) for key, shape in meta["state"]}
    entries = pool_entries(options, selects=True, filters=True)("", "sampler", 4)
    entries = [dataclasses.replace(entry, key=entry.key.removeprefix(".")) for entry in entries]
    shapes = jax.eval_shape(module.init, jax.random.key(0), jnp.zeros((1, 8, 8, 4)))
    nested = {collection: {"sampler": tree} for collection, tree in shapes.items()}
    variables = convert(state, entries, nested)
    wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables)
    return module, {collection: tree["sampler"] for collection, tree in wide.items()}


@pytest.mark.parametrize("name", names("lpd"))
def test_learnable_polyphase_down_and_up(name):
    meta, x, expected = arrays(name)
    up = name.endswith("/lpu")
    down = CASES[meta["input"]][0] if up else meta
    module, variables = learned(down)
    y, (phase,) = module.apply(variables, x, method="with_phase")
    stored = np.asarray(down["logits_or_prob"])
    if down["mode"] == "test":
        assert phase.tolist() == row_order()[stored.argmax(1)].tolist()
    else:
        check(phase[:, row_order()], stored)
    check(PolyphaseUpsample(gain=1.0).apply({}, y, (phase,)) if up else y, expected)


@pytest.mark.parametrize("name", names("ddac"))
def test_content_adaptive_blur(name):
    meta, x, expected = arrays(name)
    module = AdaptiveBlurPool(strides=1, kernel_size=3, groups=meta["group"])
    state = {f"_antialias_layer.{key}": make_array(key, shape) for key, shape in meta["state"]}
    options = {"pool": "max_2_norm", "antialias": ["DDAC", 3, "circular", meta["group"]]}
    entries = pool_entries(options, selects=False, filters=True)("", "", 4)
    entries = [
        dataclasses.replace(e, key=e.key.removeprefix("."), path=e.path.replace("//inner0", ""))
        for e in entries
    ]
    variables = convert(state, entries, jax.eval_shape(module.init, jax.random.key(0), x))
    check(module.apply(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), variables), x), expected)


@pytest.mark.parametrize("name", names("lowpass_lps"))
def test_lowpass_filter_of_learnable_polyphase_sampling(name):
    meta, x, expected = arrays(name)
    check(BLUR(x, meta["filter_size"], 1, "CIRCULAR"), expected)

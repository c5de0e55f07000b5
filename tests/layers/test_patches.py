"""Stems, local interaction and positions of vision transformers."""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers import (
    ActivatedPatchStem,
    AdaptivePolyphase,
    BandlimitedGate,
    BatchNorm,
    ChannelNorm,
    Conv,
    FirstActivatedPatchStem,
    FourierPositions,
    IdealDownsample,
    LearnedPolyphase,
    LocalPatchInteraction,
    LowpassGate,
    Mlp,
    PatchStem,
    Subsample,
    UpGate,
    UpGelu,
    UpPolynomial,
)
from aliasfree_jax.layers.activation import Gelu, Identity
from aliasfree_jax.ops.choices import CHOICES, assume
from aliasfree_jax.ops.resample import ideal_downsample, ideal_resample, remove_nyquist
from aliasfree_jax.ops.shift import fractional_shift

# Sums of up to some hundred products in float64.
ROUNDING = 1e-12
GATE = functools.partial(LowpassGate, cutoff=0.5)


def stem(kind, sampler, activation, **fields):
    return kind(8, sampler, activation, BatchNorm, patch_size=4, **fields)


@pytest.mark.parametrize("activation", [UpGelu, UpPolynomial, UpGate])
@pytest.mark.parametrize("side", [16, 24])
def test_a_fused_stage_is_an_activation_and_then_a_sampler(activation, side, draw, randomised, x64):
    layer = ActivatedPatchStem(4, IdealDownsample, activation, BatchNorm, patch_size=2)
    x = draw(1, side, side, 3)
    variables = randomised(layer, 1, side, side, 3)
    found = {}

    def record(call, arguments, keywords, context):
        result = call(*arguments, **keywords)
        if context.module.name == "norm1":
            found["normed"] = result
        return result

    with nn.intercept_methods(record):
        y = layer.apply(variables, x)
    own = {"params": variables["params"].get("activation1", {})}
    expected = ideal_downsample(activation().apply(own, found["normed"]), 2)
    np.testing.assert_allclose(y, expected, atol=ROUNDING)


def test_both_factors_of_a_gate_are_low_passed(draw, randomised, x64):
    """The stem low-passes its input, which equals the low-passed factors."""
    layer = ActivatedPatchStem(4, IdealDownsample, BandlimitedGate, BatchNorm, patch_size=2)
    variables, x = randomised(layer, 1, 12, 12, 3), draw(1, 12, 12, 3)
    own = {kind: variables[kind]["norm1"] for kind in ("params", "batch_stats")}
    kernel = {"params": variables["params"]["conv1"]}
    normed = BatchNorm().apply(own, Conv(8, 3, padding="CIRCULAR", use_bias=False).apply(kernel, x))
    expected = ideal_downsample(BandlimitedGate().apply({}, normed), 2)
    np.testing.assert_allclose(layer.apply(variables, x), expected, atol=ROUNDING)


@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("activation", [BandlimitedGate, UpGelu])
def test_pieces_of_a_batch_give_the_same_map(activation, train, draw, randomised, monkeypatch, x64):
    """In training the batch stays whole: its statistics are those of all images."""
    layer = ActivatedPatchStem(4, IdealDownsample, activation, BatchNorm, patch_size=2)
    variables, x = randomised(layer, 4, 16, 16, 3), draw(4, 16, 16, 3)

    def value(variables):
        y, changed = layer.apply(variables, x, train=train, mutable=["batch_stats"])
        return jnp.sum(jnp.sin(y)), (y, changed)

    compute = jax.value_and_grad(value, has_aux=True)
    whole = compute(variables)
    monkeypatch.setitem(CHOICES, "cpu", dataclasses.replace(CHOICES["cpu"], working_set=1))
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    assert "= scan[" in str(jax.make_jaxpr(layer.apply)(variables, x))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=ROUNDING), compute(variables), whole)


def test_gelu_runs_on_a_grid_of_twice_the_size(draw, x64):
    x = draw(1, 6, 5, 2)
    fine = jax.nn.gelu(ideal_resample(x, (12, 10)), approximate=False)
    np.testing.assert_allclose(UpGelu().apply({}, x), ideal_resample(fine, (6, 5)), atol=ROUNDING)


@pytest.mark.parametrize(
    ("kind", "sampler", "activation", "last", "exact"),
    [
        (PatchStem, Subsample, Gelu, Identity, ()),
        (PatchStem, IdealDownsample, GATE, Identity, ("whole", "half", "any")),
        (PatchStem, IdealDownsample, UpPolynomial, None, ("whole", "half", "any")),
        (ActivatedPatchStem, AdaptivePolyphase, Gelu, Identity, ("whole",)),
        (ActivatedPatchStem, IdealDownsample, UpGate, None, ("whole", "half", "any")),
        (ActivatedPatchStem, IdealDownsample, BandlimitedGate, None, ("whole", "half", "any")),
        (ActivatedPatchStem, IdealDownsample, GATE, None, ("whole", "half", "any")),
        (FirstActivatedPatchStem, IdealDownsample, GATE, Identity, ("whole", "half", "any")),
        (FirstActivatedPatchStem, IdealDownsample, Gelu, Identity, ("whole",)),
        # One pixel is half a sample in the second stage, which is a sample of its grid. Half a pixel is not.
        (ActivatedPatchStem, IdealDownsample, UpGelu, None, ("whole",)),
    ],
)
def test_shifts_that_move_the_map_of_a_stem(kind, sampler, activation, last, exact, draw, randomised, x64):
    layer = stem(kind, sampler, activation, last_activation=last)
    variables, x = randomised(layer, 1, 32, 32, 3), remove_nyquist(draw(1, 32, 32, 3))
    y = layer.apply(variables, x)
    assert y.shape == (1, 8, 8, 8)
    for name, pixels in (("whole", 1.0), ("half", 0.5), ("any", 0.137)):
        moved = layer.apply(variables, fractional_shift(x, (pixels, -pixels)))
        # Polyphase sampling moves the map by whole samples only, so maps are compared without their place.
        powers = [np.sort(np.abs(np.asarray(m)).ravel()) for m in (y, moved)]
        expected = fractional_shift(y, (pixels / 4, -pixels / 4))
        change = np.abs(powers[0] - powers[1]) if sampler is AdaptivePolyphase else moved - expected
        change = np.abs(change).max() / np.abs(y).max()
        assert change < ROUNDING if name in exact else change > 1e-6, (name, change)


@pytest.mark.parametrize(("size", "width"), [(1, 8), (3, 8), (6, 8), (16, 12)])
def test_sizes_that_a_stem_cannot_have(size, width, draw):
    layer = PatchStem(width, Subsample, Gelu, BatchNorm, patch_size=size)
    with pytest.raises(ConfigError, match=f"patch_size = {size} and width = {width}: .* multiple of half"):
        layer.init(jax.random.key(0), draw(1, 32, 32, 3))


def test_activations_of_the_first_and_last_stage(draw):
    layer = stem(PatchStem, Subsample, Gelu, first_activation=GATE, last_activation=Identity)
    params = layer.init(jax.random.key(0), draw(1, 16, 16, 3))["params"]
    assert params["conv1"]["conv"]["kernel"].shape == (3, 3, 3, 8)  # a gate has two inputs per output
    assert params["conv2"]["conv"]["kernel"].shape == (3, 3, 4, 8)


@pytest.mark.parametrize(("activation", "convolutions"), [(Gelu, 2), (UpGate, 3)])
def test_the_local_interaction_is_two_convolutions(activation, convolutions, draw, x64):
    layer, x = LocalPatchInteraction(activation, BatchNorm), draw(1, 6, 6, 2)
    variables = layer.init(jax.random.key(0), x)
    assert sum("conv" in name for name in variables["params"]) == convolutions
    shift = (2.0, -1.0) if activation is Gelu else (0.3, 0.6)
    x = remove_nyquist(x)
    expected = fractional_shift(layer.apply(variables, x), shift)
    np.testing.assert_allclose(layer.apply(variables, fractional_shift(x, shift)), expected, atol=ROUNDING)


def test_positions_are_sines_and_cosines_in_turn(x64):
    layer, x = FourierPositions(), jnp.zeros((2, 3, 5, 64))
    params = {"linear": {"kernel": jnp.eye(64), "bias": jnp.zeros(64)}}
    y = layer.apply({"params": params}, x)
    for row, column, feature in [(0, 0, 0), (2, 1, 5), (1, 4, 40), (2, 4, 63)]:
        place, side = (row, 3) if feature < 32 else (column, 5)
        angle = 2 * np.pi * (place + 1) / (side + 1e-6) / 10_000 ** (2 * (feature % 32 // 2) / 32)
        expected = (np.sin, np.cos)[feature % 2](angle)
        np.testing.assert_allclose(y[:, row, column, feature], expected, atol=ROUNDING)


def test_pieces_of_a_batch_keep_the_key_of_a_learned_sampler(draw):
    x = draw(4, 8, 8, 3)
    noisy = functools.partial(LearnedPolyphase, evaluation="noisy")
    layer = ActivatedPatchStem(8, noisy, Gelu, ChannelNorm, patch_size=2)
    variables = layer.init(jax.random.key(1), x)

    def of(seed):
        return layer.apply(variables, x, rngs={"gumbel": jax.random.key(seed)})

    whole = of(0)
    assert jnp.abs(whole - of(1)).max() > 1e-3
    with assume(dataclasses.replace(CHOICES["cpu"], working_set=1)):
        np.testing.assert_allclose(of(0), whole, atol=1e-5)  # rounding in float32


class WithState(UpPolynomial):
    """An activation with a variable of its own."""

    @nn.compact
    def __call__(self, x):
        return super().__call__(x) * self.variable("state", "gain", lambda: jnp.full((), 2.0)).value


def test_pieces_of_a_batch_see_all_variables(draw):
    x, layer = draw(4, 8, 8, 3), Mlp(8, WithState)
    variables = layer.init(jax.random.key(1), x)
    whole = layer.apply(variables, x)
    with assume(dataclasses.replace(CHOICES["cpu"], working_set=1)):
        np.testing.assert_allclose(layer.apply(variables, x), whole, atol=1e-5)  # rounding in float32

"""Samplers that choose a component: their choices, the order of phases, and equivariance."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.adaptive import AdaptiveBlurPool, AdaptivePolyphase, LearnedPolyphase
from aliasfree_jax.layers.phase_logits import AttentionLogits, ConvLogits, GraphLogits, LinearLogits
from aliasfree_jax.layers.sampling import BlurPool, IdealDownsample, Subsample, steps_of
from aliasfree_jax.layers.upsampling import IdealUpsample, PolyphaseUpsample
from aliasfree_jax.ops.blurring import blur
from aliasfree_jax.ops.polyphase import polyphase_components, polyphase_downsample, row_order
from aliasfree_jax.ops.resample import ideal_upsample

# float64 rounding of sums of at most 10,000 terms of order 1.
EXACT = 1e-12
PHASED = {"method": "with_phase"}

BLUR = functools.partial(BlurPool, kernel_size=3)
LOGITS = {
    "conv": ConvLogits,
    "skip": functools.partial(ConvLogits, skip=True),
    "attention": AttentionLogits,
    "attention, batch norm": functools.partial(AttentionLogits, batch_norm=True),
    "graph": GraphLogits,
    "linear": LinearLogits,
}
SAMPLERS = {
    "l2": AdaptivePolyphase,
    "l1 after a blur": functools.partial(AdaptivePolyphase, criterion="l1", inner=BLUR),
    "l2 on the raw map": functools.partial(AdaptivePolyphase, inner=BLUR, select_on="raw"),
    "largest, content-adaptive": functools.partial(
        AdaptivePolyphase, criterion="l_infty", inner=functools.partial(AdaptiveBlurPool, groups=2)
    ),
    **{f"learned, {name}": functools.partial(LearnedPolyphase, logits=LOGITS[name]) for name in LOGITS},
}


def variables_of(module, x, draw):
    """Returns random variables, small enough for attention not to saturate; variances near 1."""
    shapes = jax.eval_shape(module.init, jax.random.key(0), x)

    def fill(path, leaf):
        value = 0.4 * draw(*leaf.shape, seed=len(jax.tree_util.keystr(path)))
        return 1 + 0.2 * value if path[-1].key == "var" else value

    return jax.tree_util.tree_map_with_path(fill, shapes)


@functools.partial(jax.jit, static_argnames=("sampler", "train"))
def sampled(sampler, variables, x, phase=None, *, train=False, temperature=1.0, rngs=None):
    """Returns the map and its phases, compiled as one program."""
    return sampler.apply(variables, x, phase, train=train, temperature=temperature, rngs=rngs, **PHASED)


def test_strides_are_taken_in_prime_factors(draw):
    assert [steps_of(n) for n in (1, 2, 3, 4, 6, 12)] == [
        [(prime, prime) for prime in primes] for primes in ([], [2], [3], [2, 2], [2, 3], [2, 2, 3])
    ]
    assert steps_of((4, 3)) == [(2, 3), (2, 1)]
    x = draw(4, 8, 8, 3)
    y, phases = AdaptivePolyphase(strides=4).apply({}, x, **PHASED)
    half, first = polyphase_downsample(x)
    quarter, second = polyphase_downsample(half)
    np.testing.assert_array_equal(y, quarter)
    np.testing.assert_array_equal(jnp.stack(phases), jnp.stack([first, second]))
    same, none = AdaptivePolyphase(strides=1).apply({}, x, **PHASED)
    assert none is None
    np.testing.assert_array_equal(same, x)
    with pytest.raises(
        ConfigError, match="strides must be an integer of at least 1, or a pair of them, got 0"
    ):
        AdaptivePolyphase(strides=0).apply({}, x, **PHASED)


@pytest.mark.parametrize("stride", [2, 3, 4, 6])
@pytest.mark.parametrize("name", ["l2", "l1 after a blur", "l2 on the raw map", "learned, conv"])
def test_every_stride_commutes_with_every_integer_shift(name, stride, draw, x64):
    x = np.asarray(draw(1, 12, 12, 2))
    sampler = SAMPLERS[name](strides=stride)
    variables = variables_of(sampler, x, draw)
    shifts = list(itertools.product(range(stride), range(stride)))
    moved = np.concatenate([np.roll(x, shift, (1, 2)) for shift in shifts])
    ys, phases = jax.jit(functools.partial(sampler.apply, **PHASED))(variables, moved)
    # The samples are shifted by whole pixels of the coarse grid: the set of values stays the same.
    values = np.sort(np.asarray(ys).reshape(len(shifts), -1), axis=1)
    np.testing.assert_allclose(values, np.broadcast_to(values[0], values.shape), atol=EXACT)
    assert len({*zip(*(p.tolist() for p in phases), strict=True)}) == stride**2
    fixed = np.sort(np.asarray(moved[:, ::stride, ::stride]).reshape(len(shifts), -1), axis=1)
    assert np.abs(fixed - fixed[0]).max() > 0.1  # negative control: phase 0 for all


@pytest.mark.parametrize("name", SAMPLERS)
def test_down_and_up_commute_with_every_integer_shift(name, draw, x64):
    x = np.asarray(draw(1, 6, 8, 2))
    sampler = SAMPLERS[name]()
    variables = variables_of(sampler, x, draw)

    @jax.jit
    def there_and_back(x):
        y, phase = sampler.apply(variables, x, **PHASED)
        return PolyphaseUpsample(inner=BLUR).apply({}, y, phase)

    shifts = list(itertools.product(range(6), range(8)))
    moved = np.asarray(there_and_back(np.concatenate([np.roll(x, shift, (1, 2)) for shift in shifts])))
    expected = np.stack([np.roll(moved[0], shift, (0, 1)) for shift in shifts])
    np.testing.assert_allclose(moved, expected, atol=EXACT)


def test_a_shortcut_reuses_the_phase(draw):
    x, other = draw(4, 8, 8, 3), draw(4, 8, 8, 5, seed=1)
    for sampler in (AdaptivePolyphase(inner=BLUR), AdaptivePolyphase(strides=4)):
        _, phase = sampler.apply({}, x, **PHASED)
        y, returned = sampler.apply({}, other, phase, **PHASED)
        assert all((a == b).all() for a, b in zip(phase, returned, strict=True))
        assert float(jnp.abs(y - sampler.apply({}, other, **PHASED)[0]).max()) > 0.1
    # Samplers without a choice use a given phase.
    _, phase = AdaptivePolyphase().apply({}, x, **PHASED)
    y, returned = BLUR().apply({}, other, phase, **PHASED)
    np.testing.assert_allclose(y, polyphase_downsample(blur(other, 3), phase=phase[0])[0], atol=1e-6)
    assert returned is phase
    assert Subsample().apply({}, other, **PHASED)[1] is None


def test_the_criterion_looks_at_the_filtered_or_the_raw_map(draw):
    x = draw(64, 8, 8, 1)
    filtered = AdaptivePolyphase(inner=BLUR).apply({}, x, **PHASED)
    raw = AdaptivePolyphase(inner=BLUR, select_on="raw").apply({}, x, **PHASED)
    np.testing.assert_array_equal(filtered[1][0], polyphase_downsample(blur(x, 3))[1])
    np.testing.assert_array_equal(raw[1][0], polyphase_downsample(x)[1])
    # With the original, both choices differ on 102 of 200 random maps.
    assert 16 < int((filtered[1][0] != raw[1][0]).sum()) < 48
    np.testing.assert_array_equal(raw[0], polyphase_downsample(blur(x, 3), phase=raw[1][0])[0])
    with pytest.raises(ConfigError, match="unknown select_on 'blurred'"):
        AdaptivePolyphase(select_on="blurred").apply({}, x, **PHASED)


def test_ties_go_along_the_columns_in_aps_and_along_the_rows_in_lps():
    # Components 1 (row offset 1) and 2 (column offset 1) are equal, and larger than the others.
    x = jnp.zeros((1, 4, 4, 1)).at[:, 1::2, ::2].set(1.0).at[:, ::2, 1::2].set(1.0)
    assert AdaptivePolyphase().apply({}, x, **PHASED)[1][0].tolist() == [1]
    assert AdaptivePolyphase(tie_order="rows").apply({}, x, **PHASED)[1][0].tolist() == [2]
    assert row_order().tolist() == [0, 2, 1, 3]
    assert row_order((2, 3)).tolist() == [0, 2, 4, 1, 3, 5]


def test_odd_maps_are_padded_circularly_in_aps_and_by_zeros_in_lps():
    x = jnp.arange(1.0, 26.0).reshape(1, 5, 5, 1)
    phase = (jnp.array([3]),)
    with pytest.warns(UserWarning, match="5 x 5 is sampled by 2"):
        circular = AdaptivePolyphase().apply({}, x, phase, **PHASED)[0]
        zeros = AdaptivePolyphase(odd_padding="ZERO").apply({}, x, phase, **PHASED)[0]
    assert circular[0, :, :, 0].tolist() == [[7, 9, 6], [17, 19, 16], [2, 4, 1]]
    assert zeros[0, :, :, 0].tolist() == [[7, 9, 0], [17, 19, 0], [0, 0, 0]]


def test_training_mixes_the_components(draw):
    x = draw(3, 8, 8, 4)
    sampler = LearnedPolyphase(noise=False)
    variables = variables_of(sampler, x, draw)
    logits = ConvLogits().apply({"params": variables["params"]["logits0"]}, polyphase_components(x))
    for temperature in (1.0, 0.1):
        y, (weights,) = sampled(sampler, variables, x, train=True, temperature=temperature)
        np.testing.assert_allclose(weights, jax.nn.softmax(logits / temperature), rtol=1e-5)
        mixture = jnp.einsum("nk,nkhwc->nhwc", weights, polyphase_components(x), precision="highest")
        np.testing.assert_allclose(y, mixture, atol=1e-5)
    cold, _ = sampled(sampler, variables, x, train=True, temperature=1e-4)
    np.testing.assert_allclose(cold, sampled(sampler, variables, x)[0], atol=1e-5)
    gradient = jax.grad(lambda v: sampled(sampler, v, x, train=True)[0][:, 0].sum())(variables)
    assert all(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(gradient))


def test_noise_is_drawn_in_training_only(draw):
    x = draw(64, 4, 4, 2)
    sampler = LearnedPolyphase(logits=LinearLogits)
    variables = jax.tree.map(jnp.zeros_like, variables_of(sampler, x, draw))
    how = {"train": True, "temperature": 0.01}
    draws = [
        sampled(sampler, variables, x, rngs={"gumbel": jax.random.key(seed)}, **how)[1][0]
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert float(jnp.abs(draws[0] - draws[2]).max()) > 0.5
    # With equal logits, Gumbel noise selects each phase in about a quarter of the 64 images.
    assert 6 < int(jnp.bincount(draws[0].argmax(1), length=4).min())
    assert sampled(sampler, variables, x)[1][0].tolist() == [0] * 64  # evaluation needs no rng
    noisy = LearnedPolyphase(logits=LinearLogits, evaluation="noisy")
    assert sampled(noisy, variables, x, rngs={"gumbel": jax.random.key(0)})[1][0].shape == (64, 4)
    with pytest.raises(ConfigError, match="unknown evaluation 'soft'"):
        LearnedPolyphase(logits=LinearLogits, evaluation="soft").apply(variables, x, **PHASED)


def test_noisy_evaluation_needs_no_key(draw):
    """Without a key, each image has different noise.

    As with a key, phases win in proportion to their weights.
    """
    x = draw(2048, 4, 4, 1)
    sampler = LearnedPolyphase(logits=LinearLogits, evaluation="noisy", evaluation_temperature=0.1)
    variables = variables_of(sampler, x, draw)
    own = sampled(sampler, variables, x)[1][0]
    np.testing.assert_array_equal(own, sampled(sampler, variables, x)[1][0])
    few, fewer = (sampler.apply(variables, part, **PHASED)[1][0] for part in (x[:8], x[5:7]))
    np.testing.assert_array_equal(few[5:7], fewer)
    keyed = sampled(sampler, variables, x, rngs={"gumbel": jax.random.key(3)})[1][0]
    assert float(jnp.abs(own - keyed).max()) > 0.5
    # Weights lie in [0, 1], so the mean of 2048 images has a standard deviation of at most 0.5 / 45. That of
    # the difference of two means is 0.016; the tolerance is five times that.
    np.testing.assert_allclose(own.mean(0), keyed.mean(0), atol=0.08)
    warm = LearnedPolyphase(logits=LinearLogits, evaluation="convex", evaluation_temperature=0.5)
    plain = LearnedPolyphase(logits=LinearLogits, evaluation="convex")
    np.testing.assert_array_equal(
        sampled(warm, variables, x)[1][0],
        sampled(plain, variables, x, temperature=0.5)[1][0],
    )


@pytest.mark.parametrize("name", LOGITS)
def test_logits_follow_their_components(name, draw, x64):
    components = np.asarray(draw(3, 4, 5, 6, 4))
    network = LOGITS[name]()
    variables = variables_of(network, components, draw)
    compute = jax.jit(network.apply)
    logits = np.asarray(compute(variables, components))
    assert logits.shape == (3, 4)
    order = [2, 0, 3, 1]
    np.testing.assert_allclose(compute(variables, components[:, order]), logits[:, order], atol=EXACT)
    moved = np.roll(components, (2, 3), (2, 3))
    np.testing.assert_allclose(compute(variables, moved), logits, atol=EXACT)


def test_logits_have_a_width(draw):
    x = draw(1, 4, 4, 4, 8)
    shapes = jax.eval_shape(ConvLogits(width_ratio=0.25).init, jax.random.key(0), x)["params"]
    assert shapes["conv1"]["kernel"].shape == (3, 3, 8, 2)
    with pytest.raises(ConfigError, match="skip=True need width_ratio=1, got 0.5"):
        ConvLogits(width_ratio=0.5, skip=True).init(jax.random.key(0), x)


def test_upsampling_keeps_constants_and_writes_at_the_phase(draw):
    ones = jnp.ones((2, 4, 5, 1))
    for inner in (functools.partial(BlurPool, kernel_size=2), BLUR, IdealDownsample):
        np.testing.assert_allclose(PolyphaseUpsample(inner=inner).apply({}, ones), 1.0, atol=1e-6)
    x, phase = draw(4, 3, 3, 2), (jnp.arange(4), jnp.array([3, 1, 0, 2]))
    y = PolyphaseUpsample(strides=4, gain=1.0).apply({}, x, phase)
    np.testing.assert_array_equal(AdaptivePolyphase(strides=4).apply({}, y, phase, **PHASED)[0], x)
    assert int((y != 0).sum()) == x.size


def test_ideal_upsampling_takes_the_phase_too(draw, x64):
    x, phase = draw(4, 5, 7, 2), (jnp.arange(4),)
    y = IdealUpsample().apply({}, x, phase)
    np.testing.assert_allclose(AdaptivePolyphase().apply({}, y, phase, **PHASED)[0], x, atol=EXACT)
    np.testing.assert_allclose(IdealUpsample().apply({}, x), ideal_upsample(x, 2), atol=EXACT)
    np.testing.assert_allclose(y, PolyphaseUpsample(inner=IdealDownsample).apply({}, x, phase), atol=EXACT)
    twice = (jnp.arange(4), jnp.array([3, 1, 0, 2]))
    z = IdealUpsample(strides=4).apply({}, x, twice)
    np.testing.assert_allclose(AdaptivePolyphase(strides=4).apply({}, z, twice, **PHASED)[0], x, atol=EXACT)


@pytest.mark.parametrize("strides", [2, 4, (2, 1)])
def test_ideal_upsampling_mixes_the_phases_of_a_learned_sampler(strides, draw, x64):
    """In training, its phase is one weight for each place. One-hot weights are a phase."""
    x, steps = draw(4, 5, 6, 2), steps_of(strides)
    phase = tuple(jnp.arange(4) % (down * right) for down, right in steps)
    chosen = tuple(jax.nn.one_hot(p, down * right) for p, (down, right) in zip(phase, steps, strict=True))
    even = tuple(jnp.full((4, down * right), 1 / (down * right)) for down, right in steps)
    layer = IdealUpsample(strides=strides)
    np.testing.assert_allclose(layer.apply({}, x, chosen), layer.apply({}, x, phase), atol=EXACT)
    every = itertools.product(*(range(down * right) for down, right in steps))
    each = [layer.apply({}, x, tuple(jnp.full(4, p) for p in place)) for place in every]
    np.testing.assert_allclose(layer.apply({}, x, even), sum(each) / len(each), atol=EXACT)

"""Losses, optimizer, mesh and plan."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.config import base_config
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.training.mesh import check_batch, make_mesh, put_batch
from aliasfree_jax.training.objective import correct, cross_entropy
from aliasfree_jax.training.optimizer import decay_mask, make_optimizer
from aliasfree_jax.training.schedules import make_plan


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_the_original_formula(smoothing):
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(size=(5, 7)), rng.integers(0, 7, 5)
    log_probs = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    nll = -log_probs[np.arange(5), labels]
    expected = (1 - smoothing) * nll - smoothing * log_probs.mean(-1)
    # Float32 sums of 7 terms of size about 2.
    np.testing.assert_allclose(cross_entropy(jnp.asarray(logits), labels, smoothing), expected, atol=2e-6)


def test_correct():
    np.testing.assert_array_equal(correct(jnp.array([[1.0, 2.0], [3.0, 0.0]]), jnp.array([1, 1])), [1.0, 0.0])


def test_decay_mask_takes_kernels_and_coefficients_only():
    params = {
        "conv": {"kernel": jnp.zeros((3, 3, 1, 4)), "bias": jnp.zeros(4)},
        "act": {"coefficients": jnp.zeros((4, 3)), "in_scale": jnp.zeros(1), "out_scale": jnp.zeros(1)},
        "norm": {"scale": jnp.zeros(4), "bias": jnp.zeros(4)},
        "layer_scale": jnp.zeros(4),
        "gain": jnp.zeros(()),
        "head": {"kernel": jnp.zeros((4, 2)), "bias": jnp.zeros(2)},
    }
    decayed = {
        jax.tree_util.keystr(path)
        for path, on in jax.tree_util.tree_leaves_with_path(decay_mask(params))
        if on
    }
    assert decayed == {"['conv']['kernel']", "['act']['coefficients']", "['head']['kernel']"}


def test_adamw_is_decoupled_and_skips_vectors():
    config = base_config().optimizer
    config.weight_decay = 0.1
    optimizer = make_optimizer(config, lambda step: jnp.float32(0.01))
    params = {"kernel": jnp.array([[2.0]]), "bias": jnp.array([2.0])}
    expected = {name: 2.0 for name in params}
    moments = {name: (0.0, 0.0) for name in params}
    state = optimizer.init(params)
    for t, g in enumerate((1.0, -3.0, 0.5), start=1):
        updates, state = optimizer.update({"kernel": jnp.array([[g]]), "bias": jnp.array([g])}, state, params)
        params = jax.tree.map(jnp.add, params, updates)
        for name, decay in (("kernel", 0.1), ("bias", 0.0)):
            m, v = moments[name]
            m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
            moments[name] = m, v
            step = (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
            expected[name] -= 0.01 * (step + decay * expected[name])
    for name in params:
        assert float(params[name].squeeze()) == pytest.approx(
            expected[name], rel=1e-6
        )  # a few float32 roundings


@pytest.mark.parametrize("nesterov", [False, True])
def test_sgd_is_pytorchs_and_decays_all_but_the_logits_of_components(nesterov):
    config = base_config().optimizer
    config.name, config.momentum, config.nesterov, config.weight_decay = "sgd", 0.9, nesterov, 0.1
    optimizer = make_optimizer(config, lambda step: jnp.float32(0.01))
    params = {"norm": {"bias": jnp.array([2.0])}, "sampler": {"logits0": {"kernel": jnp.array([2.0])}}}
    state, expected = optimizer.init(params), {"bias": (2.0, 0.0), "kernel": (2.0, 0.0)}
    for g in (1.0, -3.0, 0.5):
        updates, state = optimizer.update(jax.tree.map(lambda _, g=g: jnp.array([g]), params), state, params)
        params = jax.tree.map(jnp.add, params, updates)
        for name, decay in (("bias", 0.1), ("kernel", 0.0)):
            value, velocity = expected[name]
            gradient = g + decay * value
            velocity = 0.9 * velocity + gradient
            step = gradient + 0.9 * velocity if nesterov else velocity
            expected[name] = value - 0.01 * step, velocity
    assert float(params["norm"]["bias"][0]) == pytest.approx(expected["bias"][0], rel=1e-6)
    assert float(params["sampler"]["logits0"]["kernel"][0]) == pytest.approx(expected["kernel"][0], rel=1e-6)


@pytest.mark.parametrize(("clip", "smaller"), [(0.0, False), (1e-9, True)])
def test_clip_norm(clip, smaller):
    config = base_config().optimizer
    config.clip_norm = clip
    config.weight_decay = 0.0
    optimizer = make_optimizer(config, lambda step: jnp.float32(0.01))
    params = {"kernel": jnp.ones((1, 1))}
    updates, _ = optimizer.update({"kernel": jnp.full((1, 1), 5.0)}, optimizer.init(params), params)
    # Adam's first step is the learning rate unless eps matters, as it does for gradients of 1e-9.
    assert (abs(float(updates["kernel"][0, 0])) < 0.005) == smaller


def test_mesh_splits_batches_evenly():
    mesh = make_mesh(4)
    placed = put_batch({"image": np.arange(8.0).reshape(8, 1)}, mesh)["image"]
    assert [shard.data.shape for shard in placed.addressable_shards] == [(2, 1)] * 4


def test_too_many_devices():
    with pytest.raises(ConfigError, match=r"train.devices = 64, but there are 4"):
        make_mesh(64)


def test_batch_that_does_not_divide():
    with pytest.raises(ConfigError, match=r"batch_size = 30 .* 4 device.*multiple of 8, e.g. 24 or 32"):
        check_batch(30, 2, make_mesh(4))
    check_batch(32, 2, make_mesh(4))


def test_plan_counts_whole_batches():
    config = base_config()
    config.train.batch_size = 4096
    config.train.total_epochs = 300.0
    config.optimizer.warmup_epochs = 20.0
    config.eval.every_epochs = 0.5
    config.checkpoint.every_epochs = 0.0
    plan = make_plan(config, 1_281_167)
    assert (plan.steps_per_epoch, plan.total, plan.warmup) == (312, 93600, 6240)
    assert plan.evaluates(156) and not plan.evaluates(157) and plan.evaluates(93600)
    assert not plan.saves(312) and plan.saves(93600)


def test_plan_without_a_full_batch():
    with pytest.raises(ConfigError, match="batch_size = 64 exceeds the 63 training examples"):
        make_plan(base_config(), 63)

"""Layer-wise learning rates: the depths of the original, and their effect on an update."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from aliasfree_jax import create_model
from aliasfree_jax.config import base_config
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.training.optimizer import depth, make_optimizer, scale_by_depth


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("stem/conv/kernel", 0),
        ("stem_norm/scale", 0),
        ("stage0_block2/mlp/expand/kernel", 1),
        ("downsample1_norm/bias", 2),
        ("stage1_block0/layer_scale", 2),
        ("downsample2/conv/kernel", 3),
        ("stage2_block0/norm/scale", 3),
        ("stage2_block2/norm/scale", 3),
        ("stage2_block3/norm/scale", 4),
        ("stage2_block26/depthwise/bias", 11),
        ("downsample3/conv/bias", 12),
        ("stage3_block1/mlp/project/kernel", 12),
        ("norm/scale", 13),
        ("head/kernel", 13),
    ],
)
def test_depths_of_the_original(path, expected):
    assert depth(path) == expected


def test_every_parameter_of_a_convnext_has_a_depth():
    module = create_model("convnext_afc_small")
    images = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
    params = jax.eval_shape(lambda x: module.init(jax.random.key(0), x, train=False), images)["params"]
    paths = ["/".join(k.key for k in path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    assert {depth(path) for path in paths} == set(range(14))


def test_another_network_is_refused():
    with pytest.raises(ConfigError, match="for ConvNeXts .*, not for a network with 'stage0_block0_c"):
        depth("stage0_block0_conv1/kernel")


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb"])
def test_updates_shrink_with_the_depth_weight_decay_included(name):
    config = base_config().optimizer
    config.name, config.weight_decay = name, 0.1
    params = {"stem": {"kernel": jnp.ones((2, 2))}, "head": {"kernel": jnp.ones((2, 2))}}
    grads = jax.tree.map(lambda p: 0.5 * p, params)

    def updates():
        optimizer = make_optimizer(config, lambda step: jnp.float32(0.01))
        return optimizer.update(grads, optimizer.init(params), params)[0]

    whole = updates()
    config.layer_decay = 0.7
    decayed = updates()
    np.testing.assert_array_equal(decayed["head"]["kernel"], whole["head"]["kernel"])
    np.testing.assert_allclose(decayed["stem"]["kernel"], 0.7**13 * whole["stem"]["kernel"], rtol=1e-6)


def test_lamb_steps_as_far_as_the_weights_are_long():
    config = base_config().optimizer
    config.name, config.weight_decay = "lamb", 0.0
    params = {"a": jnp.full((3, 4), 2.0), "b": jnp.full((5,), 0.1)}
    optimizer = make_optimizer(config, lambda step: jnp.float32(0.01))
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    for name, value in params.items():
        assert float(optax.tree.norm(updates[name])) == pytest.approx(
            0.01 * float(optax.tree.norm(value)), rel=1e-5
        )
        assert (updates[name] < 0).all()


def test_the_scale_needs_no_state():
    transform = scale_by_depth(0.5)
    assert jax.tree.leaves(transform.init({"head": jnp.ones(1)})) == []

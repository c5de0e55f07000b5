"""Stochastic depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.errors import InvalidRngError

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers.block import DropPath


def drop(rate: float, x: jax.Array, key: int = 0) -> jax.Array:
    return DropPath(rate).apply({}, x, train=True, rngs={"drop_path": jax.random.key(key)})


def test_identity_in_evaluation_and_at_rate_0(draw):
    x = draw(4, 3, 3, 2)
    np.testing.assert_array_equal(DropPath(0.5).apply({}, x, train=False), x)
    np.testing.assert_array_equal(DropPath(0.0).apply({}, x, train=True), x)


def test_whole_samples_are_dropped_and_the_others_scaled():
    y = np.asarray(drop(0.25, jnp.ones((2000, 2, 3, 4)))).reshape(2000, -1)
    assert (y == y[:, :1]).all()
    np.testing.assert_allclose(np.unique(y), [0, 4 / 3], rtol=1e-6)
    # 2000 draws: five standard deviations of their mean, 0.013 each.
    assert y.mean() == pytest.approx(1.0, abs=0.065)


def test_keys_decide():
    x = jnp.ones((64, 1))
    np.testing.assert_array_equal(drop(0.5, x, key=1), drop(0.5, x, key=1))
    assert (drop(0.5, x, key=1) != drop(0.5, x, key=2)).any()


def test_gradients_follow_the_mask():
    x = jnp.ones((16, 2))
    gradient = jax.grad(lambda x: drop(0.5, x).sum())(x)
    np.testing.assert_array_equal(gradient, drop(0.5, x))


def test_dtypes_stay():
    assert drop(0.5, jnp.ones((4, 2), jnp.bfloat16)).dtype == jnp.bfloat16


def test_training_needs_the_rng_stream():
    with pytest.raises(InvalidRngError, match="drop_path"):
        DropPath(0.5).apply({}, jnp.ones((2, 2)), train=True)


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2.0])
def test_impossible_rates_are_named(rate):
    with pytest.raises(ConfigError, match=rf"drop path rates must lie in \[0, 1\), got {rate}"):
        DropPath(rate).apply({}, jnp.ones((2, 2)), train=False)

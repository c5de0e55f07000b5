"""Pooling of the last map to one vector."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax import create_model
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.models import alexnet_vgg
from aliasfree_jax.ops.pooling import adaptive_max_pool

FEATURES = {"num_classes": 0}
SMALL = {
    "convnext_micro": {"depths": (1,), "widths": (4,)},
    "resnet20_cifar_aps": {"depths": (1, 1), "widths": (4, 8)},
    "densenet121": {"depths": (1, 1), "growth": 4, "width": 4},
    "mobilenet_v2": {"width_mult": 0.1},
    "basic": {"widths": (4,)},
    "vgg11": {"depths": (1,), "widths": (4,)},
    "alexnet": {},
}
BINNED = {"vgg11": 7, "alexnet": 6}


def outputs(name: str, x: jax.Array, **options):
    """Returns the output of a network with fixed parameters, and the last map that it sows."""
    network = create_model(name, **SMALL[name], **options)
    shapes = jax.eval_shape(network.init, jax.random.key(0), x)
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda a: jnp.asarray(0.1 * rng.standard_normal(a.shape) ** 2, a.dtype), shapes)
    y, sown = jax.jit(lambda x: network.apply(variables, x, mutable=["intermediates"]))(x)
    return y, sown["intermediates"]["features"][0]


@pytest.mark.parametrize("name", SMALL)
def test_every_network_can_give_its_last_map(name):
    def shape(**options) -> tuple[int, ...]:
        network = create_model(name, **SMALL[name], **options)
        images = jax.ShapeDtypeStruct((2, 64, 64, 3), "float32")
        return jax.eval_shape(network.init_with_output, jax.random.key(0), images)[0].shape

    assert len(shape(global_pool="", num_classes=0)) == 4
    assert shape(global_pool="max", num_classes=3) == (2, 3)
    with pytest.raises(ConfigError, match="which a head cannot classify: use num_classes=0"):
        create_model(name, **SMALL[name], global_pool="")
    with pytest.raises(ConfigError, match="unknown global_pool 'avg'. .*max, mean"):
        create_model(name, **SMALL[name], global_pool="avg")


def test_mean_and_max_of_the_last_map(draw):
    x = draw(2, 8, 8, 3)
    mean, last = outputs("basic", x, **FEATURES)
    np.testing.assert_array_equal(mean, last.mean((1, 2)))
    largest, same = outputs("basic", x, global_pool="max", **FEATURES)
    np.testing.assert_array_equal(same, last)
    np.testing.assert_array_equal(largest, last.max((1, 2)))
    np.testing.assert_array_equal(outputs("basic", x, global_pool="", **FEATURES)[0], last)


def test_convnexts_norm_what_is_pooled(draw):
    x = draw(2, 8, 8, 3)
    normed, _ = outputs("convnext_micro", x, global_pool="", **FEATURES)
    largest, last = outputs("convnext_micro", x, global_pool="max", **FEATURES)
    assert normed.shape == last.shape
    assert np.abs(largest - normed.max((1, 2))).max() > 1e-3  # the norm follows the pooling, as in timm


@pytest.mark.parametrize(("shape", "bins"), [((9, 7), (7, 7)), ((2, 13), (6, 6)), ((1, 1), (6, 6))])
def test_bins_of_maxima(shape, bins, draw):
    x = np.asarray(draw(2, *shape, 3))
    expected = np.empty((2, *bins, 3), x.dtype)
    for i in range(bins[0]):
        for j in range(bins[1]):
            rows, columns = (
                slice(k * side // n, -(-(k + 1) * side // n))
                for k, side, n in zip((i, j), shape, bins, strict=True)
            )
            expected[:, i, j] = x[:, rows, columns].max((1, 2))
    np.testing.assert_array_equal(adaptive_max_pool(jnp.asarray(x), bins), expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", BINNED)
def test_max_pooled_chains_take_their_bins_maxima(name, draw, monkeypatch):
    monkeypatch.setattr(alexnet_vgg, "HIDDEN", 16)
    side = 256 if name == "alexnet" else 64  # for smaller images its bins have a single sample
    x = draw(1, side, side, 3)
    mean, last = outputs(name, x, **FEATURES)
    largest, same = outputs(name, x, global_pool="max", **FEATURES)
    np.testing.assert_array_equal(same, last)
    assert mean.shape == largest.shape == (1, 16) and np.all(largest >= mean)  # all weights are positive
    assert np.any(largest > mean)

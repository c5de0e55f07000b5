"""Shortcuts of residual blocks: option A of He et al. by definition, and its limits."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax import shift_invariant
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers import BatchNorm, Subsample
from aliasfree_jax.layers.shortcut import ZeroPaddedShortcut
from aliasfree_jax.models import create_model, register_part
from aliasfree_jax.models.parts import PARTS

NARROW = {"num_classes": 5, "depths": (1, 1), "widths": (4, 8)}


def zero_padded(features, stride):
    return ZeroPaddedShortcut(features, stride, Subsample, BatchNorm)


@pytest.mark.parametrize(("features", "before"), [(4, 0), (8, 2), (7, 1)])
def test_zero_channels_stand_on_both_sides_of_every_second_sample(draw, features, before):
    x = draw(2, 5, 6, 4)
    y = zero_padded(features, 2).apply({}, x)
    assert y.shape == (2, 3, 3, features)
    np.testing.assert_array_equal(y[..., before : before + 4], x[:, ::2, ::2])
    assert np.count_nonzero(y) == np.count_nonzero(x[:, ::2, ::2])


def test_a_branch_chooses_the_phase(draw):
    x, phase = draw(2, 4, 4, 4), (jnp.array([1, 2]),)  # shifted by one row; by one column
    y = zero_padded(4, 2).apply({}, x, phase)
    np.testing.assert_array_equal(y, jnp.stack([x[0, 1::2, ::2], x[1, ::2, 1::2]]))


def test_channels_are_not_taken_away(draw):
    with pytest.raises(ConfigError, match=r'cannot reduce 4 to 3. Use shortcut="projection", or widths that'):
        zero_padded(3, 1).apply({}, draw(1, 4, 4, 4))


def test_a_zero_padded_network_has_no_weights_in_its_shortcuts():
    def leaves(**options):
        network = create_model("resnet20_cifar", **NARROW, **options)
        shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
        return set(shapes["params"]["stage1_block0"])

    assert leaves() - leaves(shortcut="zero_padded") == {"shortcut_conv", "shortcut_norm"}


def test_a_zero_padded_network_is_made_invariant(draw, x64):
    network, x = create_model("resnet20_cifar", **NARROW, shortcut="zero_padded"), draw(1, 16, 16, 3)
    variables = network.init(jax.random.key(0), x)
    invariant = jax.jit(shift_invariant(network.apply, argnums=1, sampler="polyphase"))

    def change(function) -> float:
        return np.abs(function(variables, jnp.roll(x, (3, 5), (1, 2))) - function(variables, x)).max()

    assert change(invariant) < 1e-12 < 1e-4 < change(network.apply)  # float64 rounding


def test_the_sampler_of_shortcuts_is_another(draw):
    def logits(**options):
        network = create_model("resnet20_cifar_circular_blur", **NARROW, **options)
        return network.init_with_output(jax.random.key(0), draw(1, 16, 16, 3))[0]

    same, plain = logits(shortcut_sampler={"name": "blur"}), logits(shortcut_sampler="subsample")
    np.testing.assert_array_equal(same, logits())
    assert np.abs(plain - logits()).max() > 1e-3


def test_a_bottleneck_is_sampled_before_its_first_convolution(draw):
    """This equals a stride of its 1 x 1 convolution."""
    network = create_model("resnet20_cifar", **NARROW, block="bottleneck", sampler_position="first")
    x = draw(1, 9, 9, 3)
    variables = network.init(jax.random.key(0), x)
    _, sown = network.apply(variables, x, capture_intermediates=True, mutable=["intermediates"])
    before = sown["intermediates"]["stage0"][0]
    conv = sown["intermediates"]["stage1_block0"]["conv1"]["__call__"][0]
    kernel = variables["params"]["stage1_block0"]["conv1"]["kernel"][0, 0]
    # float32 rounding of sums of 16 products.
    np.testing.assert_allclose(conv, before[:, ::2, ::2] @ kernel, rtol=1e-4, atol=1e-5)


def test_a_shortcut_of_ones_own(monkeypatch):
    class Nothing(nn.Module):
        features: int
        stride: int
        scale: float = 0.0
        dtype: object = None
        param_dtype: object = None
        precision: object = None
        sampler: object = None
        norm: object = None
        conv: object = None

        @nn.compact
        def __call__(self, x, phase, train, temperature):
            return self.scale * jnp.ones((x.shape[0], x.shape[1] // 2, x.shape[2] // 2, self.features))

    monkeypatch.setitem(PARTS, "shortcut", dict(PARTS["shortcut"]))
    register_part("shortcut", "nothing", Nothing)
    network = create_model("resnet20_cifar", **NARROW, shortcut={"name": "nothing", "scale": 2.0})
    logits = jax.eval_shape(network.init_with_output, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))[0]
    assert logits.shape == (1, 5)
    with pytest.raises(ConfigError, match="unknown option of shortcut 'projection' 'stride'"):
        create_model("resnet20_cifar", shortcut={"name": "projection", "stride": 3})
    with pytest.raises(ConfigError, match="unknown shortcut 'projektion'. Did you mean 'projection'"):
        create_model("resnet20_cifar", shortcut="projektion")

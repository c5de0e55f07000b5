"""Parts of users, registered by name."""

from typing import ClassVar

import flax.linen as nn
import jax
import pytest

from aliasfree_jax.errors import ConfigError
from aliasfree_jax.layers import Layer, Subsample, UpGate
from aliasfree_jax.models import create_model, register_part
from aliasfree_jax.models.parts import PARTS


@pytest.fixture(autouse=True)
def _own_tables(monkeypatch):
    for kind, table in PARTS.items():
        monkeypatch.setitem(PARTS, kind, dict(table))


class Shrink(Layer):
    """Multiplies by a factor."""

    factor: float = 0.5

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.factor * x


class OwnGate(Layer):
    """Multiplies even and odd channels."""

    gated: ClassVar[bool] = True

    def __call__(self, x: jax.Array) -> jax.Array:
        first, second = x[..., ::2], x[..., 1::2]
        return first * second


def test_a_registered_part_is_one_of_the_librarys():
    register_part("activation", "shrink", Shrink)
    network = create_model("basic", activation={"name": "shrink", "factor": 0.25})
    assert network.activation() == Shrink(factor=0.25)
    with pytest.raises(
        ConfigError, match="unknown option of activation 'shrink' 'facto'. Did you mean 'factor'"
    ):
        create_model("basic", activation={"name": "shrink", "facto": 0.25})
    register_part("sampler", "every_second", Subsample)
    nested = create_model("resnet18_aps", sampler={"name": "polyphase", "inner": "every_second"})
    assert nested.sampler().inner is Subsample


def test_a_gate_is_for_networks_that_make_its_maps():
    register_part("activation", "own_gate", OwnGate)
    network = create_model("convnext_micro", depths=(1,), widths=(4,), activation="own_gate")
    x = jax.ShapeDtypeStruct((1, 16, 16, 3), "float32")
    params = jax.eval_shape(network.init, jax.random.key(0), x)["params"]
    # 2/3 of 4 x 4 channels, rounded to a multiple of 8, twice.
    assert params["stage0_block0"]["mlp"]["expand"]["kernel"].shape == (4, 16)
    with pytest.raises(ConfigError, match="unknown activation 'own_gate'"):
        create_model("vgg11_bn", activation="own_gate")


@pytest.mark.parametrize(
    ("kind", "name", "module", "message"),
    [
        ("activation", "up_gate", OwnGate, "activation name 'up_gate' is taken by UpGate: choose another"),
        ("activations", "mine", OwnGate, "unknown kind of part 'activations'. Did you mean 'activation'"),
        ("activation", "mine", UpGate(), "expected the class of a Flax module for the activation 'mine'"),
        ("activation", "mine", nn.relu, "expected the class of a Flax module for the activation 'mine'"),
    ],
)
def test_what_cannot_be_registered(kind, name, module, message):
    with pytest.raises(ConfigError, match=message):
        register_part(kind, name, module)
    assert "mine" not in PARTS["activation"] and PARTS["activation"]["up_gate"] is UpGate


class Nearest(Layer):
    """Repeats every sample."""

    strides: int = 2

    def __call__(self, x: jax.Array, phase: object = None, *, train: bool = False) -> jax.Array:
        return x.repeat(self.strides, axis=1).repeat(self.strides, axis=2)


def test_an_upsampler_of_ones_own():
    register_part("upsampler", "nearest", Nearest)
    network = create_model("unet_micro", upsampler="nearest", num_classes=3)
    x = jax.ShapeDtypeStruct((1, 9, 8, 1), "float32")
    params = jax.eval_shape(network.init, jax.random.key(0), x)
    assert params["params"]["up0"]["conv"]["kernel"].shape == (2, 2, 32, 16)
    assert jax.eval_shape(network.apply, params, x).shape == (1, 9, 8, 3)

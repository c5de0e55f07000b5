"""Networks built by name: a warning lists what breaks the invariance of an exact sampler."""

import re
import warnings

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aliasfree_jax
from aliasfree_jax import create_model, layers, models
from aliasfree_jax.config import base_config
from aliasfree_jax.errors import ConfigError, ShapeError
from aliasfree_jax.training.setup import check_network
from aliasfree_jax.transform import building

SMALL = {"depths": (1, 1), "widths": (4, 8), "num_classes": 3}
PADS = "pads by constants or by a mirror image"
STRIDE = "a strided convolution by 2 keeps frequencies that alias"


class Chosen(layers.AdaptivePolyphase):
    """A custom sampler."""


LEFT = [
    (
        "vgg11",
        {"sampler": "polyphase", "padding": "circular"},
        ["VGG/pool0/sampler: continues a map from which"],
    ),
    ("vgg11", {"sampler": "learned_polyphase", "padding": "CIRCULAR"}, ["VGG/classifier: flattens rows"]),
    ("alexnet", {"sampler": "polyphase"}, [f"AlexNet/conv1: {STRIDE}", "and 2 more"]),
    ("mobilenet_v2", {"sampler": "polyphase", "padding": "CIRCULAR"}, [f"MobileNetV2/stem_conv: {STRIDE}"]),
    (
        "mobilenet_v2",
        {"sampler": {"name": "polyphase"}},
        [r"MobileNetV2/stem_conv, .* \(18 in all\): pads by"],
    ),
    ("resnet18", {"sampler": "polyphase", "padding": "CIRCULAR"}, [f"ResNet/stem/pool: {PADS}", STRIDE]),
    (
        "resnet18",
        {"sampler": "polyphase"},
        [rf"ResNet/stem/conv, .* \(18 in all\): {PADS}", 'padding="CIRCULAR"'],
    ),
    ("resnet18_aps", {"padding": "ZERO"}, [f"ResNet/stem/conv, ResNet/stage0_block0/conv1, .*: {PADS}"]),
    ("resnet18_aps", {"pool_only": True}, [STRIDE]),
    (
        "resnet20_cifar",
        {"sampler": "ideal", "padding": "CIRCULAR", **SMALL},
        ["ResNet/stage1_block0/activation: a non-linearity"],
    ),
    ("resnet20_cifar", {"sampler": Chosen, **SMALL}, [PADS]),
    ("convnext_micro", {"sampler": "polyphase", "padding": "CIRCULAR"}, ["ConvNeXt/stem/conv: "]),
    ("convnext_afc_micro", {"activation": "gelu"}, ["a non-linearity of unbounded band"]),
]


@pytest.mark.parametrize(("name", "options", "said"), LEFT)
def test_what_is_left_is_named(name, options, said):
    with pytest.warns(UserWarning, match="although its sampler is exact") as told:
        create_model(name, **options)
    (warning,) = told
    assert warning.filename == __file__
    text = str(warning.message)
    assert text.startswith(f"{name} with these options is not invariant") and "resnet50_aps" in text
    for part in said:
        assert re.search(part, text)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet20_cifar", {"sampler": "polyphase", "padding": "circular", **SMALL}),
        ("resnet18_circular", {"sampler": "polyphase"}),
        (
            "resnet18",
            {
                "sampler": "polyphase",
                "padding": "circular",
                "stem": {"name": "image", "pool_padding": "circular"},
            },
        ),
        ("basic", {"sampler": "learned_polyphase"}),
        ("convnext_micro", {"sampler": "polyphase", "padding": "CIRCULAR", "sampled_padding": "circular"}),
        ("convnext_afc_micro", {"sampler": {"name": "ideal", "any_size": True}}),
        ("vgg11", {"sampler": "blur"}),  # never exact
    ],
)
def test_where_nothing_is_left_nothing_is_said(name, options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create_model(name, **options)


@pytest.mark.parametrize("padding", ["CIRCULAR", "ZERO"])
def test_logits_change_where_it_warns_and_nowhere_else(padding):
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        module = create_model("resnet20_cifar", sampler="polyphase", padding=padding, **SMALL)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 16, 16, 3)), jnp.float32)
    logits = jax.jit(lambda x: module.apply(module.init(jax.random.key(0), images), x))
    change = (
        jnp.abs(logits(jnp.roll(images, (1, 3), (1, 2))) - logits(images)).max()
        / jnp.abs(logits(images)).max()
    )
    # Either the same float32 sums in another order, or a different border.
    assert change > 1e-2 if told else change < 1e-5
    assert bool(told) == (padding == "ZERO")


def test_networks_by_their_own_names_cost_nothing(monkeypatch):
    monkeypatch.setattr(building, "check", None)
    create_model("vgg11", num_classes=7)
    create_model("convnext_afc_tiny", num_classes=7, drop_path_rate=0.1, precision="highest")
    models.create_model("vgg11", sampler="polyphase")  # as for checkpoints and converted weights


class Noisy(layers.AdaptivePolyphase):
    """Needs random keys in evaluation, too."""

    def choose(self, components, *how):
        self.make_rng("mine")
        return super().choose(components, *how)


class Small(nn.Module):
    """Accepts maps of one size only."""

    def __call__(self, x):
        if x.shape[1] != 5:
            raise ShapeError("this layer expects maps of 5 x 5")
        return x


@pytest.mark.parametrize(
    "options",
    [
        {"sampler": Noisy},
        {"sampler": "polyphase", "activation": lambda name, **_: Small(name=name)},
        {"sampler": lambda strides: None},
    ],
)
def test_layers_that_cannot_be_looked_at_do_not_keep_a_network_from_being_built(options):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create_model("basic", **options)


def test_training_warns_as_well():
    config = base_config()
    config.model.name = "resnet20_cifar"
    config.model.options = {"sampler": "polyphase", "padding": "CIRCULAR", **SMALL}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_network(config)
    config.model.options.padding = "ZERO"
    with pytest.warns(UserWarning, match=f"although its sampler is exact(.|\n)*{PADS}"):
        check_network(config)


# Padding words are those of Flax, in upper or lower case.


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet20_cifar", {"padding": "Circular"}),
        ("convnext_micro", {"padding": "reflect", "sampled_padding": "valid"}),
        ("densenet121", {"pool_padding": "same"}),
        ("resnet18", {"sampler": {"name": "blur", "padding": "reflect"}}),
        ("resnet18", {"sampler": {"name": "polyphase", "inner": {"name": "blur", "padding": "replicate"}}}),
    ],
)
def test_padding_is_written_in_any_case(name, options):
    def capitals(value):
        return {
            k: capitals(v) if isinstance(v, dict) else v.upper() if "padding" in k else v
            for k, v in value.items()
        }

    assert capitals(options) != options
    assert models.create_model(name, **options) == models.create_model(name, **capitals(options))


def test_the_transformation_takes_padding_in_any_case_as_well():
    images = jnp.arange(64.0).reshape(1, 8, 8, 1)
    found = {
        str(padding): aliasfree_jax.shift_invariant(lambda x: x[:, ::2, ::2].mean((1, 2)), padding=padding)(
            images
        )
        for padding in ("circular", "CIRCULAR", None)
    }
    assert found["circular"] == found["CIRCULAR"]
    with pytest.raises(ConfigError, match="unknown padding 'reflect'.*None keeps the padding"):
        aliasfree_jax.shift_invariant(jnp.mean, padding="reflect")

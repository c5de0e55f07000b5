"""The network that a configuration describes, and its precision."""

import jax.numpy as jnp
import pytest

from aliasfree_jax.config import PRECISIONS, base_config
from aliasfree_jax.errors import ConfigError
from aliasfree_jax.models import create_model
from aliasfree_jax.training.setup import check_network, make_card, model_options
from aliasfree_jax.validation import validate

WORDS = {
    "default": {},
    "float32": {"precision": "highest"},
    "tf32": {"precision": "high"},
    "bfloat16": {"dtype": "bfloat16", "precision": "default"},
}


def configured(precision, options=None):
    config = base_config()
    config.model.name = "convnext_afc_micro"
    config.model.options = {"depths": (1,), "widths": (4,)} | (options or {})
    config.train.precision = precision
    return config


@pytest.mark.parametrize("precision", WORDS)
def test_precisions_are_options_of_the_network(precision):
    config = configured(precision)
    options = make_card(config, ("a", "b"), "here").options
    assert {name: options[name] for name in options if name in ("dtype", "param_dtype", "precision")} == (
        WORDS[precision]
    )
    module = create_model(config.model.name, **options)
    assert module.precision == WORDS[precision].get("precision", "highest")  # alias-free networks: "highest"
    assert module.dtype == WORDS[precision].get("dtype")
    assert jnp.dtype(module.param_dtype) == jnp.float32


def test_every_precision_is_tested():
    assert set(PRECISIONS) == set(WORDS)
    assert base_config().train.precision == "default"


def test_a_networks_own_options_come_first():
    assert model_options(configured("bfloat16", {"precision": "high"}), 2)["precision"] == "high"


def test_a_precision_that_does_not_exist():
    config = configured("float16")
    with pytest.raises(ConfigError, match="train.precision.*float16.*default.*float32"):
        validate(config)


@pytest.mark.parametrize(
    ("task", "name", "message"),
    [
        ("segmentation", "resnet20_cifar", "returns one vector .* does not fit task = 'segmentation'.*unet_"),
        ("classification", "unet_micro", "returns a map .* task = 'classification'.* a classifier"),
    ],
)
def test_a_network_of_another_task(task, name, message):
    config = base_config()
    config.task, config.model.name = task, name
    with pytest.raises(ConfigError, match=message):
        check_network(config)

"""Candidates for blocks of alias-free networks, and fine-tuning: networks, contexts and stored tables."""

import jax
import jax.numpy as jnp
import pytest

from aliasfree_jax.models import create_model
from aliasfree_jax.ops.resample import remove_nyquist
from aliasfree_jax.ops.shift import fractional_shift
from aliasfree_jax.training import optimizer
from aliasfree_jax.validation import validate
from experiments import blocks, tuning
from experiments.protocols import ACCURATE, configuration


@pytest.mark.slow
@pytest.mark.parametrize("key", blocks.CANDIDATES)
def test_candidates_are_alias_free_unless_their_name_says_the_contrary(key):
    candidate = blocks.CANDIDATES[key]
    config = blocks.config_of(candidate, 0, "data")
    validate(config)
    network = create_model(config.model.name, num_classes=10, **config.model.options.to_dict())
    images = remove_nyquist(jax.random.normal(jax.random.key(0), (2, 32, 32, 3)))
    moved = fractional_shift(images, jnp.full((2, 2), 0.5))
    with candidate.context():
        variables = network.init(jax.random.key(1), images)
        # With the statistics of the batch: the initial running ones would not bound the maps.
        still, shifted = (
            network.apply(variables, x, train=True, mutable=["batch_stats"])[0] for x in (images, moved)
        )
    change = jnp.abs(still - shifted).max() / jnp.abs(still).max()
    # Rounding in float32; ReLU and GELU alias.
    assert change > 1e-3 if "(not alias-free)" in candidate.name else change < 1e-4


def test_coefficients_are_undecayed_in_their_context_only():
    params = {"norm": {"scale": 0}, "activation1": {"coefficients": 0}, "logits": {"kernel": 0}}
    usual = {"norm": {"scale": True}, "activation1": {"coefficients": True}, "logits": {"kernel": False}}
    with blocks.undecayed_coefficients():
        found = optimizer.sgd_decay_mask(params)
    assert found == {**usual, "activation1": {"coefficients": False}}
    assert optimizer.sgd_decay_mask(params) == usual


def test_the_candidates_see_no_test_image():
    for key in ("sum", "full-batch", "xcit-afg"):
        config = blocks.config_of(blocks.CANDIDATES[key], 0, "data")
        assert config.data.validation * config.data.train_limit == 5000


def test_the_table_has_the_stored_results():
    heading, *rows = blocks.table("ResNet-20")
    of_family = [c for c in blocks.CANDIDATES.values() if (c.family, c.budget) == ("ResNet-20", blocks.SMALL)]
    names = [candidate.name for candidate in of_family]
    assert sorted((row[0] for row in rows), key=names.index) == [row[0] for row in rows]
    assert all(len(row) == len(heading) for row in rows)
    means = {row[0]: float(row[3]) for row in rows}
    assert means[names[0]] > means["no activation on the sum"] > means["activation on the normed sum"]


def test_the_table_names_results_that_are_not_finite():
    rows = {row[0]: row for row in blocks.table("ResNet-20", blocks.SHORT)[1:]}
    assert rows["batch norm, reflected crops"][2:] == ["not finite", ""]
    assert float(rows["gates, AdamW, reflected crops"][3]) > 40


def test_fine_tuning_is_a_tenth_of_the_training():
    usual = configuration(ACCURATE, ACCURATE.runs()[0])
    for way in tuning.WAYS:
        config = tuning.config_of(way, "data")
        validate(config)
        assert config.init_from == "resnet20_cifar" and config.model.name == usual.model.name
        assert config.train.total_epochs == usual.train.total_epochs / 10
        assert config.optimizer.learning_rate == pytest.approx(usual.optimizer.learning_rate / 10)
        assert config.optimizer.warmup_epochs < config.train.total_epochs


def test_fine_tuning_keeps_the_invariance_of_the_transformed_network():
    rows = {row[0]: row for row in tuning.table()[1:]}
    assert float(rows["ResNet-20 as trained"][3]) < 95
    for name in ("transformed, polyphase", "transformed, polyphase, fine-tuned", "polyphase from scratch"):
        assert rows[name][3] == "100.00"
    assert float(rows["transformed, polyphase, fine-tuned"][2]) > float(rows["transformed, polyphase"][2]) + 5

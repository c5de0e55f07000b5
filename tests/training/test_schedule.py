import importlib

import jax.numpy as jnp
import pytest

from aliasfree_jax.training.plan import make_plan
from aliasfree_jax.training.recipe import learning_rate, temperature
from aliasfree_jax.training.schedule import decaying_temperature, step_decay, warmup_cosine

SPE = 312  # ImageNet in batches of 4096


@pytest.fixture
def imagenet():
    return warmup_cosine(4e-3, 1e-6, warmup_steps=20 * SPE, total_steps=300 * SPE)


# Values of the original's float64 table; 2e-7 is two float32 roundings.
@pytest.mark.parametrize(
    ("step", "expected"),
    [(0, 0.0), (1, 6.411284e-7), (6239, 4e-3), (6240, 4e-3), (49920, 2.0005e-3), (93599, 1.0000013e-6)],
)
def test_original_values(imagenet, step, expected):
    assert float(imagenet(jnp.int32(step))) == pytest.approx(expected, rel=2e-7)


def test_stays_at_the_end(imagenet):
    assert float(imagenet(200_000)) == pytest.approx(1e-6, rel=1e-6)


def test_no_warmup_starts_at_the_peak():
    rate = warmup_cosine(0.1, 0.0, warmup_steps=0, total_steps=10)
    assert float(rate(0)) == pytest.approx(0.1)
    assert float(rate(5)) == pytest.approx(0.05)


def test_warmup_of_one_step_is_zero_like_linspace():
    rate = warmup_cosine(0.1, 0.0, warmup_steps=1, total_steps=3)
    assert float(rate(0)) == 0.0
    assert float(rate(1)) == pytest.approx(0.1)


def test_step_schedule_at_named_steps():
    """The originals': 0.1, a tenth at epochs 30 and 60 (PyTorch's StepLR)."""
    rate = learning_rate(load_recipe("imagenet_blur").optimizer, plan := plan_of("imagenet_blur"))
    for epoch, expected in ((0, 0.1), (29.999, 0.1), (30, 0.01), (59.999, 0.01), (60, 0.001), (90, 0.001)):
        step = int(epoch * plan.steps_per_epoch)
        assert float(rate(step)) == pytest.approx(expected, rel=1e-6)
    warm = step_decay(1.0, factor=0.5, steps=[20], warmup_steps=11)
    assert [float(warm(step)) for step in (0, 5, 10, 11, 19, 20)] == [0, 0.5, 1, 1, 1, 0.5]
    assert float(step_decay(1.0, factor=0.5, steps=[])(99)) == 1


def test_temperatures_at_named_epochs():
    """Values that the specification simulated with the original's classes (section B7)."""
    plan = plan_of("imagenet_lps")
    linear = temperature(load_recipe("imagenet_lps").train.temperature, plan)
    epochs, values = (1, 10, 30, 62, 70, 82, 90), (1.0, 0.9262, 0.7623, 0.5, 0.32, 0.05, 0.01)
    for epoch, value in zip(epochs, values, strict=True):
        assert float(linear(epoch * plan.steps_per_epoch)) == pytest.approx(value, abs=5e-5)
    assert float(linear(0)) == 1 and float(linear(10**9)) == pytest.approx(0.01)
    decay = decaying_temperature(0.825, every=10, least=0.025)  # tau_imagenet_stepdecay_limit
    for epoch, expected in ((9, 1.0), (30, 0.5615), (60, 0.3153), (90, 0.177), (900, 0.025)):
        assert float(decay(epoch)) == pytest.approx(expected, abs=5e-5)
    assert temperature(load_recipe("imagenet_blur").train.temperature, plan) is None


def load_recipe(name):
    return importlib.import_module(f"configs.{name}").get_config()


def plan_of(name):
    return make_plan(load_recipe(name), 256 * 100)

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aliasfree_jax.training.dry_run import shortened
from aliasfree_jax.training.schedules import learning_rate, make_plan, step_decay, temperature, warmup_cosine

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
    """The originals' schedule: 0.1, a tenth of it at epochs 30 and 60 (PyTorch's StepLR)."""
    rate = learning_rate(load_recipe("imagenet_blur").optimizer, plan := plan_of("imagenet_blur"))
    for epoch, expected in ((0, 0.1), (29.999, 0.1), (30, 0.01), (59.999, 0.01), (60, 0.001), (90, 0.001)):
        step = int(epoch * plan.steps_per_epoch)
        assert float(rate(step)) == pytest.approx(expected, rel=1e-6)
    warm = step_decay(1.0, factor=0.5, steps=[20], warmup_steps=11)
    assert [float(warm(step)) for step in (0, 5, 10, 11, 19, 20)] == [0, 0.5, 1, 1, 1, 0.5]
    assert float(step_decay(1.0, factor=0.5, steps=[])(99)) == 1


# Values simulated with the original's classes: epoch -> temperature.
TEMPERATURES = {
    "multistep": {1: 1, 10: 0.9262, 30: 0.7623, 62: 0.5, 70: 0.32, 82: 0.05, 90: 0.01, 10**4: 0.01},
    "multistep02": {0: 1, 30: 0.8867, 65: 0.75, 80: 0.2625, 85: 0.1, 90: 0.05},
    "multistep03": {30: 0.7623, 62: 0.5, 80: 0.3393, 90: 0.25},
    "stepdecay_limit": {9: 1, 30: 0.5615, 60: 0.3153, 90: 0.177, 900: 0.025},
    "stepdecay_limit_1e": {10: 0.7374, 30: 0.401, 60: 0.1608, 76: 0.1, 90: 0.1},
}


@pytest.mark.parametrize("name", TEMPERATURES)
def test_temperatures_at_named_epochs(name):
    plan = plan_of("imagenet_lps")
    config = importlib.import_module("configs.imagenet_lps").get_config(name)
    schedule = temperature(config.train.temperature, plan)
    for epoch, expected in TEMPERATURES[name].items():
        assert float(schedule(epoch * plan.steps_per_epoch)) == pytest.approx(expected, abs=5e-5)


def test_the_temperature_of_other_recipes():
    """tau_stepdecay_limit_p5 in the one complete recipe of LPS; None without learned samplers."""
    config = importlib.import_module("configs.cifar10_resnet").get_config("resnet18,lps")
    schedule = temperature(config.train.temperature, plan := make_plan(config, 256 * 100))
    for epoch, expected in ((9, 1), (10, 0.85), (30, 0.85**3), (50, 0.5), (250, 0.5)):
        assert float(schedule(epoch * plan.steps_per_epoch)) == pytest.approx(expected)
    assert temperature(load_recipe("imagenet_blur").train.temperature, plan) is None


def load_recipe(name):
    return importlib.import_module(f"configs.{name}").get_config()


def plan_of(name):
    return make_plan(load_recipe(name), 256 * 100)


def short_configs():
    """All schedules of LPS, and some that are shorter than an epoch or an update."""
    lps = importlib.import_module("configs.imagenet_lps")
    for name in [*lps.LINEAR, *lps.DECAY]:
        yield lps.get_config(name)
    for epochs, targets in [
        ((), ()),
        ((0.0,), (0.5,)),
        ((0.2, 0.3, 0.30001), (0.9, 0.5, 0.1)),
        ((1.0,), (0.2,)),
    ]:
        config = lps.get_config()
        config.train.temperature.update({"at_epochs": epochs, "targets": targets})
        yield config
    config = lps.get_config("stepdecay_limit")
    config.train.temperature.every_epochs = 1e-3
    yield config


@pytest.mark.parametrize("config", list(short_configs()))
def test_temperatures_only_fall_however_short_the_run(config):
    """Several epochs become one step, and the first epoch may be longer than the whole run."""
    dry = shortened(config, 1)
    for each, updates in [(dry, 3), *((config, updates) for updates in (1, 2, 3, 7, 50))]:
        for epochs in (each.train.total_epochs, 0.5, 1.0):
            each.train.total_epochs = epochs
            plan = make_plan(each, updates * each.train.batch_size)
            schedule = temperature(each.train.temperature, plan)
            seen = np.asarray(jax.vmap(schedule)(jnp.arange(plan.total + 2)))
            assert seen[0] <= 1 and (np.diff(seen) <= 0).all() and (seen > 0).all(), (updates, epochs, seen)


def test_a_dry_run_sees_all_temperatures():
    dry = shortened(load_recipe("imagenet_lps"), 1)
    schedule = temperature(dry.train.temperature, make_plan(dry, 3 * dry.train.batch_size))
    assert [float(schedule(step)) for step in (0, 1, 2, 3)] == pytest.approx([1, 0.75, 0.5, 0.01])

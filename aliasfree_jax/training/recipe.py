"""The schedules that a configuration names, over the steps of a plan."""

from ml_collections import ConfigDict

from aliasfree_jax.training.plan import Plan
from aliasfree_jax.training.schedule import (
    Schedule,
    decaying_temperature,
    linear_share,
    linear_temperature,
    step_decay,
    warmup_cosine,
)


def learning_rate(config: ConfigDict, plan: Plan) -> Schedule:
    """That of the section `optimizer`."""
    if config.schedule == "step":
        steps = [plan.steps(epoch) for epoch in config.step_epochs]
        return step_decay(
            config.learning_rate, factor=config.step_factor, steps=steps, warmup_steps=plan.warmup
        )
    rates = config.learning_rate, config.min_learning_rate
    return warmup_cosine(*rates, warmup_steps=plan.warmup, total_steps=plan.total)


def temperature(config: ConfigDict, plan: Plan) -> Schedule | None:
    """That of the section `train.temperature`; None where it is constant, that is 1."""
    if config.schedule == "decay":
        every = max(1, plan.steps(config.every_epochs))  # a short run decays with every update
        return decaying_temperature(config.factor, every=every, least=config.least)
    if config.schedule == "linear":
        steps = [plan.steps(epoch) for epoch in config.at_epochs]
        return linear_temperature(steps, config.targets, first=plan.steps_per_epoch)
    return None


def share(plan: Plan) -> Schedule | None:
    """That of the model's own layers (`train.blend`); None where there are no others."""
    return linear_share(plan.blend) if plan.blend else None

"""The durations of a run in steps, and what changes over them: learning rate and temperature."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from aliasfree_jax.errors import ConfigError

Schedule = Callable[[jax.Array | int], jax.Array]  # of the number of updates done so far


@dataclasses.dataclass(frozen=True)
class Plan:
    """Lengths in steps, one step being one parameter update."""

    batch_size: int  # examples a step
    steps_per_epoch: int
    total: int
    warmup: int
    evaluate_every: int  # 0: only at the end
    save_every: int  # 0: only at the end
    log_every: int = 1
    profile: tuple[int, ...] = ()  # (first, last) of the steps to be profiled; (): none

    def steps(self, epochs: float) -> int:
        """How many updates `epochs` are."""
        return round(epochs * self.steps_per_epoch)

    def epoch(self, step: int) -> float:
        """How many epochs `step` updates are."""
        return step / self.steps_per_epoch

    def evaluates(self, step: int) -> bool:
        """Whether there is an evaluation after `step` updates."""
        return step == self.total or bool(self.evaluate_every and step % self.evaluate_every == 0)

    def saves(self, step: int) -> bool:
        """Whether there is a checkpoint after `step` updates."""
        return step == self.total or bool(self.save_every and step % self.save_every == 0)

    def profiled(self, start: int) -> tuple[int, int] | None:
        """The first and the last step to be profiled in a run that goes on after `start`: all, or none."""
        first, last = self.profile or (0, 0)
        return (first, min(last, self.total)) if start < first <= self.total else None


def make_plan(config: ConfigDict, examples: int) -> Plan:
    """The plan of a run over `examples` training examples; an epoch leaves out an incomplete last batch.

    Raises:
      ConfigError: there is not even one full batch.
    """
    steps_per_epoch = examples // config.train.batch_size
    if not steps_per_epoch:
        left = f" that data.validation = {config.data.validation:g} leaves" if config.data.validation else ""
        raise ConfigError(
            f"train.batch_size = {config.train.batch_size} exceeds the {examples} training examples{left}."
        )

    def steps(epochs: float) -> int:
        return max(1, round(epochs * steps_per_epoch)) if epochs > 0 else 0

    return Plan(
        batch_size=config.train.batch_size,
        steps_per_epoch=steps_per_epoch,
        total=steps(config.train.total_epochs),
        warmup=steps(config.optimizer.warmup_epochs),
        evaluate_every=steps(config.eval.every_epochs),
        save_every=steps(config.checkpoint.every_epochs),
        log_every=config.log.every_steps,
        profile=tuple(config.log.profile_steps),
    )


def _warmed_up(peak: float, warmup_steps: int, then: Callable[[jax.Array], jax.Array | float]) -> Schedule:
    """`then` after a linear warm-up, whose first step has rate 0 and whose last one has the peak."""

    def rate(step: jax.Array | int) -> jax.Array:
        step = jnp.asarray(step)
        warmup = peak * step / max(warmup_steps - 1, 1)
        return jnp.where(step < warmup_steps, warmup, then(step)).astype(jnp.float32)

    return rate


def warmup_cosine(peak: float, end: float, *, warmup_steps: int, total_steps: int) -> Schedule:
    """Learning rate as a function of the number of updates done so far.

    The first of the warm-up steps has rate 0, its last one the peak, which the first step of the
    cosine repeats; the last step of all stays a hair above `end`.
    """
    decay_steps = max(total_steps - warmup_steps, 1)

    def cosine(step: jax.Array) -> jax.Array:
        left = jnp.clip(total_steps - step, 0, decay_steps)
        # 1 + cos(pi - t) as 2 sin^2(t / 2): no cancellation in float32 near the end.
        return end + (peak - end) * jnp.sin(jnp.pi * left / (2 * decay_steps)) ** 2

    return _warmed_up(peak, warmup_steps, cosine)


def step_decay(peak: float, *, factor: float, steps: Sequence[int], warmup_steps: int = 0) -> Schedule:
    """`peak`, multiplied by `factor` at each of `steps`, after a linear warm-up (PyTorch's StepLR)."""

    def decayed(step: jax.Array) -> jax.Array | float:
        passed = jnp.sum(step >= jnp.asarray(steps, jnp.int32)) if steps else 0
        return peak * factor**passed

    return _warmed_up(peak, warmup_steps, decayed)


def poly_decay(peak: float, end: float, *, power: float, warmup_steps: int, total_steps: int) -> Schedule:
    """`peak` times the share of steps that are left to a power, never below `end` (DeepLab's "poly" policy).

    The share is of all steps, with those of the warm-up, as in learnable_polyphase_sampling.
    """

    def decayed(step: jax.Array) -> jax.Array:
        left = jnp.clip(1 - step / total_steps, 0, 1)
        return jnp.maximum(peak * left**power, end)

    return _warmed_up(peak, warmup_steps, decayed)


def decaying_temperature(factor: float, *, every: int, least: float) -> Schedule:
    """1, times `factor` after each `every` (at least 1) steps, never below `least` (StepDecay of LPS)."""

    def temperature(step: jax.Array | int) -> jax.Array:
        return jnp.maximum(factor ** (jnp.asarray(step) // every), least).astype(jnp.float32)

    return temperature


def linear_temperature(steps: Sequence[int], values: Sequence[float], *, first: int = 0) -> Schedule:
    """1 up to step `first`, then piecewise linear through `values` at `steps`, then constant.

    MultiStep of LPS, which starts to fall after the first epoch: `first` is its length. A run so short that
    the first of the ascending `steps` comes no later falls from its start on; of values that are due at the
    same step, the last one counts.
    """
    start = first if first < min(steps, default=0) else 0
    heights = {start: 1.0} | dict(zip(steps, values, strict=True))
    # Interpolation is exact at every knot but the last: without one more, rounding may fall below the target.
    knots, reached = [*heights, max(heights) + 1], [*heights.values(), [*heights.values()][-1]]

    def temperature(step: jax.Array | int) -> jax.Array:
        known = jnp.asarray(knots, jnp.float32), jnp.asarray(reached, jnp.float32)
        return jnp.interp(jnp.asarray(step, jnp.float32), *known)

    return temperature


# From the section `optimizer` and the plan, by the name in `optimizer.schedule`.
LEARNING_RATES: dict[str, Callable[[ConfigDict, Plan], Schedule]] = {
    "cosine": lambda optimizer, plan: warmup_cosine(
        optimizer.learning_rate,
        optimizer.min_learning_rate,
        warmup_steps=plan.warmup,
        total_steps=plan.total,
    ),
    "step": lambda optimizer, plan: step_decay(
        optimizer.learning_rate,
        factor=optimizer.step_factor,
        steps=[plan.steps(epoch) for epoch in optimizer.step_epochs],
        warmup_steps=plan.warmup,
    ),
    "poly": lambda optimizer, plan: poly_decay(
        optimizer.learning_rate,
        optimizer.min_learning_rate,
        power=optimizer.poly_power,
        warmup_steps=plan.warmup,
        total_steps=plan.total,
    ),
}
# From the section `train.temperature` and the plan, by the name in its `schedule`; None: it is 1 throughout.
TEMPERATURES: dict[str, Callable[[ConfigDict, Plan], Schedule | None]] = {
    "constant": lambda temperature, plan: None,
    "decay": lambda temperature, plan: decaying_temperature(
        temperature.factor,
        every=max(1, plan.steps(temperature.every_epochs)),  # a short run decays with every update
        least=temperature.least,
    ),
    "linear": lambda temperature, plan: linear_temperature(
        [plan.steps(epoch) for epoch in temperature.at_epochs],
        temperature.targets,
        first=plan.steps_per_epoch,
    ),
}


def learning_rate(optimizer: ConfigDict, plan: Plan) -> Schedule:
    """That of the section `optimizer` of a configuration."""
    return LEARNING_RATES[optimizer.schedule](optimizer, plan)


def temperature(config: ConfigDict, plan: Plan) -> Schedule | None:
    """That of the section `train.temperature`; None where it is constant, that is 1."""
    return TEMPERATURES[config.schedule](config, plan)

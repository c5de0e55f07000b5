"""The durations of a run in steps, and the schedules of learning rate and temperature."""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from aliasfree_jax.errors import ConfigError

Schedule = Callable[[jax.Array | int], jax.Array]  # a function of the number of updates so far


@dataclasses.dataclass(frozen=True)
class Plan:
    """Durations in steps. One step is one parameter update.

    Attributes:
      batch_size: examples per step.
      steps_per_epoch: number of full batches in an epoch.
      total: steps of the whole run.
      warmup: steps of the warm-up.
      evaluate_every: steps between evaluations; 0: only at the end.
      save_every: steps between checkpoints; 0: only at the end.
      log_every: steps between log entries.
      profile: (first, last) step to be profiled; (): none.
    """

    batch_size: int
    steps_per_epoch: int
    total: int
    warmup: int
    evaluate_every: int
    save_every: int
    log_every: int = 1
    profile: tuple[int, ...] = ()

    def steps(self, epochs: float) -> int:
        """Converts epochs to updates."""
        return round(epochs * self.steps_per_epoch)

    def epoch(self, step: int) -> float:
        """Converts updates to epochs."""
        return step / self.steps_per_epoch

    def evaluates(self, step: int) -> bool:
        """Whether an evaluation follows after `step` updates."""
        return step == self.total or bool(self.evaluate_every and step % self.evaluate_every == 0)

    def saves(self, step: int) -> bool:
        """Whether a checkpoint follows after `step` updates."""
        return step == self.total or bool(self.save_every and step % self.save_every == 0)

    def profiled(self, start: int) -> tuple[int, int] | None:
        """The first and last step to profile in a run resumed after `start`; None if the first is over."""
        first, last = self.profile or (0, 0)
        return (first, min(last, self.total)) if start < first <= self.total else None


def make_plan(config: ConfigDict, examples: int) -> Plan:
    """The plan of a run over `examples` training examples. An epoch omits an incomplete last batch.

    Raises:
      ConfigError: there is not one full batch.
    """
    steps_per_epoch = examples // config.train.batch_size
    if not steps_per_epoch:
        left = f" that data.validation = {config.data.validation:g} leaves" if config.data.validation else ""
        raise ConfigError(
            f"train.batch_size = {config.train.batch_size} exceeds the {examples} training examples{left}. "
            "Lower it, or use more images."
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
    """`then` after a linear warm-up, whose first step has rate 0 and whose last step has the peak rate."""

    def rate(step: jax.Array | int) -> jax.Array:
        step = jnp.asarray(step)
        warmup = peak * step / max(warmup_steps - 1, 1)
        return jnp.where(step < warmup_steps, warmup, then(step)).astype(jnp.float32)

    return rate


def warmup_cosine(peak: float, end: float, *, warmup_steps: int, total_steps: int) -> Schedule:
    """Cosine schedule of the learning rate after a linear warm-up, as a function of the number of updates.

    The first step of the warm-up has rate 0, its last step has the peak rate. The first step of the cosine
    repeats the peak. The last step of all is slightly above `end`.
    """
    decay_steps = max(total_steps - warmup_steps, 1)

    def cosine(step: jax.Array) -> jax.Array:
        left = jnp.clip(total_steps - step, 0, decay_steps)
        # 1 + cos(pi - t) as 2 sin^2(t / 2) avoids cancellation in float32 near the end.
        return end + (peak - end) * jnp.sin(jnp.pi * left / (2 * decay_steps)) ** 2

    return _warmed_up(peak, warmup_steps, cosine)


def step_decay(peak: float, *, factor: float, steps: Sequence[int], warmup_steps: int = 0) -> Schedule:
    """Multiplies `peak` by `factor` at each of `steps`, after a linear warm-up (PyTorch's StepLR)."""

    def decayed(step: jax.Array) -> jax.Array | float:
        passed = jnp.sum(step >= jnp.asarray(steps, jnp.int32)) if steps else 0
        return peak * factor**passed

    return _warmed_up(peak, warmup_steps, decayed)


def poly_decay(peak: float, end: float, *, power: float, warmup_steps: int, total_steps: int) -> Schedule:
    """`peak` times a power of the share of remaining steps, at least `end` (DeepLab's "poly" policy).

    The share refers to all steps, including the warm-up, as in learnable_polyphase_sampling.
    """

    def decayed(step: jax.Array) -> jax.Array:
        left = jnp.clip(1 - step / total_steps, 0, 1)
        return jnp.maximum(peak * left**power, end)

    return _warmed_up(peak, warmup_steps, decayed)


def decaying_temperature(factor: float, *, every: int, least: float) -> Schedule:
    """1, multiplied by `factor` after every `every` steps (at least 1), never below `least`.

    This is StepDecay of LPS.
    """

    def temperature(step: jax.Array | int) -> jax.Array:
        return jnp.maximum(factor ** (jnp.asarray(step) // every), least).astype(jnp.float32)

    return temperature


def linear_temperature(steps: Sequence[int], values: Sequence[float], *, first: int = 0) -> Schedule:
    """1 up to step `first`, then piecewise linear through `values` at `steps`, then constant.

    This is MultiStep of LPS, which starts to fall after the first epoch; `first` is the length of that epoch.
    If the first of the ascending `steps` is not later than `first`, the temperature falls from step 0. If
    several values belong to the same step, the last one is used.
    """
    start = first if first < min(steps, default=0) else 0
    heights = {start: 1.0} | dict(zip(steps, values, strict=True))
    # Interpolation is exact at every knot except the last. One more knot avoids values below the target.
    knots, reached = [*heights, max(heights) + 1], [*heights.values(), [*heights.values()][-1]]

    def temperature(step: jax.Array | int) -> jax.Array:
        known = jnp.asarray(knots, jnp.float32), jnp.asarray(reached, jnp.float32)
        return jnp.interp(jnp.asarray(step, jnp.float32), *known)

    return temperature


# Makes the learning rate from the section `optimizer` and the plan, by the name in `optimizer.schedule`.
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
# Makes the temperature from the section `train.temperature` and the plan, by `schedule`; None: always 1.
TEMPERATURES: dict[str, Callable[[ConfigDict, Plan], Schedule | None]] = {
    "constant": lambda temperature, plan: None,
    "decay": lambda temperature, plan: decaying_temperature(
        temperature.factor,
        every=max(1, plan.steps(temperature.every_epochs)),  # in a short run, every update decays
        least=temperature.least,
    ),
    "linear": lambda temperature, plan: linear_temperature(
        [plan.steps(epoch) for epoch in temperature.at_epochs],
        temperature.targets,
        first=plan.steps_per_epoch,
    ),
}


def learning_rate(optimizer: ConfigDict, plan: Plan) -> Schedule:
    """The learning rate of the section `optimizer` of a configuration."""
    return LEARNING_RATES[optimizer.schedule](optimizer, plan)


def temperature(config: ConfigDict, plan: Plan) -> Schedule | None:
    """The temperature of the section `train.temperature`; None if it is constant, that is 1."""
    return TEMPERATURES[config.schedule](config, plan)

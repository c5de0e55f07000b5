"""The durations of a configuration, given in epochs, converted to steps: once, here."""

import dataclasses

from ml_collections import ConfigDict

from aliasfree_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Plan:
    """Lengths in steps, one step being one parameter update."""

    steps_per_epoch: int
    total: int
    warmup: int
    evaluate_every: int  # 0: only at the end
    save_every: int  # 0: only at the end
    blend: int = 0  # until the network has its own layers only; 0: it has from the start

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
        steps_per_epoch=steps_per_epoch,
        total=steps(config.train.total_epochs),
        warmup=steps(config.optimizer.warmup_epochs),
        evaluate_every=steps(config.eval.every_epochs),
        save_every=steps(config.checkpoint.every_epochs),
        blend=steps(config.train.blend.epochs),
    )

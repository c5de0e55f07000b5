"""Runs a whole recipe in miniature: every component, a few updates."""

from collections.abc import Mapping

from ml_collections import ConfigDict

from aliasfree_jax.validation import validate

UPDATES = 3
IMAGES = 4  # images per device and micro-batch, and per group of mixup and CutMix
EVALUATED = 8


def shortened(config: ConfigDict, devices: int) -> ConfigDict:
    """`config` with three updates of a few images, and all schedules shortened in proportion.

    Network, augmentation, optimizer, precision, averaging, evaluation and checkpoints stay the same. So an
    error that would come after hours, or at the end, comes within minutes. Groups of images that are mixed or
    normalised together become those of one device.

    Args:
      config: the configuration.
      devices: number of devices that share the batch.

    Raises:
      ConfigError: `config` itself is invalid.
    """
    validate(config)
    short = config.copy_and_resolve_references()
    share = 1 / config.train.total_epochs
    short.train.accumulation_steps = min(2, config.train.accumulation_steps)
    short.train.batch_size = IMAGES * devices * short.train.accumulation_steps
    short.train.mixing.group = IMAGES
    norm = short.model.options.get("norm")
    if isinstance(norm, Mapping | ConfigDict) and norm.get("group"):  # batch norm over groups of images
        short.model.options.norm = {**norm, "group": IMAGES}
    short.train.total_epochs = 1.0
    short.data.train_limit = UPDATES * short.train.batch_size
    short.data.validation = 0.0  # with so few images, most classes have one or none
    short.data.eval_limit = short.eval.batch_size = EVALUATED
    short.optimizer.warmup_epochs *= share
    short.optimizer.step_epochs = tuple(share * epoch for epoch in config.optimizer.step_epochs)
    temperature = short.train.temperature
    temperature.every_epochs *= share
    temperature.at_epochs = tuple(share * epoch for epoch in config.train.temperature.at_epochs)
    short.eval.every_epochs, short.eval.shifts = 0.0, 2
    short.checkpoint.every_epochs = 1 / UPDATES
    short.log.every_steps = 1
    short.dry_run = False
    return short

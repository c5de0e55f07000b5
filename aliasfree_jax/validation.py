"""Finds the faults of a training configuration before any device is used."""

from collections.abc import Iterator

from ml_collections import ConfigDict

from aliasfree_jax.config import FIELDS, LOSSES, OPEN, SHIFTS_DURING, SMALLER_IS_BETTER, fields, result_names
from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.legal_values import fault


def _below(section: str) -> list[str]:
    """Fields of a section, such as "data."."""
    return [field for field in FIELDS if field.startswith(section)]


def field_fault(name: str) -> str | None:
    """Describes the fault in the name of a field or section, such as "data.pth"; None if there is none."""
    if name in FIELDS or _below(f"{name}."):
        return None
    for section, legal in OPEN.items():
        if name.startswith(f"{section}."):
            if legal is None or name.removeprefix(f"{section}.").partition(".")[0] in legal:
                return None
            return unknown("field", name, [f"{section}.{key}" for key in legal])
    above = name.split(".")[:-1]
    while above and not _below(".".join(above) + "."):
        above.pop()
    section = "".join(f"{key}." for key in above)
    known = {section + field.removeprefix(section).partition(".")[0] for field in _below(section)}
    return unknown("field", name, known)


def _shift_faults(config: ConfigDict) -> Iterator[str]:
    during = config.eval.during
    for kind in during:
        if kind not in SHIFTS_DURING:
            several = " Write several kinds as \"('integer', 'fractional')\"."
            yield unknown("eval.during", kind, SHIFTS_DURING) + several
    if len(set(during)) < len(during):
        yield f"eval.during names a kind of shifts twice: {', '.join(during)}."


def _cross_faults(config: ConfigDict) -> Iterator[str]:
    """Faults of combinations of fields. Each single field is in its range."""
    data, train, mixing = config.data, config.train, config.train.mixing
    if data.circular_shift > data.image_size // 2:
        yield (
            f"data.circular_shift must be 0 (no shifts) to {data.image_size // 2} pixels (half the image), "
            f"got {data.circular_shift}."
        )
    if data.rand_augment and data.color_jitter:
        yield "data.rand_augment and data.color_jitter cannot be combined: set only one of them."
    if config.task != "classification" and (data.rand_augment or max(mixing.mixup, mixing.cutmix) > 0):
        yield (
            f"data.rand_augment and train.mixing are for task = 'classification', not for {config.task!r}: "
            "set data.rand_augment = '' and train.mixing.mixup = train.mixing.cutmix = 0."
        )
    if config.task == "regression" and train.label_smoothing:
        yield "train.label_smoothing is for classes, not for task = 'regression': set it to 0."
    if config.task != "regression" and (data.noise or data.reduction > 1):
        yield f"data.noise and data.reduction are for task = 'regression', not for {config.task!r}."
    if len(data.mean) != len(data.std):
        yield (
            f"data.mean has {len(data.mean)} channels and data.std has {len(data.std)}: they must have the "
            "same number."
        )
    micro, left = divmod(train.batch_size, train.accumulation_steps)
    if left:
        yield (
            f"train.batch_size = {train.batch_size} is not a multiple of "
            f"train.accumulation_steps = {train.accumulation_steps}."
        )
    if max(mixing.mixup, mixing.cutmix) > 0 and (mixing.group < 2 or micro % mixing.group):
        yield (
            f"train.mixing.group = {mixing.group} images are mixed among themselves: it must be at least 2 "
            f"and divide the {micro} images of a micro-batch (train.batch_size / train.accumulation_steps)."
        )
    if (warmup := config.optimizer.warmup_epochs) > train.total_epochs:
        yield f"optimizer.warmup_epochs = {warmup} exceeds train.total_epochs = {train.total_epochs}."
    epochs, targets = tuple(train.temperature.at_epochs), tuple(train.temperature.targets)
    if len(epochs) != len(targets):
        yield (
            "train.temperature.at_epochs and train.temperature.targets must have the same length, got "
            f"{epochs} and {targets}."
        )
    if train.loss not in LOSSES[config.task]:
        yield f"train.loss of task = {config.task!r}: " + unknown("loss", train.loss, LOSSES[config.task])
    names = [name for name in result_names(config) if not name.endswith(SMALLER_IS_BETTER)]
    if config.checkpoint.best not in ("", *names):
        yield (
            unknown("checkpoint.best", config.checkpoint.best, names)
            + " Consistencies exist for the shifts in eval.during, raw_ ones if train.ema_decay > 0."
        )
    profiled = tuple(config.log.profile_steps)
    if profiled and not (len(profiled) == 2 and 1 < profiled[0] <= profiled[1]):
        yield (
            "log.profile_steps must be (first, last) steps, from 2 on, because step 1 compiles; got "
            f"{profiled}."
        )


def validate(config: ConfigDict) -> None:
    """Raises one `ConfigError` that lists every fault of `config`.

    Combinations of fields are checked only if each number is in its range.
    """
    values = fields(config.to_dict())
    faults = [text for text in map(field_fault, values) if text]
    if not faults:
        found = [(legal, fault(field, values.get(field), legal)) for field, (_, legal) in FIELDS.items()]
        faults = [*(text for _, text in found if text), *_shift_faults(config)]
        if not any(text for legal, text in found if not isinstance(legal, tuple)):
            faults += _cross_faults(config)
    if faults:
        raise ConfigError("invalid configuration:\n  - " + "\n  - ".join(faults))

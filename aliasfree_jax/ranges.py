"""What every number of a configuration may be: one table, and the check against it.

A field of `config.base_config` that holds numbers has an entry here; a test sees to it. What one
field demands of another is in `config.validate`.
"""

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that a field may have.

    Attributes:
      least, most: the bounds; infinity itself is never legal.
      above, below: the bound itself is left out.
      whole: no fractions, and no float either.
    """

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    below: bool = False
    whole: bool = False

    def fault(self, value: Any) -> str | None:
        """What is wrong with `value`, behind "must"; None if nothing is. True and False are no numbers."""
        kind: Any = numbers.Integral if self.whole else numbers.Real
        if isinstance(value, bool) or not isinstance(value, kind):
            return "be a whole number" if self.whole else "be a number"
        if not self.whole and not math.isfinite(value):
            return "be finite"
        low = self.least < value if self.above else self.least <= value
        high = value < self.most if self.below else value <= self.most
        return None if low and high else self._bounds()

    def _bounds(self) -> str:
        if self.most < math.inf:
            left, right = "(" if self.above else "[", ")" if self.below else "]"
            return f"lie in {left}{self.least:.10g}, {self.most:.10g}{right}"
        if self.above or (self.whole and self.least == 1):
            return "be positive"
        return "not be negative" if self.least == 0 else f"be at least {self.least:g}"


@dataclasses.dataclass(frozen=True)
class Several:
    """A list whose elements all lie in one range.

    Attributes:
      each: that range.
      fewest, longest: how many there may be.
      ascending: none is smaller than the one before.
    """

    each: Range
    fewest: int = 0
    longest: float = math.inf
    ascending: bool = False

    def fault(self, value: Any) -> str | None:
        """See `Range.fault`."""
        if not isinstance(value, list | tuple):
            return "be a list of numbers"
        faults = [self.each.fault(element) for element in value]
        first = next(filter(None, faults), None)
        if first:
            return f"hold elements of which each must {first}"
        if not self.fewest <= len(value) <= self.longest:
            return f"have {self.fewest}{' or more' if self.longest == math.inf else ''} elements"
        return "be in ascending order" if self.ascending and list(value) != sorted(value) else None


_COUNT, _POSITIVE_COUNT = Range(0, whole=True), Range(1, whole=True)
_NUMBER, _POSITIVE, _NOT_NEGATIVE = Range(), Range(0, above=True), Range(0)
_SHARE, _PART = Range(0, 1), Range(0, 1, above=True)  # 0 is none; a part is some
_DECAY = Range(0, 1, below=True)  # of an average: 1 would never change it

RANGES: Mapping[str, Range | Several] = {
    "seed": Range(0, 2**32 - 1, whole=True),  # as numpy takes it
    "data.image_size": _POSITIVE_COUNT,
    "data.zero_pad": _COUNT,
    "data.mean": Several(_NUMBER, fewest=1),
    "data.std": Several(_POSITIVE, fewest=1),
    "data.crop_padding": _COUNT,
    "data.crop_scale": Several(_PART, fewest=2, longest=2, ascending=True),
    "data.color_jitter": _NOT_NEGATIVE,
    "data.erase_probability": _SHARE,
    "data.circular_shift": _COUNT,
    "data.eval_crop_ratio": _PART,
    "data.workers": _COUNT,
    "data.validation": Range(0, 1, below=True),  # the share that is held out
    "data.train_limit": _COUNT,
    "data.eval_limit": _COUNT,
    "train.batch_size": _POSITIVE_COUNT,
    "train.accumulation_steps": _POSITIVE_COUNT,
    "train.total_epochs": _POSITIVE,
    "train.label_smoothing": _DECAY,
    "train.mixing.mixup": _NOT_NEGATIVE,
    "train.mixing.cutmix": _NOT_NEGATIVE,
    "train.mixing.probability": _SHARE,
    "train.mixing.switch": _SHARE,
    "train.mixing.group": _POSITIVE_COUNT,
    "train.ema_decay": _DECAY,
    "train.devices": _COUNT,
    "train.parameter_shards": _POSITIVE_COUNT,
    "train.blend.epochs": _NOT_NEGATIVE,
    "train.temperature.every_epochs": _POSITIVE,
    "train.temperature.factor": _PART,  # temperatures start at 1, and fall
    "train.temperature.least": _PART,
    "train.temperature.at_epochs": Several(_NOT_NEGATIVE, ascending=True),
    "train.temperature.targets": Several(_PART),
    "optimizer.learning_rate": _POSITIVE,
    "optimizer.step_epochs": Several(_NOT_NEGATIVE, ascending=True),
    "optimizer.step_factor": _POSITIVE,
    "optimizer.momentum": _DECAY,
    "optimizer.min_learning_rate": _NOT_NEGATIVE,
    "optimizer.warmup_epochs": _NOT_NEGATIVE,
    "optimizer.weight_decay": _NOT_NEGATIVE,
    "optimizer.b1": _DECAY,
    "optimizer.b2": _DECAY,
    "optimizer.eps": _POSITIVE,
    "optimizer.clip_norm": _NOT_NEGATIVE,
    "optimizer.layer_decay": _PART,
    "eval.batch_size": _POSITIVE_COUNT,
    "eval.every_epochs": _NOT_NEGATIVE,
    "eval.shifts": _POSITIVE_COUNT,
    "eval.max_shift": _POSITIVE_COUNT,
    "eval.crop_margin": _POSITIVE_COUNT,
    "eval.worst_case_radius": _POSITIVE_COUNT,
    "eval.finest_fraction": Range(2, whole=True),  # halves
    "eval.pictured_image": _COUNT,
    "eval.attack.rotation": _NOT_NEGATIVE,
    "eval.attack.translation": _SHARE,
    "eval.attack.enlargement": Range(1),
    "checkpoint.every_epochs": _NOT_NEGATIVE,
    "checkpoint.keep": _POSITIVE_COUNT,
    "log.every_steps": _POSITIVE_COUNT,
    "log.profile_steps": Several(_POSITIVE_COUNT),
}


def range_faults(config: Mapping[str, Any]) -> list[str]:
    """What is wrong with the numbers of a configuration, a sentence for each field."""
    faults = []
    for field, legal in RANGES.items():
        value: Any = config
        for key in field.split("."):
            value = value[key]
        fault = legal.fault(value)
        if fault:
            faults.append(f"{field} must {fault}, got {value!r}.")
    return faults

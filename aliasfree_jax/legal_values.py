"""What a field of a configuration may be: a number in a range, a list of such, or one of some words."""

import dataclasses
import math
import numbers
from typing import Any

from aliasfree_jax.errors import unknown


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


COUNT, POSITIVE_COUNT = Range(0, whole=True), Range(1, whole=True)
NUMBER, POSITIVE, NOT_NEGATIVE = Range(), Range(0, above=True), Range(0)
SHARE, PART = Range(0, 1), Range(0, 1, above=True)  # 0 is none; a part is some
DECAY = Range(0, 1, below=True)  # of an average: 1 would never change it

# A tuple: one of these words. None: anything of the default's type.
Legal = Range | Several | tuple[str, ...] | None


def fault(field: str, value: Any, legal: Legal) -> str | None:
    """What is wrong with the value of a field, as a sentence; None if nothing is."""
    if isinstance(legal, tuple):
        return None if value in legal else unknown(field, value, legal)
    must = legal and legal.fault(value)
    return f"{field} must {must}, got {value!r}." if must else None

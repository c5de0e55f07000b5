"""Legal values of the fields of a configuration: numbers in a range, lists of numbers, or words."""

import dataclasses
import math
import numbers
from typing import Any

from aliasfree_jax.errors import unknown


@dataclasses.dataclass(frozen=True)
class Range:
    """A range of numbers.

    Attributes:
      least: Lower bound. Infinite values are never legal.
      most: Upper bound.
      above: The lower bound is not legal.
      below: The upper bound is not legal.
      whole: Only integers are legal. Floats are not, even without a fraction.
    """

    least: float = -math.inf
    most: float = math.inf
    above: bool = False
    below: bool = False
    whole: bool = False

    def fault(self, value: Any) -> str | None:
        """Returns the words that follow "must" in the message, or None if `value` is legal.

        True and False do not count as numbers.
        """
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
    """A list of numbers that all lie in one range.

    Attributes:
      each: Range of the elements.
      fewest: Smallest number of elements.
      longest: Largest number of elements.
      ascending: Each element is at least the element before it.
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
SHARE, PART = Range(0, 1), Range(0, 1, above=True)  # a share may be 0, a part may not
DECAY = Range(0, 1, below=True)  # decay of an average: with 1 the average would never change

# A tuple: one of these words. None: any value of the default's type.
Legal = Range | Several | tuple[str, ...] | None


def fault(field: str, value: Any, legal: Legal) -> str | None:
    """Returns a sentence about the fault in a field's value, or None if the value is legal."""
    if isinstance(legal, tuple):
        return None if value in legal else unknown(field, value, legal)
    must = legal and legal.fault(value)
    return f"{field} must {must}, got {value!r}." if must else None

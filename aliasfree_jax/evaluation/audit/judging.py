"""Tells the calls that break equivariance from those that only pass a broken input on."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from aliasfree_jax.evaluation.audit.alignment import tolerance
from aliasfree_jax.evaluation.audit.recording import Call
from aliasfree_jax.evaluation.audit.remedies import Break

# A tolerance from here on leaves nothing to tell: bfloat16's.
DECIDABLE = 0.1


@dataclasses.dataclass(frozen=True)
class Judge:
    """Says of the calls of one run in float64 which of them break equivariance.

    Attributes:
      calls: those inside a call before it.
      limits: the error up to which each is exact, by its `left`.
    """

    calls: Sequence[Call]
    limits: Mapping[int, float]

    def broken(self, call: Call) -> bool:
        """Whether the output does not move along; False where it is not compared."""
        return call.result.error > self.limits[call.left]

    def exact(self, call: Call) -> bool:
        """Whether the output does; False also where it is not compared, or rounding allows no answer."""
        return call.result.error <= self.limits[call.left] < DECIDABLE

    def mended(self, call: Call) -> bool:
        """Whether a broken output is exact again behind the layer around it, or behind the next layer."""
        return self.broken(call) and any(
            self.exact(other)
            for other in self.calls
            if other.entered < call.entered < call.left < other.left or other.takes == call.left
        )

    def inside(self, call: Call) -> list[Call]:
        """The layers directly inside, in the order of their calls."""
        within = [c for c in self.calls if call.entered < c.entered and c.left < call.left]
        direct = [c for c in within if not any(o.entered < c.entered and c.left < o.left for o in within)]
        return sorted(direct, key=lambda c: c.entered)

    def breaks(self, call: Call) -> Iterator[Break]:
        """Where in a call with an exact input and a broken output the error arises, the first place first."""
        found, previous = False, None
        for child in self.inside(call):
            if self.broken(child) and not self.mended(child):
                if child.source.error <= self.limits[child.left]:
                    yield from self.breaks(child)
                elif not found:
                    yield Break(call, previous, child)
                found = True
            previous = child if self.exact(child) else previous
        if not found and self.broken(call):
            yield Break(call, previous, None)


def limits_of(calls: Sequence[Call]) -> dict[int, float]:
    """What counts as rounding behind each call: float64's, or that of the narrowest type on the way."""
    limit, limits = tolerance(np.float64), {}
    for call in calls:
        for seen in (call.source, call.result):
            if seen.dtype:
                limit = max(limit, tolerance(seen.dtype))
        limits[call.left] = limit
    return limits

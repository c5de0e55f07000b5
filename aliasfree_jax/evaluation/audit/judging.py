"""Tells the calls that break equivariance from those that pass a broken input on, and what replaces them.

Rows are those of the table in docs/changing_your_network.md.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from aliasfree_jax.evaluation.audit.alignment import Shift, pair, tolerance
from aliasfree_jax.evaluation.audit.recording import Call
from aliasfree_jax.layers import MaxBlurPool
from aliasfree_jax.layers.sampling import Sampler

# A tolerance from here on leaves nothing to tell: bfloat16's.
DECIDABLE = 0.1
GUIDE = "docs/changing_your_network.md"

CONVOLUTION = "strided convolution"
SAMPLER = "a sampler that aliases"
POOL = "max pool of k by s"
PADDING = "zero padding"
ACTIVATION = "ReLU, GELU"
NORM = "layer norm over channels"
UPSAMPLING = "upsampling by s"
FLATTENING = "flattening"
ROWS = (CONVOLUTION, SAMPLER, POOL, PADDING, ACTIVATION, NORM, UPSAMPLING, FLATTENING)


def describe(call: Call) -> str:
    """The class of a layer, and its stride where it has one: "Conv, stride 2"."""
    return call.module.__name__ + (f", stride {call.stride}" if call.stride > 1 else "")


def _name(call: Call) -> str:
    return f"{call.path} ({describe(call)})" if call.path else f"the network itself ({describe(call)})"


@dataclasses.dataclass(frozen=True)
class Break:
    """Where an error arises.

    Attributes:
      call: the layer whose input is exact and whose output is not, with no such layer inside.
      previous: the last layer inside it whose output is exact, if there is one.
      following: the layer inside it whose input has the error, if there is one.
    """

    call: Call
    previous: Call | None
    following: Call | None

    @property
    def _outside(self) -> bool:
        """Whether a function called between layers is to blame."""
        return self.previous is not None or self.following is not None

    def _shapes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Of the map before and behind what breaks."""
        source = self.previous.result.shape if self.previous else self.call.source.shape
        return source, self.following.source.shape if self.following else self.call.result.shape

    def row(self, shift: Shift) -> str | None:
        """The row of the guide's table; None if it has none."""
        source, result = self._shapes()
        kind, shrinks = self.call.module.__name__, source[1:3] > result[1:3]
        windowed = not self._outside and "kernel_size" in getattr(
            self.call.module, "__dataclass_fields__", ()
        )
        if len(source) == 4 and len(result) == 2:
            if result[1] > source[3] and result[1] % source[3] == 0:
                return FLATTENING
            return ACTIVATION if _fractional(shift) else None
        if len(source) != 4 or len(result) != 4:
            return None
        if issubclass(self.call.module, Sampler):
            return SAMPLER
        if issubclass(self.call.module, MaxBlurPool):
            return POOL
        if result[1:3] > source[1:3]:
            return UPSAMPLING
        if windowed or self.call.stride > 1:
            return CONVOLUTION if self.call.stride > 1 else PADDING
        if shrinks:
            return POOL
        if "Norm" in kind and not self._outside:
            return NORM
        return ACTIVATION if _fractional(shift) else PADDING

    def sentence(self, shift: Shift) -> str:
        """What breaks first under `shift`, by how much, and what replaces it."""
        after, error = "its output", self.call.result.error
        if self.following and not math.isnan(self.following.source.error):
            after, error = f"what it passes to {self.following.path}", self.following.source.error
        text = (
            f"{_name(self.call)} is the first to break under a shift by {pair(shift)}: its input moves along "
            f"(error {self.call.source.error:.1e}), {after} does not ({error:.1e})."
        )
        if self._outside:
            ends = [f"{w} {c.path}" for w, c in (("after", self.previous), ("before", self.following)) if c]
            text += f" None of its layers does: look at what it calls {' and '.join(ends)}."
        row = self.row(shift)
        return text + (f' What replaces it: {GUIDE}, row "{row}".' if row else f" See {GUIDE}.")


def _fractional(shift: Shift) -> bool:
    return any(s % 1 for s in shift)


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

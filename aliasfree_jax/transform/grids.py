"""Where maps are sampled."""

import dataclasses
from collections.abc import Hashable
from fractions import Fraction
from typing import Any

Strides = tuple[int, int]
Step = int | Fraction
ONE: Strides = (1, 1)


@dataclasses.dataclass(frozen=True)
class Grid:
    """Positions at which maps are sampled; two maps are on one grid if theirs are equal.

    Attributes:
      source: the grid that it was made from; of images, their sides.
      kind: how it was made: "images", "phase" (sampled at a phase of its own), "components" (all polyphase
        ones), "component" (one of them), "mirrored" (rows or columns run backwards: such maps can only pad
        others), or any other word.
      choice: what tells it from others that were made so: strides, the phase.
      factor: it has every so many-th position of these, from the first on; by fractions, positions between.
    """

    source: Any
    kind: str = "images"
    choice: Hashable = None
    factor: tuple[Step, Step] = ONE

    @property
    def mirrored(self) -> bool:
        """Whether rows or columns run backwards."""
        return self.kind == "mirrored"

    @property
    def images(self) -> Strides:
        """The sides of the images that it goes back to."""
        return self.source.images if isinstance(self.source, Grid) else self.source

    @property
    def kinds(self) -> set[str]:
        """How it, and the grids before it, were made."""
        return {self.kind} | (self.source.kinds if isinstance(self.source, Grid) else set())

    def sampled(self, strides: tuple[Step, Step]) -> "Grid":
        """The grid of every so many-th position, from the first on; by fractions, of positions between."""
        factor = self.factor[0] * strides[0], self.factor[1] * strides[1]
        return dataclasses.replace(self, factor=factor)

    def resampled(self, sides: Strides, to: Strides) -> "Grid":
        """The grid of `to` positions round the circle, from the same first one; this one has `sides`."""
        return self.sampled((Fraction(sides[0], to[0]), Fraction(sides[1], to[1])))

"""The positions at which maps are sampled."""

import dataclasses
from collections.abc import Hashable
from fractions import Fraction
from typing import Any

Strides = tuple[int, int]
Step = int | Fraction
ONE: Strides = (1, 1)


@dataclasses.dataclass(frozen=True)
class Grid:
    """The positions at which a map is sampled. Two maps share a grid if their grids are equal.

    Attributes:
      source: The grid that this one was made from. For images: their sides.
      kind: How it was made: "images", "phase" (sampled at a chosen phase), "components" (all polyphase
        components), "component" (one of them), "some images" (a part of the batch), "mirrored" (rows or
        columns reversed: such maps can only pad other maps), or any other word.
      choice: Distinguishes grids of one source and kind: strides, the phase.
      factor: The step between positions along rows and columns, starting at the first. Fractions add
        positions between.
    """

    source: Any
    kind: str = "images"
    choice: Hashable = None
    factor: tuple[Step, Step] = ONE

    @property
    def mirrored(self) -> bool:
        """Whether rows or columns are reversed."""
        return self.kind == "mirrored"

    @property
    def images(self) -> Strides:
        """The sides of the original images."""
        return self.source.images if isinstance(self.source, Grid) else self.source

    @property
    def kinds(self) -> set[str]:
        """The kinds of this grid and of all its sources."""
        return {self.kind} | (self.source.kinds if isinstance(self.source, Grid) else set())

    @property
    def choices(self) -> frozenset[Any]:
        """The choices of phases by this grid and its sources: each image has its own."""
        own = {(self.source, self.kind, self.choice)} if self.kind in ("phase", "component") else set()
        return self.source.choices.union(own) if isinstance(self.source, Grid) else frozenset(own)

    def of_part(self, part: Hashable) -> "Grid":
        """The grid of a part of the images, or of images in another order, if each has its own phase."""
        return Grid(self, "some images", part) if self.choices else self

    def sampled(self, strides: tuple[Step, Step]) -> "Grid":
        """The grid with steps `strides` times as long. Fractions add positions between."""
        factor = self.factor[0] * strides[0], self.factor[1] * strides[1]
        return dataclasses.replace(self, factor=factor)

    def resampled(self, sides: Strides, to: Strides) -> "Grid":
        """The grid of `to` positions with the same first position. This one has `sides` positions."""
        return self.sampled((Fraction(sides[0], to[0]), Fraction(sides[1], to[1])))

"""Where maps are sampled."""

import dataclasses
from fractions import Fraction
from typing import Any

Strides = tuple[int, int]
Step = int | Fraction
ONE: Strides = (1, 1)


@dataclasses.dataclass(eq=False)
class Grid:
    """Positions at which maps are sampled; two maps are on one grid if they hold the same object.

    Attributes:
      root, factor: the grid of which this one has every so many-th position, where no phase was chosen.
      coarser: by strides, the grid that this one was sampled to, and the phase of it: the first map that is
        sampled decides, all others follow.
      mirrored: whether rows or columns run backwards; such maps can only pad others.
      split: by strides, the grid of the polyphase components of this one.
      finer, phase: of a component, the grid that it was chosen from, and by which array.
      chosen: of components, the grids of those that were chosen.
    """

    root: "Grid | None" = None
    factor: tuple[Step, Step] = ONE
    coarser: dict[tuple[Step, Step], tuple["Grid", Any]] = dataclasses.field(default_factory=dict)
    mirrored: bool = False
    split: dict[Strides, "Grid"] = dataclasses.field(default_factory=dict)
    finer: "Grid | None" = None
    phase: Any = None
    chosen: list["Grid"] = dataclasses.field(default_factory=list)

    def sampled(self, strides: tuple[Step, Step]) -> "Grid":
        """The grid of every so many-th position, from the first on; by fractions, of positions between."""
        if strides == ONE:
            return self
        root, factor = self.root or self, (self.factor[0] * strides[0], self.factor[1] * strides[1])
        return root if factor == ONE else root.coarser.setdefault(factor, (Grid(root, factor), None))[0]

    def resampled(self, sides: Strides, to: Strides) -> "Grid":
        """The grid of `to` positions round the circle, from the same first one; this one has `sides`."""
        return self.sampled((Fraction(sides[0], to[0]), Fraction(sides[1], to[1])))

    def components(self, strides: Strides) -> "Grid":
        """The grid of the polyphase components."""
        return self.split.setdefault(strides, Grid(finer=self))

    def chosen_by(self, phase: Any) -> "Grid":
        """Of the grid of components, that of the one that the array `phase` chooses."""
        for grid in self.chosen:
            if grid.phase is phase:
                return grid
        self.chosen.append(Grid(finer=self.finer, phase=phase))
        return self.chosen[-1]

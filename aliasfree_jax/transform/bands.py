"""The frequency band of a map. It decides whether the map follows shifts by fractions of a pixel.

A map with frequencies up to `h`, on a grid of `m` positions, is a sampled continuous map. Convolutions and
elementwise functions act on the continuous map, and commute with all its shifts. Aliases matter only where
samples are read: filtered, sampled again or summed. There, frequencies above `m - h` are mixed with their
aliases, which change under a shift. Frequencies below `m - h` are clean. Frequencies are counted in cycles
per image side, so that they mean the same on every grid.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

from aliasfree_jax.transform.lines import Place

Sides = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Band:
    """The frequency band of a map.

    Attributes:
      highest: The highest frequency along rows and along columns. It is infinite after a function that is
        not a polynomial.
      unit: Rows and columns of the last grid that moved by whole positions under every whole-pixel shift.
      arose: The polynomials that created frequencies since the last filter.
      unbounded: The other functions that created frequencies since the last filter.
    """

    highest: tuple[float, float]
    unit: Sides
    arose: tuple[Place, ...] = ()
    unbounded: tuple[Place, ...] = ()

    def moves(self, sides: Sides) -> str:
        """The smallest kind of image shift that moves a map of this grid by fractions of a position.

        Shifts by fractions of a pixel always do. After ideal sampling, whole-pixel shifts do so too.
        """
        whole = all(side % unit == 0 for side, unit in zip(sides, self.unit, strict=True))
        return "fractions" if whole else "whole pixels"

    def clean(self, sides: Sides, upto: Sequence[float]) -> bool:
        """Whether frequencies up to `upto` are free of aliases."""
        return all(side - h > u for side, h, u in zip(sides, self.highest, upto, strict=True))

    def held(self, sides: Sides) -> bool:
        """Whether all frequencies lie below the Nyquist frequency of a grid."""
        return all(2 * h < side for side, h in zip(sides, self.highest, strict=True))

    def cut(self, highest: Sequence[float]) -> "Band":
        """The band after a filter that passes frequencies up to `highest`."""
        rows, columns = (min(h, most) for h, most in zip(self.highest, highest, strict=True))
        return Band((rows, columns), self.unit)

    def sampled(self, sides: Sides, coarse: Sides) -> "Band":
        """The band after sampling a map of `sides` to `coarse` positions."""
        unit = tuple(c if side % u == 0 else u for side, c, u in zip(sides, coarse, self.unit, strict=True))
        return dataclasses.replace(self.cut(below_nyquist(coarse)), unit=(unit[0], unit[1]))

    def behind(self, place: Place | None, degree: float) -> "Band":
        """The band after a function at `place`: a polynomial of this degree, or any other if infinite."""
        field = "arose" if math.isfinite(degree) else "unbounded"
        places = tuple(p for p in getattr(self, field) if p is not place)
        return dataclasses.replace(self, **{field: (*places, place)})


def below_nyquist(sides: Sides) -> tuple[float, float]:
    """The limit of the frequencies that survive shifts by fractions of a pixel.

    Fractional shifts do not keep the Nyquist frequency of an even side, so the limit is half a cycle lower.
    """
    return (sides[0] - 1) / 2, (sides[1] - 1) / 2


def whole(sides: Sides) -> Band:
    """The band of images."""
    return Band(below_nyquist(sides), sides)


def between(band: Band, sides: Sides, finer: Sides) -> Band:
    """The band after zeros, or copies, are inserted between the positions of a map."""
    return dataclasses.replace(band.sampled(sides, finer), highest=below_nyquist(finer))


def joined(bands: Iterable[Band | None], highest: Sequence[float] | None = None) -> Band | None:
    """The band of a combination of maps: up to `highest`, by default the highest frequency of the maps."""
    known = [band for band in bands if band is not None]
    if not known:
        return None
    rows, columns = highest or [max(band.highest[axis] for band in known) for axis in (0, 1)]
    arose = dict.fromkeys(place for band in known for place in band.arose)
    unbounded = dict.fromkeys(place for band in known for place in band.unbounded)
    return Band((rows, columns), known[0].unit, tuple(arose), tuple(unbounded))


def multiplied(bands: Sequence[Band | None], place: Place) -> Band | None:
    """The band of the product of maps, computed at `place`."""
    known = [band for band in bands if band is not None]
    rows, columns = (sum(band.highest[axis] for band in known) for axis in (0, 1))
    band = joined(known, (rows, columns))
    return band and band.behind(place, 2)

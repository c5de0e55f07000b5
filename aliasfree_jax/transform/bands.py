"""Which frequencies a map has: what decides whether it moves along with shifts by fractions of a pixel.

Samples of a map with frequencies up to h, on a grid of m places, are those of a continuous map. Convolutions
and functions of each element act on that map as well, whatever h is, and commute with all shifts of it. Where
samples are read (filtered, sampled again, summed), frequencies above m - h are mixed with their aliases,
which a shift changes: those below are clean. Frequencies are counted in cycles round the circle, so that they
mean the same on every grid.
"""

import dataclasses
import math
from collections.abc import Iterable, Sequence

from aliasfree_jax.transform.lines import Place

Sides = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Band:
    """The frequencies of a map.

    Attributes:
      highest: of rows and columns; infinite behind a function that is no polynomial.
      unit: rows and columns of the last grid that moved by whole places whenever the images did.
      arose: the functions that made frequencies since they were last filtered.
      unbounded: those of them that are no polynomials.
    """

    highest: tuple[float, float]
    unit: Sides
    arose: tuple[Place, ...] = ()
    unbounded: tuple[Place, ...] = ()

    def moves(self, sides: Sides) -> str:
        """The least shifts of the images that move a map of this grid by fractions of its places.

        All shifts do, that are no whole pixels; behind ideal sampling, whole pixels as well.
        """
        whole = all(side % unit == 0 for side, unit in zip(sides, self.unit, strict=True))
        return "fractions" if whole else "whole pixels"

    def clean(self, sides: Sides, upto: Sequence[float]) -> bool:
        """Whether frequencies up to `upto` have no aliases."""
        return all(side - h > u for side, h, u in zip(sides, self.highest, upto, strict=True))

    def held(self, sides: Sides) -> bool:
        """Whether a grid has all frequencies below its Nyquist frequency."""
        return all(2 * h < side for side, h in zip(sides, self.highest, strict=True))

    def cut(self, highest: Sequence[float]) -> "Band":
        """The band behind a filter that passes frequencies up to `highest`."""
        rows, columns = (min(h, most) for h, most in zip(self.highest, highest, strict=True))
        return Band((rows, columns), self.unit)

    def sampled(self, sides: Sides, coarse: Sides) -> "Band":
        """The band behind sampling `sides` to `coarse` places, which move by whole ones as those did."""
        unit = tuple(c if side % u == 0 else u for side, c, u in zip(sides, coarse, self.unit, strict=True))
        return dataclasses.replace(self.cut(below_nyquist(coarse)), unit=(unit[0], unit[1]))

    def behind(self, place: Place | None, degree: float) -> "Band":
        """The band with the function at `place`, of this degree, among those that made it."""
        field = "arose" if math.isfinite(degree) else "unbounded"
        places = tuple(p for p in getattr(self, field) if p is not place)
        return dataclasses.replace(self, **{field: (*places, place)})


def below_nyquist(sides: Sides) -> tuple[float, float]:
    """What the highest frequencies do not exceed that shifts by fractions of a pixel keep.

    Of even sides the Nyquist frequency is none of them; half a cycle below it is, in case of doubt.
    """
    return (sides[0] - 1) / 2, (sides[1] - 1) / 2


def whole(sides: Sides) -> Band:
    """The band of images."""
    return Band(below_nyquist(sides), sides)


def between(band: Band, sides: Sides, finer: Sides) -> Band:
    """The band behind zeros between the places of a map, or copies of them."""
    return dataclasses.replace(band.sampled(sides, finer), highest=below_nyquist(finer))


def joined(bands: Iterable[Band | None], highest: Sequence[float] | None = None) -> Band | None:
    """The band of what is made of maps with these bands: `highest`, or the highest of them."""
    known = [band for band in bands if band is not None]
    if not known:
        return None
    rows, columns = highest or [max(band.highest[axis] for band in known) for axis in (0, 1)]
    arose = dict.fromkeys(place for band in known for place in band.arose)
    unbounded = dict.fromkeys(place for band in known for place in band.unbounded)
    return Band((rows, columns), known[0].unit, tuple(arose), tuple(unbounded))


def multiplied(bands: Sequence[Band | None], place: Place) -> Band | None:
    """The band of the product of maps with these bands, which `place` takes."""
    known = [band for band in bands if band is not None]
    rows, columns = (sum(band.highest[axis] for band in known) for axis in (0, 1))
    band = joined(known, (rows, columns))
    return band and band.behind(place, 2)

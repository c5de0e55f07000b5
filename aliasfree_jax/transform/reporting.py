"""Reports what breaks invariance, while a program is walked without replacing anything."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from aliasfree_jax.transform.bands import Sides, between
from aliasfree_jax.transform.grids import ONE, Strides
from aliasfree_jax.transform.lines import Place, TransformError, here
from aliasfree_jax.transform.maps import Map
from aliasfree_jax.transform.settling import Settling

Report = Callable[[Place, str, str, str], None]

WHOLE, FRACTIONS = "whole pixels", "fractions"

_TRANSFORM = "or transform the network by shift_invariant"
_DIVISIONS = ("rsqrt", "sqrt", "div", "pow", "log", "cbrt")
_COMPARISONS = ("gt", "lt", "ge", "le", "eq", "ne")
_SPATIAL_NORM = "Normalise over rows and columns as well (layers.SpatialNorm)"
_FINER_GRID = f'Use layers.UpPolynomial, {_TRANSFORM}(activations="polynomial")'
# Reason and remedy, by the first operation of a function of unbounded band.
_REASONS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(
        _DIVISIONS,
        ("divides by a map, or uses its root or logarithm: unbounded band", _SPATIAL_NORM),
    ),
    **dict.fromkeys(
        ("reduce_window_max", "reduce_window_min", "max_pool", "min_pool", "adaptive_max_pool"),
        ("selects samples: unbounded band", "Remove the pool, and sample by layers.IdealDownsample"),
    ),
    **dict.fromkeys(
        ("reduce_max", "reduce_min", "reduce_prod", "argmax", "argmin", "sort", "top_k", "cummax"),
        ("compares or multiplies samples: unbounded band", "Use a mean, or products of two maps (UpGate)"),
    ),
}
_POINTWISE = ("a non-linearity of unbounded band", _FINER_GRID)
_PRODUCT = (
    "a product has frequencies above the limit of its grid",
    f"Multiply on a finer grid (layers.UpPolynomial, layers.UpGate), {_TRANSFORM}",
)


def _known(place: Place) -> tuple[str, str]:
    """Reason and remedy for a function of unbounded band."""
    return _REASONS.get(place.operation, _REASONS.get(place.primitive, _POINTWISE))


def _one_each(places: Sequence[Place]) -> list[Place]:
    """One place per function.

    A softmax has several operations of unbounded band. A norm may clip its variance before it divides, and
    `where` compares before it selects.
    """
    each: dict[tuple[str, str, str], Place] = {}
    for place in places:
        each.setdefault((place.where, place.within, place.operation), place)
    divided = {key[:2] for key, place in each.items() if place.primitive in _DIVISIONS}
    chosen = {key[:2] for key in each if key[2] not in _COMPARISONS}
    return [
        place
        for key, place in each.items()
        if not (key[2] == "max" and key[:2] in divided) and not (key[2] in _COMPARISONS and key[:2] in chosen)
    ]


@dataclasses.dataclass(frozen=True)
class Reporting(Settling):
    """Reports operations that break invariance.

    Attributes:
      report: Called with a place, the kind of shifts ("whole pixels" or "fractions"), a reason and a remedy.
        None: operations are replaced, or refused by an error.
    """

    report: Report | None = None

    def found(self, eqn: Any, shifts: str, reason: str, remedy: str) -> None:
        """Reports a finding, if findings were requested."""
        if self.report is not None:
            self.report(here(eqn), shifts, reason, remedy)

    def unbounded(self, eqn: Any, value: Map) -> Map:
        """`value` with unbounded band, because `eqn` is a non-linearity."""
        if value.band is None:
            return value
        places = (*value.band.unbounded, here(eqn))
        band = dataclasses.replace(value.band, highest=(float("inf"),) * 2, unbounded=places)
        return dataclasses.replace(value, band=band)

    def read(self, value: Map, upto: Sequence[float] | None = None) -> Map:
        """Filters the band to frequencies up to `upto`, and reports the functions whose aliases disturb them.

        Args:
          value: The map.
          upto: Limits in cycles per image side. None: all frequencies of its grid.
        """
        band, sides = value.band, value.sides
        if self.report is None or band is None:
            return value
        upto = upto or (sides[0] // 2, sides[1] // 2)
        if not band.clean(sides, upto):
            for place in _one_each(band.unbounded or band.arose):
                known = _known(place) if band.unbounded else _PRODUCT
                self.report(place, band.moves(sides), *known)
        return dataclasses.replace(value, band=band.cut(upto))

    def strided(self, eqn: Any, value: Map, strides: Strides, what: str) -> Map:
        """`value` with the band after subsampling. Reports the aliases."""
        if self.report is None or strides == ONE or value.band is None:
            return value
        sides, held = value.circle, self._divided(value, strides)
        value = self.read(value)
        rows, columns = (-(-side // step) for side, step in zip(sides, strides, strict=True))
        assert value.band is not None
        if held:
            return value
        what = "a blur before sampling" if here(eqn).operation == "blur" else what
        self.found(
            eqn,
            WHOLE,
            f"{what} by {max(strides)} keeps frequencies that alias",
            f"Sample by layers.AdaptivePolyphase or layers.IdealDownsample, {_TRANSFORM}",
        )
        return dataclasses.replace(value, band=value.band.sampled(sides, (rows, columns)))

    def upsampled(self, eqn: Any, value: Map, strides: Strides) -> Map:
        """`value` on a finer grid, with zeros between its positions. Reports samples at fixed positions.

        Raises:
          TransformError: The phase of its sampling is not known here.
        """
        grid, band = value.grid, value.band
        if grid.kind == "some images":
            raise TransformError(
                eqn,
                "upsamples a part of the images that were sampled together",
                "Take the part before the first sampling, or after the upsampling",
            )
        try:
            finer = self.spread(value, strides)
        except KeyError as error:
            raise TransformError(
                eqn,
                "upsamples a map that was sampled inside another loop or branch, or outside this one",
                "Sample and upsample it at the same level of the program",
            ) from error
        if self.report is None or band is None:
            return finer
        value, images = self.read(value), grid.images
        coarser = any(side < full for side, full in zip(value.sides, images, strict=True))
        self.found(
            eqn,
            WHOLE if coarser else FRACTIONS,
            "upsamples from fixed positions without an ideal filter",
            "Upsample by layers.IdealUpsample, or by layers.PolyphaseUpsample at the phase of the sampler, "
            f"{_TRANSFORM}",
        )
        return dataclasses.replace(finer, band=between(band, value.sides, finer.sides))

    def _divided(self, value: Map, strides: Strides) -> bool:
        """Whether sampling keeps all frequencies of a map."""
        assert value.band is not None
        coarse: Sides = (value.circle[0] // strides[0], value.circle[1] // strides[1])
        even = all(side % step == 0 for side, step in zip(value.circle, strides, strict=True))
        return even and value.band.held(coarse)

    def padded(self, eqn: Any, amounts: Sequence[int]) -> None:
        """Reports padding that is not circular."""
        if any(amount > 0 for amount in amounts):
            self.found(
                eqn,
                WHOLE,
                "pads by constants or by a mirror image, so the network can see where the border is",
                f'Pad circularly (padding="CIRCULAR"), {_TRANSFORM}',
            )

    def uneven(self, eqn: Any, sides: tuple[int, int], strides: Strides, option: str = "") -> None:
        """Reports strides that do not divide the map's sides, and an option that allows them."""
        if any(side % step for side, step in zip(sides, strides, strict=True)):
            self.found(
                eqn,
                WHOLE,
                f"a map of {sides[0]} x {sides[1]} is sampled by {strides[0]} x {strides[1]}, which does not "
                "divide its sides",
                f"Use images whose sides are multiples of the network's total stride{option}",
            )

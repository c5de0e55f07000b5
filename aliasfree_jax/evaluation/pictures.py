"""From results to figures: maps of the shift plane, worst cases by radius, feature maps.

Every function takes one or several networks and returns a matplotlib Figure (pip install
'aliasfree_jax[figures]'). The networks keep their order and, in curves, their colours.
"""

import io
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from aliasfree_jax.evaluation.report import percent
from aliasfree_jax.evaluation.stored import IMAGE, Evaluated, shift_plane, worst_by_radius
from aliasfree_jax.training.curves import figure_class

# Okabe and Ito's palette, safe for the colour-blind.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DPI = 130
COLUMNS = 4  # maps beside each other


def colour(number: int) -> str:
    """Of the network with this number."""
    return COLOURS[number % len(COLOURS)]


def png(figure: Any) -> bytes:
    """The figure as a file."""
    file = io.BytesIO()
    # The layout does not see that square maps fill their panels to the edge: without "tight" labels are cut.
    figure.savefig(file, format="png", dpi=DPI, facecolor="white", bbox_inches="tight")
    return file.getvalue()


def plain_axes(axes: Any) -> None:
    """Takes away what is no data."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)


def map_figure(networks: Sequence[Evaluated], column: str) -> Any:
    """Heat maps of the "accuracy" or "consistency" over the plane of shifts, all on one scale.

    Raises:
      MissingPackageError: matplotlib is not installed.
      DataError: a network was not measured under the shifts of the plane.
    """
    planes = [shift_plane(network, column) for network in networks]
    columns = min(COLUMNS, len(planes))
    rows = math.ceil(len(planes) / columns)
    figure = figure_class()(figsize=(3.2 * columns + 1.2, 3.5 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    highest = max(100 * plane.values.max() for plane in planes)
    # One percent at least: differences in the last digit are no picture.
    lowest = min(highest - 1, *(100 * plane.values.min() for plane in planes))
    for axes, network, plane in zip(panels, networks, planes, strict=False):
        extent = (plane.right[0] - 0.5, plane.right[-1] + 0.5, plane.down[-1] + 0.5, plane.down[0] - 0.5)
        drawn = axes.imshow(
            100 * plane.values, extent=extent, vmin=lowest, vmax=highest, interpolation="nearest"
        )
        least, mean = percent(plane.values.min()), percent(network.part("shift_plane", column))
        axes.set_title(f"{network.name}\nleast {least}, mean {mean}", fontsize=10)
        axes.set(xlabel="right, pixels", ylabel="down, pixels")
        axes.locator_params(nbins=5, integer=True)
    for axes in panels[len(planes) :]:
        axes.set_visible(False)
    label = "accuracy, %" if column == "accuracy" else "same class as without shift, %"
    figure.colorbar(drawn, ax=list(panels), label=label, shrink=0.85, aspect=25)
    return figure


def radius_figure(networks: Sequence[Evaluated]) -> Any:
    """Curves of the worst-case accuracy over all shifts of up to so many pixels each way.

    Raises:
      MissingPackageError: matplotlib is not installed.
      DataError: a network was not measured so.
    """
    curves = [100 * worst_by_radius(network) for network in networks]
    figure = figure_class()(figsize=(6.4, 3.8), layout="constrained")
    axes = figure.subplots()
    for number, (network, curve) in enumerate(zip(networks, curves, strict=True)):
        style = {"color": colour(number), "marker": "o", "markersize": 4, "clip_on": False}
        axes.plot(np.arange(len(curve)), curve, label=f"{network.name}: {curve[-1]:.1f} %", **style)
    lowest, highest = min(map(min, curves)), max(map(max, curves))
    room = max(1.0, 0.06 * (highest - lowest))
    axes.set_ylim(lowest - room, min(100.0, highest + room) if highest < 100 else 100 + room / 2)
    axes.set_xlim(0, max(map(len, curves)) - 1)
    axes.set(xlabel="circular shifts of up to, pixels each way", ylabel="worst-case accuracy, %")
    axes.xaxis.get_major_locator().set_params(integer=True)
    plain_axes(axes)
    figure.legend(loc="outside upper center", ncols=min(3, len(networks)), frameon=False)
    return figure


def feature_figure(networks: Sequence[Evaluated]) -> Any:
    """A layer's map of an image, of the shifted image moved back, and their difference; a network a row.

    A row has one scale: the difference is as visible as it is large.

    Raises:
      MissingPackageError: matplotlib is not installed.
      DataError: a network's maps were not kept.
    """
    found = [network.part(IMAGE, "features") for network in networks]
    figure = figure_class()(figsize=(9.4, 3.1 * len(networks)), layout="constrained")
    panels = figure.subplots(len(networks), 3, squeeze=False)
    for row, network, features in zip(panels, networks, found, strict=True):
        still, difference = (np.asarray(features[name], float) for name in ("still", "difference"))
        largest = float(np.abs([still, still + difference]).max()) or 1.0
        scale: dict[str, Any] = {"cmap": "RdBu_r", "vmin": -largest, "vmax": largest}
        shift = ", ".join(f"{pixels:g}" for pixels in features["shift"])
        titles = ("no shift", f"shifted by ({shift}), moved back", "difference")
        for axes, title, values in zip(row, titles, (still, still + difference, difference), strict=True):
            drawn = axes.imshow(values, interpolation="nearest", **scale)
            axes.set_title(title, fontsize=10)
            axes.set(xticks=[], yticks=[])
        figure.colorbar(drawn, ax=list(row), shrink=0.85)
        row[0].set_ylabel(
            f"{network.name}\n{features['layer']}, channel {features['channel']}\n"
            f"error {features['error']:.1e}",
            fontsize=9,
        )
    return figure

"""Draws results: maps of the shift plane, worst cases by radius, feature maps, a sliding image.

Every function draws one or several networks. Needs matplotlib (pip install 'aliasfree_jax[figures]'). The
networks keep their order and, in curves, their colours.
"""

import io
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from PIL import Image

from aliasfree_jax.errors import DataError
from aliasfree_jax.evaluation.report.columns import percent
from aliasfree_jax.evaluation.report.pictured import IMAGE, Evaluated, shift_plane, worst_by_radius
from aliasfree_jax.evaluation.report.pictured_maps import decoded
from aliasfree_jax.ops.shift import fractional_shift
from aliasfree_jax.training.curves import figure_class

# Okabe and Ito's palette, safe for the colour-blind.
COLOURS = ("#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
DPI = 130
COLUMNS = 4  # maps per row
FRAME_MS, LAST_FRAME_MS = 80, 2000  # durations of the animation's frames


def colour(number: int) -> str:
    """Colour of the network with this number."""
    return COLOURS[number % len(COLOURS)]


def png(figure: Any) -> bytes:
    """Returns a figure as the content of a PNG file."""
    file = io.BytesIO()
    # The layout ignores that square maps fill their panels. Without "tight", labels would be cut off.
    figure.savefig(file, format="png", dpi=DPI, facecolor="white", bbox_inches="tight")
    return file.getvalue()


def plain_axes(axes: Any) -> None:
    """Removes the top and right borders and adds light grid lines."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="#E4E4E4", linewidth=0.8)
    axes.set_axisbelow(True)


def map_figure(networks: Sequence[Evaluated], column: str) -> Any:
    """Draws heat maps over the plane of shifts, all with the same scale.

    Args:
      networks: The evaluated networks.
      column: "accuracy" or "consistency".

    Returns:
      The matplotlib figure.

    Raises:
      MissingPackageError: matplotlib is not installed.
      DataError: The results of a network have no shift plane.
    """
    planes = [shift_plane(network, column) for network in networks]
    columns = min(COLUMNS, len(planes))
    rows = math.ceil(len(planes) / columns)
    figure = figure_class()(figsize=(3.2 * columns + 1.2, 3.5 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    highest = max(100 * plane.values.max() for plane in planes)
    # The scale covers at least one percent, so that tiny differences are not exaggerated.
    lowest = min(highest - 1, *(100 * plane.values.min() for plane in planes))
    for axes, network, plane in zip(panels, networks, planes, strict=False):
        extent = (plane.right[0] - 0.5, plane.right[-1] + 0.5, plane.down[-1] + 0.5, plane.down[0] - 0.5)
        drawn = axes.imshow(
            100 * plane.values, extent=extent, vmin=lowest, vmax=highest, interpolation="nearest"
        )
        least, mean = percent(plane.values.min()), percent(network.part("shift_plane", column))
        axes.set_title(f"{network.name}\nmin {least}, mean {mean}", fontsize=10)
        axes.set(xlabel="right, pixels", ylabel="down, pixels")
        axes.locator_params(nbins=5, integer=True)
    for axes in panels[len(planes) :]:
        axes.set_visible(False)
    label = "accuracy, %" if column == "accuracy" else "same class as without a shift, %"
    figure.colorbar(drawn, ax=list(panels), label=label, shrink=0.85, aspect=25)
    return figure


def radius_figure(networks: Sequence[Evaluated]) -> Any:
    """Draws curves of the worst-case accuracy by the radius of the shifts.

    Args:
      networks: The evaluated networks.

    Returns:
      The matplotlib figure.

    Raises:
      MissingPackageError: matplotlib is not installed.
      DataError: The results of a network have no worst cases by radius.
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
    axes.set(xlabel="largest circular shift in each direction, pixels", ylabel="worst-case accuracy, %")
    axes.xaxis.get_major_locator().set_params(integer=True)
    plain_axes(axes)
    figure.legend(loc="outside upper center", ncols=min(3, len(networks)), frameon=False)
    return figure


def feature_figure(networks: Sequence[Evaluated]) -> Any:
    """Draws a feature map of an image, the map of the shifted image moved back, and their difference.

    Each network has one row, and each row has one scale.

    Args:
      networks: The evaluated networks.

    Returns:
      The matplotlib figure.

    Raises:
      MissingPackageError: matplotlib is not installed.
      DataError: The results of a network have no feature maps.
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


class Slide(NamedTuple):
    """Data of the animation of one network.

    Attributes:
      image: The image, uint8 `[H, W, 3]`.
      label: Name of its class.
      shifts: Shifts in pixels, `[K, 2]`.
      probability: Probability of the class for each shift, `[K]`.
    """

    image: np.ndarray
    label: str
    shifts: np.ndarray
    probability: np.ndarray


def slide(network: Evaluated) -> Slide:
    """Reads the data of the animation from the results of a network.

    Raises:
      DataError: It was not measured.
    """
    image, label = decoded(network.part(IMAGE, "png")), network.part(IMAGE, "label")
    way = (np.asarray(network.part(IMAGE, "slide", key), float) for key in ("shifts", "true_probability"))
    return Slide(image, label, *way)


def frames(networks: Sequence[Evaluated]) -> Iterator[np.ndarray]:
    """Yields the frames `[h, w, 3]` of the animation: the image on the left, the curves on the right.

    Args:
      networks: The evaluated networks.

    Raises:
      MissingPackageError: matplotlib is not installed.
      DataError: The results of a network have no animation, or it differs from the first network's.
    """
    slides = [slide(network) for network in networks]
    image, label, shifts, _ = slides[0]
    for network, other in zip(networks, slides, strict=True):
        if not (np.array_equal(image, other.image) and np.array_equal(shifts, other.shifts)):
            raise DataError(
                f"{networks[0].name} and {network.name} were evaluated with different images or shifts: "
                "evaluate them with the same data, eval.pictured_image and eval.worst_case_radius."
            )
    figure = figure_class()(figsize=(7.6, 3.2), dpi=100, layout="constrained")
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # figure_class has checked for matplotlib

    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.7))
    shown, way = left.imshow(image, interpolation="nearest"), shifts[:, 1]
    left.set(xticks=[], yticks=[])
    curves = [
        right.plot([], [], linewidth=2, color=colour(number), label=network.name, clip_on=False)[0]
        for number, network in enumerate(networks)
    ]
    right.set(xlim=(way[0], way[-1]), ylim=(0, 1), xlabel="shift down and right, pixels")
    right.set_title(f"probability of the class {label}", fontsize=10)
    plain_axes(right)
    figure.legend(loc="outside lower center", ncols=min(4, len(networks)), frameon=False)
    for step, (down, across) in enumerate(shifts):
        moved = fractional_shift(jnp.asarray(image, jnp.float32)[None], (float(down), float(across)))
        shown.set_data(np.rint(np.clip(np.asarray(moved)[0], 0, 255)).astype(np.uint8))
        left.set_title(f"shifted by {across:.2f} pixels", fontsize=10)
        for curve, found in zip(curves, slides, strict=True):
            curve.set_data(way[: step + 1], found.probability[: step + 1])
            curve.set(marker="o", markevery=[step])  # marks the current shift
        canvas.draw()
        if step == 0:
            figure.set_layout_engine("none")  # fixes the positions of the axes
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()


def gif(shown: Iterable[np.ndarray]) -> bytes:
    """Encodes frames `[h, w, 3]` as an animated GIF."""
    pictures = [Image.fromarray(frame) for frame in shown]
    # All frames use the palette of the last one: unchanged parts are then equal and need no space.
    palette = pictures[-1].quantize(256)
    colours = np.asarray(palette.getpalette()).reshape(-1, 3)
    colours[colours.min(axis=1) >= 248] = 255  # Pillow's lookup is coarse: white would become one of these
    palette.putpalette(colours.ravel().tolist())
    first, *others = (picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures)
    times, file = [FRAME_MS] * len(others) + [LAST_FRAME_MS], io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=times, loop=0)
    return file.getvalue()

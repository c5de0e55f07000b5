"""Pictures of networks whose outputs are maps: predictions, their change under a shift, and an animation.

Every function draws one or several networks. Needs matplotlib (pip install 'aliasfree_jax[figures]').
"""

from collections.abc import Iterator, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from aliasfree_jax.errors import DataError
from aliasfree_jax.evaluation.report.columns import decibels, percent, task_of
from aliasfree_jax.evaluation.report.pictured import IMAGE, Evaluated
from aliasfree_jax.evaluation.report.pictured_maps import LARGEST_CHANGE, NO_CHANGE, decoded
from aliasfree_jax.ops.shift import fractional_shift
from aliasfree_jax.training.curves import figure_class


def _changed(network: Evaluated, value: float) -> str:
    if task_of(network.results) == "segmentation":
        return f"{percent(value)} of pixels changed"
    return f"error {decibels(value)}"


def prediction_figure(networks: Sequence[Evaluated]) -> Any:
    """Draws image, target, prediction, prediction for the shifted image, and difference; one row per network.

    Args:
      networks: The evaluated networks.

    Returns:
      The matplotlib figure.

    Raises:
      MissingPackageError: matplotlib is not installed.
      DataError: The results of a network have no predictions.
    """
    found = [network.part(IMAGE, "maps") for network in networks]
    figure = figure_class()(figsize=(12.5, 2.9 * len(networks)), layout="constrained")
    panels = figure.subplots(len(networks), 5, squeeze=False)
    for row, network, maps in zip(panels, networks, found, strict=True):
        shift = ", ".join(f"{pixels:g}" for pixels in maps["shift"])
        pictures = {
            "image": network.part(IMAGE, "png"),
            "target": maps["target"],
            "prediction": maps["still"],
            f"shifted by ({shift}), moved back": maps["back"],
        }
        for axes, (title, text) in zip(row, pictures.items(), strict=False):
            axes.imshow(decoded(text), interpolation="nearest")
            axes.set_title(title, fontsize=10)
        changes = (decoded(maps["difference"])[..., 0].astype(float) - NO_CHANGE) / LARGEST_CHANGE
        row[-1].imshow(changes, cmap="RdBu_r", vmin=-1, vmax=1, interpolation="nearest")
        largest = maps["largest_difference"]
        regression = task_of(network.results) == "regression"
        told = f"difference, at most {largest:.1e}" if regression else _share_of(changes)
        row[-1].set_title(told, fontsize=10)
        for axes in row:
            axes.set(xticks=[], yticks=[])
        row[0].set_ylabel(network.name, fontsize=9)
    return figure


def _share_of(changes: np.ndarray) -> str:
    return f"difference, {percent(float((changes != 0).mean()))} of pixels"


def map_frames(networks: Sequence[Evaluated]) -> Iterator[np.ndarray]:
    """Yields the frames `[h, w, 3]` of the animation: the shifted image and the networks' outputs.

    Args:
      networks: The evaluated networks.

    Raises:
      MissingPackageError: matplotlib is not installed.
      DataError: The results of a network have no animation, or it differs from the first network's.
    """
    image = decoded(networks[0].part(IMAGE, "png"))
    slides = [network.part(IMAGE, "maps", "slide") for network in networks]
    shifts = slides[0]["shifts"]
    for network, slide in zip(networks, slides, strict=True):
        if not (np.array_equal(image, decoded(network.part(IMAGE, "png"))) and shifts == slide["shifts"]):
            raise DataError(
                f"{networks[0].name} and {network.name} were evaluated with different images or shifts: "
                "evaluate them with the same data, eval.pictured_image and eval.worst_case_radius."
            )
    figure = figure_class()(figsize=(3 * (len(networks) + 1), 3.5), dpi=100, layout="constrained")
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # figure_class has checked for matplotlib

    canvas, panels = FigureCanvasAgg(figure), figure.subplots(1, len(networks) + 1, squeeze=False)[0]
    shown = [axes.imshow(image, interpolation="nearest") for axes in panels]
    for axes in panels:
        axes.set(xticks=[], yticks=[])
    for step, (down, across) in enumerate(shifts):
        moved = fractional_shift(jnp.asarray(image, jnp.float32)[None], (float(down), float(across)))
        shown[0].set_data(np.rint(np.clip(np.asarray(moved)[0], 0, 255)).astype(np.uint8))
        panels[0].set_title(f"shifted by {across:.2f} pixels", fontsize=10)
        for axes, drawn, network, slide in zip(panels[1:], shown[1:], networks, slides, strict=True):
            drawn.set_data(decoded(slide["predictions"][step]))
            axes.set_title(f"{network.name}\n{_changed(network, slide['changes'][step])}", fontsize=10)
        canvas.draw()
        if step == 0:
            figure.set_layout_engine("none")  # fixes the positions of the axes
        yield np.asarray(canvas.buffer_rgba())[..., :3].copy()

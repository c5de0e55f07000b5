"""Formats audits as tables, Markdown, JSON and a picture."""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aliasfree_jax.evaluation.alignment import pair, tolerance
from aliasfree_jax.evaluation.audit.auditing import Audit, LayerError
from aliasfree_jax.evaluation.report import Rows, align, markdown

FLOOR = 1e-17  # an error of 0 is drawn here
LEGEND = (
    "Error: largest |output for the shifted image - shifted output|, divided by the largest |output|; in "
    "float64, and in the precision of the network."
)


def _number(error: float) -> str:
    return "" if math.isnan(error) else f"{error:.1e}"


def own_precision(audit: Audit) -> str:
    """The types in which the network's layers usually compute, e.g. "float32"."""
    return "/".join(sorted({layer.dtype for layer in audit.layers if layer.dtype})) or "own"


def _remark(layer: LayerError, first: bool) -> str:
    words = {
        "exact": "",
        "breaks": "breaks first" if first else "breaks",
        "follows": layer.note,
        "mended": "mended later",
        "not compared": f"not compared: {layer.note}",
    }[layer.state]
    # If no displacement fits, the closest one has no meaning.
    aligned = "different grid" if layer.aligned and layer.state == "exact" else ""
    return "; ".join(filter(None, (words, aligned)))


def _rows(audit: Audit) -> Rows:
    rows = [["operation", "output", "float64", own_precision(audit), "  "]]
    first = next((layer for layer in audit.layers if layer.state == "breaks"), None)
    for layer in audit.layers:
        shape = "x".join(map(str, layer.shape[1:]))
        remark = _remark(layer, layer is first)
        rows.append([layer.name, shape, _number(layer.after), _number(layer.deployed), remark])
    width = max(len(row[-1]) for row in rows)
    return [[*row[:-1], row[-1].ljust(width)] for row in rows]


def _headline(audit: Audit) -> str:
    return f"{audit.network}, image shifted by {pair(audit.shift)}"


def format_table(audits: Sequence[Audit]) -> str:
    """Formats audits as plain text: one table per audit, then the findings.

    Args:
      audits: The audits.
    """
    blocks = ["\n".join([_headline(a), "", *align(_rows(a))]) for a in audits]
    notes = dict.fromkeys(f"{a.network}: {text}" for a in audits for text in (a.finding, *a.notes))
    return "\n\n".join([*blocks, LEGEND, "\n".join(notes)])


def format_markdown(audits: Sequence[Audit]) -> str:
    """Formats audits as Markdown.

    Args:
      audits: The audits.
    """
    blocks = []
    for a in audits:
        notes = [f"- {text}" for text in (a.finding, *a.notes)]
        blocks.append("\n".join([f"## {_headline(a)}", "", *notes, "", *markdown(_rows(a))]))
    return "\n\n".join([LEGEND, *blocks]) + "\n"


def to_json(audits: Sequence[Audit]) -> list[dict[str, Any]]:
    """Converts audits to JSON: the fields of `Audit` and `LayerError`. Errors that are not finite are null.

    Args:
      audits: The audits.
    """
    found = []
    for a in audits:
        layers = [
            {key: _plain(value) for key, value in dataclasses.asdict(layer).items()} for layer in a.layers
        ]
        found.append(dataclasses.asdict(a) | {"layers": layers})
    return found


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def draw_audits(audits: Sequence[Audit], out: Path) -> None:
    """Draws errors by depth, with one panel per shift and one line per network.

    A mark shows the first layer that breaks. The axis is logarithmic. Solid lines are errors in float64, pale
    dashed lines are errors in the precision of the network. Layers with errors that are mended later are pale
    dots.

    Args:
      audits: The audits.
      out: File of the picture; its ending is the format.

    Raises:
      MissingPackageError: matplotlib is not installed.
      UnwritableError: The file cannot be written.
    """
    # Imported here, so that `aliasfree_jax.audit` runs without packages that only training needs.
    from aliasfree_jax.training.curves import figure_class, save_figure

    shifts, networks = (
        list(dict.fromkeys(key)) for key in zip(*((a.shift, a.network) for a in audits), strict=True)
    )
    figure = figure_class()(figsize=(2.4 + 4.2 * len(shifts), 3.8), layout="constrained")
    panels = figure.subplots(1, len(shifts), sharey=True, squeeze=False)[0]
    for axes, shift in zip(panels, shifts, strict=True):
        for number, network in enumerate(networks):
            for one in (a for a in audits if (a.shift, a.network) == (shift, network)):
                _draw(axes, one, number, f"{network}, " if len(networks) > 1 else "")
        axes.axhline(tolerance("float64"), color="0.6", linewidth=0.8, linestyle=":")
        axes.set(title=f"shift {pair(shift)}", xlabel="operation, in order of execution", yscale="log")
        axes.set_ylim(FLOOR / 3, 1e4)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("equivariance error (dotted: tolerance)")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside center right", frameon=False, fontsize="small")
    if len(networks) == 1:
        figure.suptitle(networks[0])
    save_figure(figure, out)


def _draw(axes: Any, one: Audit, number: int, label: str) -> None:
    colour = f"C{number}"
    for attribute, style, text in (
        ("after", {"linestyle": "-"}, f"{label}float64"),
        ("deployed", {"linestyle": "--", "alpha": 0.4}, f"{label}{own_precision(one)}"),
    ):
        axes.plot(
            *_points(one, attribute, mended=False),
            color=colour,
            label=text,
            linewidth=1.2,
            marker=".",
            markersize=3,
            **style,
        )
    axes.plot(*_points(one, "after", mended=True), ".", color=colour, alpha=0.3, markersize=3)
    if one.first_break is not None:
        place, layer = _first_error(one)
        left = place <= len(one.layers) / 2
        axes.plot(place, layer.after, "X", color=colour, markersize=9, markeredgecolor="white")
        axes.annotate(
            _label(one, layer),
            (place, 10),
            (-4 if left else 4, 11 * number),  # several networks may break at the same position
            textcoords="offset points",
            color=colour,
            ha="left" if left else "right",
            fontsize="small",
        )


def _points(one: Audit, attribute: str, *, mended: bool) -> tuple[list[int], list[float]]:
    """Positions (from 1) and errors (at least `FLOOR`) of the layers whose state is "mended", or is not."""
    places, errors = [], []
    for place, layer in enumerate(one.layers, 1):
        error = getattr(layer, attribute)
        if (layer.state == "mended") == mended and math.isfinite(error):
            places.append(place)
            errors.append(max(error, FLOOR))
    return places, errors


def _label(one: Audit, layer: LayerError) -> str:
    return layer.name


def _first_error(one: Audit) -> tuple[int, LayerError]:
    """The first layer with an error that is not mended: it breaks, or it is part of a module that breaks."""
    states = ("breaks", "follows")
    return next((place, layer) for place, layer in enumerate(one.layers, 1) if layer.state in states)

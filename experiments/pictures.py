"""The pictures of the pages: accuracy against consistency, worst case and time, and curves."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from aliasfree_jax.evaluation.report.pictures import plain_axes
from aliasfree_jax.training.curves import figure_class
from experiments.matrix import TRAINING_IMAGES
from experiments.summary import Summary

# One colour per variant, in all pictures: Okabe and Ito's palette, and grey for the plain network.
COLOURS = {
    "plain": "#888888",
    "circular": "#000000",
    "blur3": "#E69F00",
    "aps1": "#56B4E9",
    "aps3": "#0072B2",
    "lps": "#CC79A7",
    "lps3": "#661100",
    "afc": "#009E73",
    "aft": "#8C510A",
    "afg": "#D55E00",
    "afgs": "#882255",
}
MARKERS = {"ResNet-18": "o", "ResNet-20": "s", "ConvNeXt": "D", "XCiT": "^"}  # the families in the pictures
Curve = tuple[Sequence[float], Sequence[float]]
CurveOf = Callable[[Summary], Curve]
MARKED = 32  # curves with more points have no markers
KINDS = {"integer": "integer shifts", "half_pixel": "half-pixel shifts", "crop": "crop shifts"}
WORST = {"adversarial_integer": "integer shifts", "adversarial_continuous": "real-valued shifts"}
# How the kinds of training images are drawn.
OPEN = ("none", "reflected")  # their markers are open
LINES = {"reflected": "--"}  # style of their curves


def _legend(
    figure: Any,
    axes: Any,
    summaries: Sequence[Summary],
    columns: int,
    before: Sequence[Any] = (),
    after: Sequence[Any] = (),
) -> None:
    """Adds a legend below the panels: other handles and the colours of the variants."""
    names = {s.row.variant.key: s.row.variant.name for s in summaries}
    colours = [
        axes.plot([], [], color=colour, linewidth=4, label=names[key])[0]
        for key, colour in COLOURS.items()
        if key in names
    ]
    handles = [*before, *colours, *after]
    figure.legend(handles=handles, loc="outside lower center", ncols=columns, frameon=False, fontsize=12)


def _mean(summary: Summary, *keys: str) -> float:
    return 100 * fmean(summary.values("results", *keys))


Points = Callable[[Summary], tuple[float, float]]


def _scatter(
    summaries: Sequence[Summary],
    panels: Mapping[str, Points],
    label: str,
    *,
    height: str,
    diagonal: bool = False,
) -> Any:
    """Draws one panel per kind of points, and one point per network.

    Arrows lead from a network to the same network trained on shifted images.

    Args:
      summaries: The results.
      panels: The points by the title of their panel.
      label: Label of the horizontal axes.
      height: Label of the vertical axes.
      diagonal: Whether to draw the line on which both coordinates are equal.
    """
    figure = figure_class()(figsize=(max(8, 0.6 + 4.2 * len(panels)), 5.4), layout="constrained")
    grid = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for axes, (title, point) in zip(grid, panels.items(), strict=True):
        points: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
        for summary in summaries:
            network = summary.row.family, summary.row.variant.key
            points.setdefault(network, {})[summary.row.augmentation] = point(summary)
        for (family, variant), ways in points.items():
            if {"none", "shifts"} <= ways.keys():
                arrow = {"arrowstyle": "->", "color": COLOURS[variant], "alpha": 0.4, "shrinkB": 4}
                axes.annotate("", ways["shifts"], ways["none"], arrowprops=arrow)
            for augmentation, at in ways.items():
                # Open markers are above filled ones and do not hide them.
                face, above = ("none", 3) if augmentation in OPEN else (COLOURS[variant], 2)
                marker: dict[str, Any] = {"marker": MARKERS[family], "markersize": 9, "zorder": above}
                axes.plot(*at, color=COLOURS[variant], markerfacecolor=face, markeredgewidth=1.8, **marker)
        plain_axes(axes)
        if diagonal:
            limits = {"xlim": axes.get_xlim(), "ylim": axes.get_ylim()}
            axes.axline((50, 50), slope=1, color="#bbbbbb", linewidth=1, zorder=0)
            axes.set(**limits)  # the line does not widen the axes
        axes.set_title(title, loc="left", fontsize=13, fontweight="bold")
        axes.set_xlabel(label, fontsize=12)
    grid[0].set_ylabel(height, fontsize=12)
    _legend(figure, grid[0], summaries, 5, *_shapes(grid[0], summaries))
    return figure


def consistency_figure(summaries: Sequence[Summary]) -> Any:
    """Accuracy against consistency for three kinds of shifts."""

    def of(kind: str) -> Points:
        return lambda s: (_mean(s, kind, "consistency"), _mean(s, "accuracy"))

    panels = {title: of(kind) for kind, title in KINDS.items()}
    return _scatter(summaries, panels, "same class as without shift, %", height="accuracy, %")


def worst_figure(summaries: Sequence[Summary]) -> Any:
    """Accuracy without shifts against accuracy under the worst shift, of the same images."""

    def of(kind: str) -> Points:
        return lambda s: (_mean(s, "worst", kind, "worst_case_accuracy"), _mean(s, "worst", "accuracy"))

    panels = {f"worst of all {title}": of(kind) for kind, title in WORST.items()}
    label = "accuracy under the worst shift, %"
    return _scatter(summaries, panels, label, height="accuracy without shift, %", diagonal=True)


def cost_figure(summaries: Sequence[Summary]) -> Any:
    """Accuracy against the time of a training step. None if no step was timed."""

    def point(summary: Summary) -> tuple[float, float]:
        assert summary.step_ratio is not None
        return summary.step_ratio, _mean(summary, "accuracy")

    shown = [summary for summary in summaries if summary.step_ratio is not None]
    if not shown:
        return None
    panels = {", ".join(_families(shown)): point}
    label = "time of a training step, relative to the first network of the table"
    return _scatter(shown, panels, label, height="accuracy, %")


def _families(summaries: Sequence[Summary]) -> list[str]:
    """The families in the picture that have results."""
    return [name for name in MARKERS if any(s.row.family == name for s in summaries)]


def _trained_on(augmentation: str) -> str:
    return f"training images: {TRAINING_IMAGES[augmentation]}"


def _shapes(axes: Any, summaries: Sequence[Summary]) -> tuple[list[Any], list[Any]]:
    """Legend handles: the markers of the families, and those of the kinds of training images."""

    def sample(label: str, marker: str, face: str) -> Any:
        look: dict[str, Any] = {"color": "#444444", "linestyle": "", "markersize": 9}
        return axes.plot([], [], marker=marker, markerfacecolor=face, label=label, **look)[0]

    found = {summary.row.augmentation for summary in summaries}
    return [sample(family, MARKERS[family], "#444444") for family in _families(summaries)], [
        sample(_trained_on(way), "o", "white" if way in OPEN else "#444444")
        for way in TRAINING_IMAGES
        if way in found
    ]


def _panels(
    summaries: Sequence[Summary],
    curves: Mapping[str, CurveOf],
    label: str,
    lowest: float | None = None,
) -> Any:
    """Draws one column per family, one row per kind of curve, and one curve per network.

    Networks trained on shifted images are left out.

    Args:
      summaries: The results.
      curves: The kinds of curves, by the label of their vertical axis.
      label: Label of the horizontal axes.
      lowest: Lower limit of the vertical axes. None: automatic.
    """
    shown = [s for s in summaries if s.row.augmentation != "shifts"]
    families = _families(shown) or [*MARKERS]
    size = max(8, 4.3 * len(families)), 0.6 + 4.2 * len(curves)  # inches
    figure = figure_class()(figsize=size, layout="constrained")
    grid = figure.subplots(len(curves), len(families), sharex="col", sharey="row", squeeze=False)
    for panels, (name, curve) in zip(grid, curves.items(), strict=True):
        for axes, family in zip(panels, families, strict=True):
            for summary in shown:
                if summary.row.family == family:
                    x, y = curve(summary)
                    look: dict[str, Any] = {"color": COLOURS[summary.row.variant.key], "linewidth": 2}
                    # Dashed curves are above the others, which show between the dashes.
                    look["linestyle"] = LINES.get(summary.row.augmentation, "-")
                    look["zorder"] = 3 if summary.row.augmentation in LINES else 2
                    axes.plot(x, y, marker="o" if len(x) <= MARKED else "", markersize=4, **look)
            plain_axes(axes)
            axes.locator_params(axis="x", integer=True)
        panels[0].set_ylabel(name, fontsize=12)
        panels[0].set_ylim(bottom=lowest)  # last: a fixed limit no longer adapts to curves
    for top, bottom, family in zip(grid[0], grid[-1], families, strict=True):
        top.set_title(family, loc="left", fontsize=13, fontweight="bold")
        bottom.set_xlabel(label, fontsize=12)
    found = {summary.row.augmentation for summary in shown}
    ways = [way for way in TRAINING_IMAGES if way in found] if len(found) > 1 else []
    looks = [{"linestyle": LINES.get(way, "-"), "label": _trained_on(way)} for way in ways]
    lines = [grid[0][0].plot([], [], "#444444", **look)[0] for look in looks]
    _legend(figure, grid[0][0], shown, 4 if lines else 8, after=lines)
    return figure


def _average(curves: Sequence[Sequence[float]], unit: float = 1.0) -> list[float]:
    return [unit * fmean(values) for values in zip(*curves, strict=True)]


def radius_figure(summaries: Sequence[Summary]) -> Any:
    """Worst-case accuracy over all integer shifts up to a radius."""

    def curve(summary: Summary) -> Curve:
        curves = summary.values("results", "worst", "adversarial_integer", "worst_case_by_radius")
        return range(len(curves[0])), _average(curves, 100)

    return _panels(summaries, {"worst-case accuracy, %": curve}, "radius of the shifts, pixels", lowest=0)


def training_figure(summaries: Sequence[Summary]) -> Any:
    """Training loss per epoch, and test accuracy if it was measured more than once."""

    def over_epochs(split: str, name: str, unit: float = 1.0) -> CurveOf:
        def curve(summary: Summary) -> Curve:
            epochs = summary.values("curve", split, "epoch")
            return epochs[0], _average(summary.values("curve", split, name), unit)

        return curve

    curves = {"training loss": over_epochs("train", "loss")}
    if all(len(epochs) > 1 for s in summaries for epochs in s.values("curve", "eval", "epoch")):
        curves["test accuracy, %"] = over_epochs("eval", "accuracy", 100)
    return _panels(summaries, curves, "epoch")


# name of the file -> title, figure
PICTURES: dict[str, tuple[str, Callable[[Sequence[Summary]], Any]]] = {
    "consistency": (
        "Accuracy against the share of predictions that do not change under a shift. Arrows lead to the same "
        "network trained on shifted images",
        consistency_figure,
    ),
    "worst": (
        "Accuracy of some test images without shifts against their accuracy under the worst circular shift. "
        "On the line, no shift changes a correct prediction into a wrong one",
        worst_figure,
    ),
    "cost": (
        "Accuracy against the time of a training step. Each network took turns with the first one of the "
        "table",
        cost_figure,
    ),
    "radius": (
        "Worst-case accuracy over all circular integer shifts up to a radius. Networks trained on "
        "shifted images are left out",
        radius_figure,
    ),
    "training": (
        "Mean training loss of each epoch, and test accuracy if it was measured after every epoch. Networks "
        "trained on shifted images are left out",
        training_figure,
    ),
}

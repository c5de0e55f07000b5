"""The pictures of the pages: accuracy against consistency, worst case against radius, training curves."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from aliasfree_jax.evaluation.report.pictures import plain_axes
from aliasfree_jax.training.curves import figure_class
from experiments.summary import Summary

# One colour per variant, in all pictures: Okabe and Ito's palette, and grey for the plain network.
COLOURS = {
    "plain": "#888888",
    "circular": "#000000",
    "blur3": "#E69F00",
    "aps1": "#56B4E9",
    "aps3": "#0072B2",
    "lps": "#CC79A7",
    "afc": "#009E73",
    "afg": "#D55E00",
}
MARKERS = {"ResNet-18": "o", "ResNet-20": "s", "ConvNeXt": "D"}  # the families in the pictures
Curve = tuple[Sequence[float], Sequence[float]]
CurveOf = Callable[[Summary], Curve]
MARKED = 32  # curves with more points have no markers
KINDS = {"integer": "integer shifts", "half_pixel": "half-pixel shifts", "crop": "crop shifts"}


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


def consistency_figure(summaries: Sequence[Summary]) -> Any:
    """Accuracy against consistency for three kinds of shifts, with and without shifted training images."""
    figure = figure_class()(figsize=(13, 5.4), layout="constrained")
    panels = figure.subplots(1, len(KINDS), sharey=True)
    for axes, (kind, title) in zip(panels, KINDS.items(), strict=True):
        points: dict[tuple[str, str], dict[str, tuple[float, float]]] = {}
        for summary in summaries:
            network = summary.row.family, summary.row.variant.key
            at = _mean(summary, kind, "consistency"), _mean(summary, "accuracy")
            points.setdefault(network, {})[summary.row.augmentation] = at
        for (family, variant), both in points.items():
            if len(both) == 2:
                arrow = {"arrowstyle": "->", "color": COLOURS[variant], "alpha": 0.4, "shrinkB": 4}
                axes.annotate("", both["shifts"], both["none"], arrowprops=arrow)
            for augmentation, at in both.items():
                face = "white" if augmentation == "none" else COLOURS[variant]
                marker: dict[str, Any] = {"marker": MARKERS[family], "markersize": 9}
                axes.plot(*at, color=COLOURS[variant], markerfacecolor=face, markeredgewidth=1.8, **marker)
        plain_axes(axes)
        axes.set_title(title, loc="left", fontsize=13, fontweight="bold")
        axes.set_xlabel("same class as without shift, %", fontsize=12)
    panels[0].set_ylabel("accuracy, %", fontsize=12)
    _legend(figure, panels[0], summaries, 5, *_shapes(panels[0], _families(summaries)))
    return figure


def _families(summaries: Sequence[Summary]) -> list[str]:
    """The families in the picture that have results."""
    return [name for name in MARKERS if any(s.row.family == name for s in summaries)]


def _shapes(axes: Any, families: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Legend handles: the markers of the families, and open and filled markers."""

    def sample(label: str, marker: str, face: str) -> Any:
        look: dict[str, Any] = {"color": "#444444", "linestyle": "", "markersize": 9}
        return axes.plot([], [], marker=marker, markerfacecolor=face, label=label, **look)[0]

    return [sample(family, MARKERS[family], "#444444") for family in families], [
        sample("trained without shifts", "o", "white"),
        sample("... with shifts", "o", "#444444"),
    ]


def _panels(
    summaries: Sequence[Summary],
    curves: Mapping[str, CurveOf],
    label: str,
    lowest: float | None = None,
) -> Any:
    """Draws one column per family, one row per kind of curve, and one curve per network.

    Only networks trained without shifted images are drawn.

    Args:
      summaries: The results.
      curves: The kinds of curves, by the label of their vertical axis.
      label: Label of the horizontal axes.
      lowest: Lower limit of the vertical axes. None: automatic.
    """
    shown = [s for s in summaries if s.row.augmentation == "none"]
    families = _families(shown) or [*MARKERS]
    size = (13 if len(families) > 1 else 8), 0.6 + 4.2 * len(curves)  # inches
    figure = figure_class()(figsize=size, layout="constrained")
    grid = figure.subplots(len(curves), len(families), sharex="col", sharey="row", squeeze=False)
    for panels, (name, curve) in zip(grid, curves.items(), strict=True):
        for axes, family in zip(panels, families, strict=True):
            for summary in shown:
                if summary.row.family == family:
                    x, y = curve(summary)
                    look = {"color": COLOURS[summary.row.variant.key], "linewidth": 2, "markersize": 4}
                    axes.plot(x, y, marker="o" if len(x) <= MARKED else "", **look)
            plain_axes(axes)
            axes.locator_params(axis="x", integer=True)
        panels[0].set_ylabel(name, fontsize=12)
        panels[0].set_ylim(bottom=lowest)  # last: a fixed limit no longer adapts to curves
    for top, bottom, family in zip(grid[0], grid[-1], families, strict=True):
        top.set_title(family, loc="left", fontsize=13, fontweight="bold")
        bottom.set_xlabel(label, fontsize=12)
    _legend(figure, grid[0][0], shown, 8)
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
    "radius": (
        "Worst-case accuracy over all circular integer shifts up to a radius. Networks trained without "
        "shifted images",
        radius_figure,
    ),
    "training": (
        "Mean training loss of each epoch, and test accuracy if it was measured after every epoch. Networks "
        "trained without shifted images",
        training_figure,
    ),
}

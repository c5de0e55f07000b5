"""The pictures of the page: accuracy against consistency, worst case against radius, training curves."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

from aliasfree_jax.evaluation.pictures import plain_axes
from aliasfree_jax.training.curves import figure_class
from experiments.summary import Summary

# One colour a way to sample, the same everywhere: Okabe and Ito's palette, and grey for the plain network.
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
MARKERS = {"ResNet-18": "o", "ResNet-20": "s", "ConvNeXt": "D"}  # the families that are drawn
Curve = tuple[Sequence[float], Sequence[float]]
MARKED = 32  # so many points of a curve have marks; of more they would hide it
KINDS = {"integer": "integer shifts", "half_pixel": "half-pixel shifts", "crop": "crop shifts"}


def _legend(
    figure: Any,
    axes: Any,
    summaries: Sequence[Summary],
    columns: int,
    before: Sequence[Any] = (),
    after: Sequence[Any] = (),
) -> None:
    """Below the panels: the colours, and what else is drawn in `axes` for it."""
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
    """Accuracy against consistency under three kinds of shift, without and with shifted training images."""
    figure = figure_class("pictures")(figsize=(13, 5.4), layout="constrained")
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
    _legend(figure, panels[0], summaries, 5, *_shapes(panels[0]))
    return figure


def _shapes(axes: Any) -> tuple[list[Any], list[Any]]:
    """For a legend: the shapes of the families; open and filled ones."""

    def sample(label: str, marker: str, face: str) -> Any:
        look: dict[str, Any] = {"color": "#444444", "linestyle": "", "markersize": 9}
        return axes.plot([], [], marker=marker, markerfacecolor=face, label=label, **look)[0]

    families = [sample(family, marker, "#444444") for family, marker in MARKERS.items()]
    return families, [
        sample("trained without shifts", "o", "white"),
        sample("... with shifts", "o", "#444444"),
    ]


def _panels(
    summaries: Sequence[Summary],
    curve: Callable[[Summary], Curve],
    labels: tuple[str, str],
    lowest: float | None = None,
) -> Any:
    """One panel a family, a curve a network trained without shifts; `lowest` value of the axis, if fixed."""
    shown = [s for s in summaries if s.row.augmentation == "none"]
    families = [name for name in MARKERS if any(s.row.family == name for s in shown)] or [*MARKERS]
    figure = figure_class("pictures")(figsize=(13, 4.8), layout="constrained")
    panels = figure.subplots(1, len(families), sharey=True, squeeze=False)[0]
    for axes, family in zip(panels, families, strict=True):
        for summary in shown:
            if summary.row.family == family:
                x, y = curve(summary)
                look = {"color": COLOURS[summary.row.variant.key], "linewidth": 2, "markersize": 4}
                axes.plot(x, y, marker="o" if len(x) <= MARKED else "", **look)
        plain_axes(axes)
        axes.set_title(family, loc="left", fontsize=13, fontweight="bold")
        axes.set_xlabel(labels[0], fontsize=12)
        axes.locator_params(axis="x", integer=True)
    panels[0].set_ylabel(labels[1], fontsize=12)
    panels[0].set_ylim(bottom=lowest)  # at the end: a limit that is set no longer follows the curves
    _legend(figure, panels[0], shown, 8)
    return figure


def _average(curves: Sequence[Sequence[float]], unit: float = 1.0) -> list[float]:
    return [unit * fmean(values) for values in zip(*curves, strict=True)]


def radius_figure(summaries: Sequence[Summary]) -> Any:
    """Worst-case accuracy over all integer shifts of up to so many pixels each way."""

    def curve(summary: Summary) -> Curve:
        curves: Any = summary.values("results", "worst", "adversarial_integer", "worst_case_by_radius")
        return range(len(curves[0])), _average(curves, 100)

    return _panels(summaries, curve, ("radius of the shifts, pixels", "worst-case accuracy, %"), lowest=0)


def training_figure(summaries: Sequence[Summary]) -> Any:
    """Training loss over the epochs."""

    def curve(summary: Summary) -> Curve:
        curves: Any = summary.values("curve", "train", "loss")
        epochs: Any = summary.values("curve", "train", "epoch")
        return epochs[0], _average(curves)

    return _panels(summaries, curve, ("epoch", "training loss"))


# name of the file -> title, figure
PICTURES: dict[str, tuple[str, Callable[[Sequence[Summary]], Any]]] = {
    "consistency": (
        "Accuracy against the share of predictions that stay the same; arrows lead to the same network "
        "trained on shifted images",
        consistency_figure,
    ),
    "radius": (
        "Accuracy in the worst case over all circular integer shifts of up to so many pixels each way, "
        "without shifted training images",
        radius_figure,
    ),
    "training": ("Loss of the training images, means over each epoch, without shifts", training_figure),
}

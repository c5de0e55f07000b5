"""Curves of one or several runs as a picture, from their `metrics.jsonl`.

python -m aliasfree_jax.training.curves runs/mine
python -m aliasfree_jax.training.curves runs/plain runs/aps runs/afc --out=three.png

A run draws its own at its end. Needs matplotlib (pip install 'aliasfree_jax[figures]').
"""

import argparse
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aliasfree_jax.errors import ConfigError, DataError, command
from aliasfree_jax.files import local_path, write_whole
from aliasfree_jax.training.progress import read_events

CURVES = "curves.png"
PANELS = ("loss", "accuracy", "learning_rate")
HALF_LIFE = 0.02  # of the smoothing of training curves, as a share of the run
Series = tuple[list[float], list[float]]  # epochs, values


def read_series(run: Path) -> dict[tuple[str, str], Series]:
    """(split, metric) -> its values over the epochs.

    Raises:
      DataError: the run has no metrics.
    """
    series: dict[tuple[str, str], Series] = {}
    try:
        for event in read_events(run):
            for name in set(event) & set(PANELS):
                epochs, values = series.setdefault((event["split"], name), ([], []))
                epochs.append(event["epoch"])
                values.append(event[name])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"no metrics of a run in {run}: {error}.") from error
    if not series:
        raise DataError(f"{run}/metrics.jsonl has no values yet.")
    return series


def smoothed(series: Series) -> list[float]:
    """An exponential average whose weights halve over `HALF_LIFE` of the run."""
    epochs, values = series
    span = HALF_LIFE * (epochs[-1] - epochs[0]) or 1.0
    result = values[:1]
    for i in range(1, len(values)):
        keep = 0.5 ** ((epochs[i] - epochs[i - 1]) / span)
        result.append(keep * result[-1] + (1 - keep) * values[i])
    return result


def figure_class(purpose: str) -> Any:
    """Matplotlib's `Figure`, used without pyplot: no state and no display. It is optional.

    Raises:
      ConfigError: matplotlib is not installed; `purpose` needs it.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ConfigError(
            f"{purpose} need matplotlib ({error}): pip install 'aliasfree_jax[figures]'."
        ) from error
    return Figure


def draw_curves(runs: Sequence[Path], out: Path) -> None:
    """Loss, accuracy and learning rate of each run: training pale and smoothed, evaluation with marks.

    Raises:
      ConfigError: matplotlib is not installed.
      DataError: a run has no metrics.
      UnwritableError: the picture cannot be written.
    """
    figure_of = figure_class("curves")
    found = [read_series(run) for run in runs]
    figure = figure_of(figsize=(4 * len(PANELS), 3.2), layout="constrained")
    panels = figure.subplots(1, len(PANELS))
    for axes, metric in zip(panels, PANELS, strict=True):
        for number, (run, series) in enumerate(zip(runs, found, strict=True)):
            labels = (run.name, None) if len(runs) > 1 else ("training", "evaluation")
            _draw(axes, series, metric, f"C{number}", labels)
        axes.set(title=metric.replace("_", " "), xlabel="epoch")
        axes.spines[["top", "right"]].set_visible(False)
    panels[1].legend(frameon=False)
    if len(runs) == 1:
        figure.suptitle(runs[0].name)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=150, format=out.suffix.lstrip(".") or "png")
    write_whole(out, picture.getvalue())


def _draw(
    axes: Any,
    series: dict[tuple[str, str], Series],
    metric: str,
    colour: str,
    labels: tuple[str, str | None],
) -> None:
    if train := series.get(("train", metric)):
        if metric != "learning_rate":
            axes.plot(*train, color=colour, alpha=0.25, linewidth=0.8)
        shown = train[1] if metric == "learning_rate" else smoothed(train)
        axes.plot(train[0], shown, color=colour, alpha=0.7, linewidth=1.2, label=labels[0])
    if held_out := series.get(("eval", metric)):
        axes.plot(*held_out, color=colour, marker="o", markersize=3, linewidth=1.5, label=labels[1])


@command
def main(arguments: list[str]) -> None:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m aliasfree_jax.training.curves",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("runs", nargs="+", type=local_path, help="directories of runs")
    parser.add_argument("--out", type=local_path, help=f"the picture; default: {CURVES} in the first run")
    options = parser.parse_args(arguments)
    out = options.out or options.runs[0] / CURVES
    draw_curves(options.runs, out)
    print(f"wrote {out}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

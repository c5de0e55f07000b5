"""Draws the curves of one or several runs from their `metrics.jsonl`.

    python -m aliasfree_jax curves runs/mine
    python -m aliasfree_jax curves runs/plain runs/aps runs/afc --output=three.png

Every run draws its curves at its end. Needs matplotlib (pip install 'aliasfree_jax[figures]').
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from aliasfree_jax.config import RAW
from aliasfree_jax.errors import ConfigError, DataError, needed
from aliasfree_jax.files import local_path, output_file, write_whole
from aliasfree_jax.training.progress import read_events

CURVES = "curves.png"
PICTURE_FORMATS = (".png", ".pdf", ".svg")
# "integer_consistency" is drawn in "consistency", "mean_iou" in "iou". Panels without values are omitted.
PANELS = ("loss", "accuracy", "iou", "psnr", "consistency", "db", "learning_rate")
TITLES = {"iou": "mean IoU", "psnr": "PSNR (dB)", "db": "equivariance error (dB)"}
MARKS = "os^"  # markers of the kinds of shifts
HALF_LIFE = 0.02  # half-life of the smoothing of training curves, as a share of the run
Series = tuple[list[float], list[float]]  # epochs, values


def panel_of(metric: str) -> str:
    """The panel of a metric: "raw_accuracy" is drawn in "accuracy"."""
    return metric if metric in PANELS else metric.rpartition("_")[2]


def read_series(run: Path) -> dict[tuple[str, str], Series]:
    """The values over the epochs, by (split, metric), of the metrics that have a panel.

    Raises:
      DataError: the run has no metrics.
    """
    series: dict[tuple[str, str], Series] = {}
    try:
        for event in read_events(run):
            for name in (name for name in event if panel_of(name) in PANELS):
                epochs, values = series.setdefault((event["split"], name), ([], []))
                epochs.append(event["epoch"])
                values.append(event[name])
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{run} has no readable metrics ({error}). Is it the directory of a run?") from error
    if not series:
        raise DataError(f"{run}/metrics.jsonl has no values yet: wait for the first ones.")
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


def figure_class() -> Any:
    """Matplotlib's `Figure`. It is used without pyplot, so it needs no state and no display.

    Raises:
      MissingPackageError: matplotlib is not installed.
    """
    return needed("matplotlib.figure", "a picture").Figure


def picture_file(text: str | Path, name: str) -> Path:
    """Returns the path of a picture to write. Call it before the work for the picture.

    Raises:
      MissingPackageError: matplotlib is not installed.
      ConfigError: As `output_file`, or the ending names no known format.
    """
    figure_class()
    path = output_file(text, name)
    if path.suffix not in PICTURE_FORMATS:
        raise ConfigError(f"{name} is {path}: the ending must be {' or '.join(PICTURE_FORMATS)}.")
    return path


def save_figure(figure: Any, path: Path) -> None:
    """Writes a figure to a file atomically. The ending is the format.

    Raises:
      UnwritableError: the file cannot be written.
    """
    picture = io.BytesIO()
    figure.savefig(picture, dpi=150, format=path.suffix.lstrip("."))
    write_whole(path, picture.getvalue())


def draw_curves(runs: Sequence[Path], out: Path) -> None:
    """Draws the loss, the learning rate and the evaluations of each run.

    Training curves are pale and smoothed; evaluations have markers. Results of raw weights, measured beside
    averages, are dashed.

    Args:
      runs: directories of the runs.
      out: file of the picture; its extension is the format.

    Raises:
      MissingPackageError: matplotlib is not installed.
      DataError: a run has no metrics.
      UnwritableError: the picture cannot be written.
    """
    figure_of = figure_class()
    found = [read_series(run) for run in runs]
    there = {panel_of(metric) for series in found for _, metric in series}
    shown = [panel for panel in PANELS if panel in there]
    figure = figure_of(figsize=(4 * len(shown), 3.2), layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(shown)), shown, strict=True):
        for number, (run, series) in enumerate(zip(runs, found, strict=True)):
            _draw(axes, series, panel, f"C{number}", f"{run.name}, " if len(runs) > 1 else "")
        axes.set(title=TITLES.get(panel, panel.replace("_", " ")), xlabel="epoch")
        axes.spines[["top", "right"]].set_visible(False)
        if panel not in ("loss", "learning_rate") and axes.lines:
            axes.legend(frameon=False, fontsize="small")
    if len(runs) == 1:
        figure.suptitle(runs[0].name)
    save_figure(figure, out)


def _label(split: str, metric: str, panel: str) -> str:
    """("validation", "raw_integer_consistency") becomes "validation, integer, raw weights"."""
    kind = metric.removeprefix(RAW).removesuffix(panel).rstrip("_")
    return ", ".join(filter(None, (split, kind, "raw weights" if metric.startswith(RAW) else "")))


def _draw(axes: Any, series: dict[tuple[str, str], Series], panel: str, colour: str, run: str) -> None:
    if train := series.get(("train", panel)):
        if panel != "learning_rate":
            axes.plot(*train, color=colour, alpha=0.25, linewidth=0.8)
        shown = train[1] if panel == "learning_rate" else smoothed(train)
        axes.plot(train[0], shown, color=colour, alpha=0.7, linewidth=1.2, label=f"{run}training")
    evaluated = {key: of for key, of in series.items() if key[0] != "train" and panel_of(key[1]) == panel}
    kinds = list(dict.fromkeys(metric.removeprefix(RAW) for _, metric in evaluated))
    for (split, metric), values in evaluated.items():
        mark = MARKS[kinds.index(metric.removeprefix(RAW)) % len(MARKS)]
        style = "--" if metric.startswith(RAW) else "-"
        label = run + _label(split, metric, panel)
        axes.plot(*values, style, color=colour, marker=mark, markersize=3, linewidth=1.5, label=label)


def define(values: flags.FlagValues) -> None:
    """Defines the flags of the command."""
    default = f"default: {CURVES} in the first run"
    flags.DEFINE_string("output", "", f"picture to write; {default}", flag_values=values)


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Draws the runs whose directories are the `arguments`."""
    if not arguments:
        raise ConfigError("expected directories of runs, as in: python -m aliasfree_jax curves runs/mine")
    runs = [local_path(argument) for argument in arguments]
    out = picture_file(values.output, "--output") if values.output else runs[0] / CURVES
    draw_curves(runs, out)
    print(f"wrote {out}")

"""The report of an evaluation: a JSON-able dictionary, and the same as a table for a terminal or a page.

Used by train.py after training and by eval.py.
"""

import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
from tqdm import tqdm

from aliasfree_jax import __version__
from aliasfree_jax.data import Batch
from aliasfree_jax.evaluation.evaluator import Measurement, Results, evaluate
from aliasfree_jax.evaluation.preparation import in_words
from aliasfree_jax.evaluation.tables import align, markdown
from aliasfree_jax.evaluation.trial import Predict
from aliasfree_jax.processes import is_first
from aliasfree_jax.training.mesh import evaluated_batches, make_mesh


def shift_report(
    predict: Predict,
    batches: Iterable[Batch],
    measurements: Sequence[Measurement],
    *,
    images: int,
    devices: int = 0,
    progress: bool = True,
) -> Results:
    """`evaluator.evaluate` on several devices, with a progress bar on stderr.

    Args:
      predict: images to logits, e.g. `placement.predictor(module, variables)`.
      batches: read once. With several processes, each gives its share of every batch.
      measurements: what to measure.
      images: how many there are, for the progress bar.
      devices: that the work is divided over, the same as of `predict`; 0 = all. Results do not depend on it.
      progress: show it.
    """
    pairs = images * (1 + sum(m.count for m in measurements))
    hidden = not (progress and is_first())
    # A terminal redraws one line; in a log file every refresh is a new line, so make them rare.
    interval = 0.5 if sys.stderr.isatty() else 10.0
    with tqdm(
        total=pairs, desc="evaluating", unit=" images", unit_scale=True, disable=hidden, mininterval=interval
    ) as bar:
        placed = evaluated_batches(batches, make_mesh(devices))
        return evaluate(predict, placed, measurements, advance=bar.update)


def circumstances() -> dict[str, str]:
    """Which command made results, with what versions, on which machine, and when (UTC)."""
    devices = jax.devices()
    return {
        "command": shlex.join(["python", *sys.argv]),
        "time": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()),
        "aliasfree_jax": __version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} CPUs",
        "device": f"{len(devices)} x {devices[0].device_kind}",
    }


def percent(share: float) -> str:
    """Two decimals; 100.00% only where there is no exception at all."""
    return f"{share if share == 1 else min(share, 0.9999):.2%}"


def _change(which: str, statistic: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda result: f"{result[which][statistic]:.1e}"


def _share(name: str) -> Callable[[Mapping[str, Any]], str]:
    return lambda result: percent(result[name])


# Heading, key of the result it stands for, and its text.
COLUMNS: tuple[tuple[str, str, Callable[[Mapping[str, Any]], str]], ...] = (
    ("pairs", "pairs", lambda result: f"{result['pairs']}"),
    ("consistency", "consistency", _share("consistency")),
    ("two agree", "pair_consistency", _share("pair_consistency")),
    ("accuracy", "accuracy", _share("accuracy")),
    ("worst case", "worst_case_accuracy", _share("worst_case_accuracy")),
    ("right under all", "right_under_all", _share("right_under_all")),
    ("mean dp", "probability_change", _change("probability_change", "mean")),
    ("max dp", "probability_change", _change("probability_change", "max")),
    ("mean dz", "logit_change", _change("logit_change", "mean")),
    ("max dz", "logit_change", _change("logit_change", "max")),
)
NOTES = {
    "consistency": "consistency: share of (image, shift) pairs whose class is that of the unshifted image.",
    "pair_consistency": "two agree: share of images with the same class under all their shifts.",
    "accuracy": "accuracy: of the shifted images.",
    "worst_case_accuracy": "worst case: right unshifted and under all shifts of the row.",
    "right_under_all": "right under all: as worst case, but the unshifted image may be wrong.",
    "probability_change": "dp: change of the predicted class's probability.",
    "logit_change": "dz: max |z(shifted) - z| / max |z| of the logits z.",
}


def _measured(results: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The measurements and their parts, by the name of their row."""
    for name, result in results.items():
        if isinstance(result, Mapping) and "pairs" in result:
            yield name, result
            for part, of_part in result.get("parts", {}).items():
                yield f"  {part}", of_part


def _rows(results: Mapping[str, Any]) -> list[list[str]]:
    rows = []
    used = [column for column in COLUMNS if any(column[1] in result for _, result in _measured(results))]
    for name, result in _measured(results):
        rows.append([name, *(text(result) if key in result else "" for _, key, text in used)])
    return [["shifts", *(heading for heading, _, _ in used)], *rows] if rows else []


def _explanations(results: Mapping[str, Any]) -> list[str]:
    """Which shifts each measurement means, then what the columns mean."""
    abouts: dict[str, list[str]] = {}
    for name, result in results.items():
        if isinstance(result, Mapping) and result.get("about"):
            abouts.setdefault(result["about"], []).append(name)
    keys = {key for _, result in _measured(results) for key in result}
    return [f"{', '.join(names)}: {about}" for about, names in abouts.items()] + [
        note for key, note in NOTES.items() if key in keys
    ]


def headlines(results: Mapping[str, Any]) -> list[str]:
    """How many images, and their accuracy unshifted; then, if that is known, how they were prepared."""
    lines = [f"{results['images']} images, accuracy {percent(results['accuracy'])}"]
    return lines + ([in_words(results["preparation"])] if "preparation" in results else [])


def _corruptions(results: Mapping[str, Any]) -> list[list[str]]:
    """ImageNet-C: error of each corruption, and relative to AlexNet's."""
    found = results.get("imagenet_c")
    if not found:
        return []
    rows = [["corruption", "error", "relative to AlexNet"]]
    for name, part in found["corruptions"].items():
        relative = part.get("relative_error")
        rows.append([name, f"{part['error']:.2%}", "" if relative is None else f"{relative:.2%}"])
    mce = "" if found["mce"] is None else f"{found['mce']:.2%} (mCE)"
    return [*rows, [f"mean of {len(found['corruptions'])}", f"{found['mean_error']:.2%}", mce]]


def _missing(results: Mapping[str, Any]) -> list[str]:
    """What a partial ImageNet-C lacks: a folder of another name counts for nothing."""
    missing = results.get("imagenet_c", {}).get("missing")
    return [f"not there, so not in the mean: {', '.join(missing)}."] if missing else []


def _published(results: Mapping[str, Any]) -> list[list[str]]:
    """The presets' figures under the names of the papers' programs."""
    figures = results.get("published", {})
    rows = [
        [preset, name, f"{value:.6g}"] for preset, named in figures.items() for name, value in named.items()
    ]
    return [["as published", "figure", "value"], *rows] if rows else []


def compared(networks: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    """Every figure of the networks' tables, one a row and the networks beside each other; heading first."""
    rows: dict[str, list[str]] = {"accuracy, no shift": [percent(r["accuracy"]) for r in networks.values()]}
    for column, results in enumerate(networks.values()):
        whole = ""
        for name, result in _measured(results):
            whole = whole if name.startswith(" ") else name  # several have parts of the same name
            row_name = name if name == whole else f"{whole} {name.strip()}"
            for heading, key, text in COLUMNS[1:]:  # the number of pairs is no property of the network
                if key in result:
                    row = rows.setdefault(f"{row_name}: {heading}", [""] * len(networks))
                    row[column] = text(result)
    return [["", *networks], *([name, *values] for name, values in rows.items())]


def tables(results: Mapping[str, Any]) -> Iterator[tuple[list[list[str]], list[str]]]:
    """Each table of the report that has rows, and the lines that explain it."""
    for rows, notes in (
        (_rows(results), _explanations(results)),
        (_published(results), []),
        (_corruptions(results), _missing(results)),
    ):
        if rows:
            yield rows, notes


def format_table(results: Mapping[str, Any]) -> str:
    """Results of `evaluate` as plain text with aligned columns, without a final newline."""
    blocks = [headlines(results)]
    for rows, notes in tables(results):
        blocks.append(align(rows))
        if notes:
            blocks.append(notes)
    return "\n\n".join("\n".join(block) for block in blocks)


def format_markdown(results: Mapping[str, Any]) -> str:
    """The same as a page in Markdown."""
    blocks = [[line] for line in headlines(results)]
    for rows, notes in tables(results):
        lines = markdown(rows)
        blocks += [lines, [f"- {note}" for note in notes]] if notes else [lines]
    return "\n\n".join("\n".join(block) for block in blocks)

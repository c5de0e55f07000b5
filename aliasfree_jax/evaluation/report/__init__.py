"""Formats the results of an evaluation as tables in plain text or Markdown.

train.py and eval.py use it. The page with pictures is `report.page`.
"""

import os
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax

from aliasfree_jax import __version__
from aliasfree_jax.evaluation.report.columns import COLUMNS, NOTES, NOTES_OF_PIXELS, overall, percent, task_of

Rows = list[list[str]]  # rows of a table; the first is the heading


def align(rows: Rows) -> list[str]:
    """Formats a table as lines of plain text.

    The first column is aligned left, the others right. A rule separates the heading.

    Args:
      rows: The table.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])] + [c.rjust(w) for c, w in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def markdown(rows: Rows) -> list[str]:
    """Formats a table as lines of Markdown and keeps the indentation of first cells.

    Args:
      rows: The table.
    """
    head, *body = rows
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + [
        "| " + " | ".join([row[0].replace("  ", "&nbsp;&nbsp;"), *row[1:]]) + " |" for row in body
    ]


def circumstances() -> dict[str, str]:
    """Returns the command, versions, machine and time (UTC), to store them with results."""
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


def _measured(results: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The measurements and their parts, with the names of their rows."""
    for name, result in results.items():
        if isinstance(result, Mapping) and "pairs" in result:
            yield name, result
            for part, of_part in result.get("parts", {}).items():
                yield f"  {part}", of_part


def _shifts(results: Mapping[str, Any]) -> Rows:
    """Table with one row per measurement."""
    measured = list(_measured(results))
    used = [column for column in COLUMNS if any(column[1] in result for _, result in measured)]
    rows = [["shifts", *(heading for heading, _, _ in used)]]
    for name, result in measured:
        rows.append([name, *(text(result[key]) if key in result else "" for _, key, text in used)])
    return rows


def _explanations(results: Mapping[str, Any]) -> list[str]:
    """Lines that describe the shifts of each measurement, then the columns."""
    abouts: dict[str, list[str]] = {}
    for name, result in results.items():
        if isinstance(result, Mapping) and result.get("about"):
            abouts.setdefault(result["about"], []).append(name)
    keys = {key for _, result in _measured(results) for key in result}
    notes = NOTES_OF_PIXELS if task_of(results) == "segmentation" else NOTES
    return [f"{', '.join(names)}: {about}" for about, names in abouts.items()] + [
        note for key, note in notes.items() if key in keys
    ]


def _classes(results: Mapping[str, Any]) -> Rows:
    """Table of the intersection over union of each class of pixels."""
    found = results.get("class_iou", {})
    texts = ((name, "does not occur" if value is None else percent(value)) for name, value in found.items())
    return [["class", "IoU"], *map(list, texts)]


def _published(results: Mapping[str, Any]) -> Rows:
    """Table of the presets' figures, with the names of the papers' programs."""
    figures = results.get("published", {})
    return [["as published", "figure", "value"]] + [
        [preset, name, f"{value:.6g}"] for preset, named in figures.items() for name, value in named.items()
    ]


def _corruptions(found: Mapping[str, Any]) -> Rows:
    """Table of ImageNet-C: error of each corruption, and the error relative to AlexNet's."""
    rows = [["corruption", "error", "relative to AlexNet"]]
    for name, part in found["corruptions"].items():
        relative = part.get("relative_error")
        rows.append([name, f"{part['error']:.2%}", "" if relative is None else f"{relative:.2%}"])
    mce = "" if found["mce"] is None else f"{found['mce']:.2%} (mCE)"
    return [*rows, [f"mean of {len(found['corruptions'])}", f"{found['mean_error']:.2%}", mce]]


def tables(results: Mapping[str, Any]) -> Iterator[tuple[Rows, list[str]]]:
    """Yields each table of the report that has rows, with the lines that explain it.

    Args:
      results: Results of `evaluator.evaluate`, optionally with "published", "imagenet_c" and "preparation".
    """
    found = [(_shifts(results), _explanations(results)), (_classes(results), []), (_published(results), [])]
    if corrupted := results.get("imagenet_c"):
        # Folders with other names are ignored, so missing corruptions are listed.
        missing = ", ".join(corrupted.get("missing", ()))
        notes = [f"missing, so not in the mean: {missing}."] if missing else []
        found.append((_corruptions(corrupted), notes))
    yield from ((rows, notes) for rows, notes in found if rows[1:])


def in_words(preparation: Mapping[str, Any]) -> str:
    """Formats the result of `preparation.prepare`: "prepared for 48 x 48, ratio 0.875; overridden: ..."."""
    parts = [f"prepared for {preparation['images']}"]
    if overridden := preparation["overridden"]:
        fields = [
            field if values["used"] == values["network"] else f"{field} (network: {values['network']})"
            for field, values in overridden.items()
        ]
        parts.append(f"overridden: {', '.join(fields)}")
    parts += [f"{name}: {kind}, as in the original" for name, kind in preparation.get("presets", {}).items()]
    return "; ".join(parts)


def headlines(results: Mapping[str, Any]) -> list[str]:
    """Lines with the number of images, the results without shifts and, if known, the preparation."""
    found = (f"{words} {text}" for words, text in overall(results).items())
    lines = [", ".join([f"{results['images']} images", *found])]
    return lines + ([in_words(results["preparation"])] if "preparation" in results else [])


def compared(networks: Mapping[str, Mapping[str, Any]]) -> Rows:
    """Table that compares networks: one row per figure, one column per network.

    Args:
      networks: Results by the network's name.
    """
    rows: dict[str, list[str]] = {}
    for column, results in enumerate(networks.values()):
        for words, value in overall(results).items():
            rows.setdefault(f"{words}, no shift", [""] * len(networks))[column] = value
    for column, results in enumerate(networks.values()):
        whole = ""
        for name, result in _measured(results):
            whole = whole if name.startswith(" ") else name  # parts of different measurements share names
            row_name = name if name == whole else f"{whole} {name.strip()}"
            for heading, key, text in COLUMNS[1:]:  # without the number of pairs
                if key in result:
                    row = rows.setdefault(f"{row_name}: {heading}", [""] * len(networks))
                    row[column] = text(result[key])
    return [["", *networks], *([name, *values] for name, values in rows.items())]


def _formatted(
    results: Mapping[str, Any], blocks: list[list[str]], table: Callable[[Rows], list[str]], bullet: str
) -> str:
    """Formats the `blocks`, then all tables with their notes."""
    for rows, notes in tables(results):
        blocks += [table(rows), [f"{bullet}{note}" for note in notes]]
    return "\n\n".join("\n".join(block) for block in blocks if block)


def format_table(results: Mapping[str, Any]) -> str:
    """Formats results as plain text with aligned columns, without a final newline.

    Args:
      results: Results of `evaluator.evaluate`, optionally with "published", "imagenet_c" and "preparation".
    """
    return _formatted(results, [headlines(results)], align, "")


def format_markdown(results: Mapping[str, Any]) -> str:
    """Formats results as Markdown.

    Args:
      results: Results of `evaluator.evaluate`, optionally with "published", "imagenet_c" and "preparation".
    """
    return _formatted(results, [[line] for line in headlines(results)], markdown, "- ")

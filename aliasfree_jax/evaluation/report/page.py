"""Writes an HTML page about one or several evaluated networks: tables, pictures, settings.

python -m aliasfree_jax report runs/a/eval.json runs/b/eval.json --output=report.html

The arguments are result files of eval.py. For pictures, run eval.py with --pictures. The page contains the
pictures and needs no other file; they are also written as separate files next to it. Needs matplotlib
(pip install 'aliasfree_jax[figures]').
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from absl import flags

from aliasfree_jax.config import base_config
from aliasfree_jax.errors import ConfigError, DataError, listed
from aliasfree_jax.evaluation.report import Rows, compared, headlines, tables
from aliasfree_jax.evaluation.report.columns import OVERALL, task_of
from aliasfree_jax.evaluation.report.gallery import Picture, draw_pictures, pictures_of
from aliasfree_jax.evaluation.report.pictured import IMAGE, Evaluated, read_results
from aliasfree_jax.files import local_path, output_file, write_whole

TEMPLATE = Path(__file__).with_name("page.html")
SHOWN = 12  # number of entries that are shown of a long list, e.g. of class names
# Fields of the section data that determine the images of an evaluation. The normalisation belongs to the
# network.
DATA = (
    "source",
    "name",
    "path",
    "eval_split",
    "eval_limit",
    "eval_view",
    "eval_crop_ratio",
    "image_size",
    "zero_pad",
    "interpolation",
    "exif",
)


def _table(rows: Rows) -> str:
    head, *body = rows
    # Allow line breaks after underscores: long names of networks would widen the columns.
    headings = (escape(cell).replace("_", "_<wbr>") for cell in head)
    lines = ["<tr>" + "".join(f"<th>{heading}</th>" for heading in headings) + "</tr>"]
    lines += ["<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in body]
    return '<div class="wide"><table>\n' + "\n".join(lines) + "\n</table></div>"


def _notes(lines: Sequence[str]) -> str:
    return "\n".join(f'<p class="note">{escape(line)}</p>' for line in lines)


def _figure(picture: Picture, drawn: bytes | DataError) -> str:
    head = f"<h2>{escape(picture.title)}</h2>"
    if isinstance(drawn, DataError):
        return f"{head}\n{_notes([f'No picture: {drawn}'])}"
    kind, text = picture.file.rpartition(".")[2], base64.b64encode(drawn).decode("ascii")
    return (
        f'{head}\n<figure><div class="wide">'
        f'<img alt="{escape(picture.title)}" src="data:image/{kind};base64,{text}"></div>\n'
        f"<figcaption>{escape(picture.caption)}</figcaption></figure>"
    )


def _settings(results: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """All entries of the results that are not measurements, with flattened sections."""
    measured = {"images", "published", "imagenet_c", "mean_accuracy", "class_iou", IMAGE}
    measured |= {key for key, *_ in OVERALL.get(task_of(results), ())}
    for key, value in results.items():
        if not prefix and (key in measured or (isinstance(value, Mapping) and "pairs" in value)):
            continue
        if isinstance(value, Mapping) and value:
            yield from _settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _shortened(value)


def _shortened(value: Any) -> str:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return str(value)
    return listed(list(map(str, value)), SHOWN)


def _section(network: Evaluated) -> str:
    parts = [f"<h2>{escape(network.name)}</h2>"]
    parts += [f"<p>{escape(line)}</p>" for line in headlines(network.results)]
    for rows, notes in tables(network.results):
        parts += [_table(rows), _notes(notes)]
    settings = "\n".join(
        f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>"
        for name, value in _settings(network.results)
    )
    parts.append(
        '<details><summary>Settings and machine</summary>\n<table class="settings">\n'
        f"{settings}\n</table></details>"
    )
    return "\n".join(parts)


def _measured_on(results: Mapping[str, Any]) -> dict[str, Any]:
    """Values that must be equal for a fair comparison: the images, and the shifts of the measurements.

    Fields that older results lack get their default.
    """
    usual, stored = base_config().data, results.get("data", {})
    data = {f"data.{field}": stored.get(field, usual[field]) for field in DATA}
    about = {
        name: part["about"]
        for name, part in results.items()
        if isinstance(part, Mapping) and part.get("about")
    }
    return {"images": results["images"]} | data | about


def _differences(networks: Sequence[Evaluated]) -> list[str]:
    """Reasons why comparisons with the first network are unfair: different images or shifts."""
    first, *others = networks
    expected, lines = _measured_on(first.results), []
    for other in others:
        found = _measured_on(other.results)
        differing = [key for key in expected.keys() & found.keys() if expected[key] != found[key]]
        if differing:
            lines.append(
                f"Do not compare {first.name} with {other.name}: these settings differ: "
                f"{', '.join(sorted(differing))}."
            )
    return lines


def page(networks: Sequence[Evaluated], drawn: Mapping[str, bytes | DataError]) -> str:
    """Returns the HTML page.

    Args:
      networks: The evaluated networks.
      drawn: The result of `draw_pictures`.
    """
    names = ", ".join(network.name for network in networks)
    figures = [_figure(picture, drawn[picture.file]) for picture in pictures_of(networks)]
    parts = [*map(_section, networks)]
    if len(networks) > 1:
        table = _table(compared({network.name: network.results for network in networks}))
        parts = [table, _notes(_differences(networks)), *figures, *parts]
    else:
        parts += figures
    filled = Template(TEMPLATE.read_text(encoding="utf-8"))
    return filled.substitute(names=escape(names), body="\n".join(parts))


def write_report(networks: Sequence[Evaluated], out: Path) -> None:
    """Writes the page, and its pictures as files `<out without .html>_<picture>` next to it.

    Args:
      networks: The evaluated networks.
      out: File of the page.

    Raises:
      ConfigError: Two networks have the same name.
      MissingPackageError: matplotlib is not installed.
    """
    if len({network.name for network in networks}) < len(networks):
        names = ", ".join(network.name for network in networks)
        raise ConfigError(f"two networks have the same name: {names}. Pass different names with --names.")
    drawn = draw_pictures(networks)
    for name, content in drawn.items():
        if isinstance(content, bytes):
            write_whole(out.with_name(f"{out.stem}_{name}"), content)
    write_whole(out, page(networks, drawn))


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "names",
        "",
        "names of the networks, separated by commas; default: names of the runs",
        flag_values=values,
    )
    flags.DEFINE_string("output", "report.html", "file of the page", flag_values=values)


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Writes the page about the results in the files of the arguments."""
    files, out = [local_path(path) for path in arguments], output_file(values.output, "--output")
    if not files:
        raise ConfigError("nothing to report: pass the JSON files of eval.py, e.g. runs/mine/eval.json.")
    names = values.names.split(",") if values.names else [""] * len(files)
    if len(names) != len(files):
        raise ConfigError(f"--names has {len(names)} names for {len(files)} files: pass one name per file.")
    write_report([read_results(path, name) for path, name in zip(files, names, strict=True)], out)
    print(f"wrote {out}")

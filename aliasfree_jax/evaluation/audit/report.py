"""Audits as tables for a terminal or a page, and as JSON."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from aliasfree_jax.evaluation.audit.alignment import pair
from aliasfree_jax.evaluation.audit.auditing import Audit, LayerError
from aliasfree_jax.evaluation.report import Rows, align, markdown

LEGEND = (
    "Error: largest |output for the moved image - output, moved along|, relative to the largest |output|; "
    "beside float64, in the network's own precision."
)


def _number(error: float) -> str:
    return "" if math.isnan(error) else f"{error:.1e}"


def own_precision(audit: Audit) -> str:
    """The types that the network's own layers compute in: "float32"."""
    return "/".join(sorted({layer.dtype for layer in audit.layers if layer.dtype})) or "own"


def _remark(layer: LayerError, first: bool) -> str:
    words = {
        "exact": "",
        "breaks": "breaks, the first" if first else "breaks",
        "follows": layer.note,
        "mended": "mended behind it",
        "not compared": f"not compared: {layer.note}",
    }[layer.state]
    # Where nothing matches, the closest place says nothing.
    aligned = "grid chosen anew" if layer.aligned and layer.state == "exact" else ""
    return "; ".join(filter(None, (words, aligned)))


def _rows(audit: Audit) -> Rows:
    rows = [["layer", "output", "float64", own_precision(audit), "  "]]
    first = next(
        (layer for layer in audit.layers if layer.path == audit.first_break and _breaks(layer)), None
    )
    for layer in audit.layers:
        name = f"{layer.path} ({layer.kind})" if layer.path else f"({layer.kind})"
        shape = "x".join(map(str, layer.shape[1:]))
        remark = _remark(layer, layer is first)
        rows.append([name, shape, _number(layer.after), _number(layer.deployed), remark])
    width = max(len(row[-1]) for row in rows)
    return [[*row[:-1], row[-1].ljust(width)] for row in rows]


def _breaks(layer: LayerError) -> bool:
    return layer.state == "breaks"


def _headline(audit: Audit) -> str:
    return f"{audit.network}, image shifted by {pair(audit.shift)}"


def format_table(audits: Sequence[Audit]) -> str:
    """Plain text with aligned columns, a table each, the findings last."""
    blocks = ["\n".join([_headline(a), "", *align(_rows(a))]) for a in audits]
    notes = dict.fromkeys(f"{a.network}: {text}" for a in audits for text in (a.finding, *a.notes))
    return "\n\n".join([*blocks, LEGEND, "\n".join(notes)])


def format_markdown(audits: Sequence[Audit]) -> str:
    """The same as a page in Markdown."""
    blocks = []
    for a in audits:
        notes = [f"- {text}" for text in (a.finding, *a.notes)]
        blocks.append("\n".join([f"## {_headline(a)}", "", *notes, "", *markdown(_rows(a))]))
    return "\n\n".join([LEGEND, *blocks]) + "\n"


def to_json(audits: Sequence[Audit]) -> list[dict[str, Any]]:
    """Fields of `Audit` and `LayerError`; errors that were not compared, or have no bound, are null."""
    found = []
    for a in audits:
        layers = [
            {key: _plain(value) for key, value in dataclasses.asdict(layer).items()} for layer in a.layers
        ]
        found.append(dataclasses.asdict(a) | {"layers": layers})
    return found


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value

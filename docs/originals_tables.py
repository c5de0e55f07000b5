"""Writes the tables of docs/originals.md from docs/originals.json.

python docs/originals_tables.py
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from absl import flags

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from aliasfree_jax.commands import program, refuse  # noqa: E402

DATA = ROOT / "docs" / "originals.json"
PAGE = ROOT / "docs" / "originals.md"
END = "<!-- end of the table -->"
Row = Mapping[str, Any]


def _code(text: str) -> str:
    return f"`{text}`"


def _cells(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _answer(row: Row) -> str:
    """Our command and the note on it, as one cell."""
    return "<br>".join(filter(None, (_code(row["ours"]) if row["ours"] else "", row.get("note", ""))))


def _families(rows: list[Row]) -> Iterator[tuple[Row, list[str]]]:
    """Rows that differ in the network's name only, as one row with NAME, and the names."""
    found: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        name = row.get("name", "\n")
        words = (row["section"], row["original"], row["ours"] or "", row.get("note", ""))
        found.setdefault(tuple(word.replace(name, "NAME") for word in words), []).append(row)
    for (section, original, ours, note), family in found.items():
        if len(family) == 1:
            yield family[0], []
        else:
            general = {"section": section, "original": original, "ours": ours, "note": note}
            yield general, [row["name"] for row in family]


def lines_table(readme: Row) -> str:
    """The table of a README's command lines."""
    rows = [_cells("section", "original", "here"), "|---|---|---|"]
    before = ""
    for row, names in _families(readme["lines"]):
        answer = _answer(row)
        if names:
            answer += f"<br>NAME: {', '.join(map(_code, names))}"
        rows.append(
            _cells(row["section"] if row["section"] != before else "", _code(row["original"]), answer)
        )
        before = row["section"]
    return "\n".join(rows)


def flags_table(readme: Row) -> str:
    """The table of the flags that a README describes in sentences."""
    rows = [_cells("flag", "here"), "|---|---|"]
    rows += [_cells(_code(row["original"]), _answer(row)) for row in readme["flags"]]
    return "\n".join(rows)


def edits_table(edits: list[Row]) -> str:
    """The table of BlurPool's code edits."""
    rows = [_cells("PyTorch", "BlurPool's README", "here"), "|---|---|---|"]
    for edit in edits:
        replacement = "<br>".join(map(_code, edit["replacement"]))
        rows.append(_cells(_code(edit["original"]), replacement, _code(edit["ours"])))
    return "\n".join(rows)


def tables(data: Row) -> dict[str, str]:
    """Every table by the name in its marker."""
    found = {"edits": edits_table(data["edits"])}
    for readme in data["readmes"]:
        found[f"lines of {readme['file']}"] = lines_table(readme)
        if readme["flags"]:
            found[f"flags of {readme['file']}"] = flags_table(readme)
    return found


def marker(name: str) -> str:
    """The line above a table."""
    return f"<!-- table: {name} -->"


def filled(page: str, found: Mapping[str, str]) -> str:
    """The page with its tables.

    Raises:
      ValueError: a table has no place on the page.
    """
    for name, table in found.items():
        before, _, rest = page.partition(marker(name))
        if not rest:
            raise ValueError(f"{PAGE.name} has no line {marker(name)}.")
        page = f"{before}{marker(name)}\n{table}\n{END}{rest.partition(END)[2]}"
    return page


def define(values: flags.FlagValues) -> None:
    """This program has no flags."""


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Rewrites the page."""
    refuse(arguments)
    PAGE.write_text(filled(PAGE.read_text(), tables(json.loads(DATA.read_text()))))
    print(f"wrote {PAGE}")


if __name__ == "__main__":
    sys.exit(program(define, main, __doc__)(sys.argv[1:]))

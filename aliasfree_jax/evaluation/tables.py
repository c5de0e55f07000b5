"""Rows of text, the heading first, as a table for a terminal or a page."""

Rows = list[list[str]]


def align(rows: Rows) -> list[str]:
    """Lines of aligned columns, the first column to the left, a rule under the heading."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [first.ljust(widths[0])] + [c.rjust(w) for c, w in zip(others, widths[1:], strict=True)]
        lines.append("  ".join(cells).rstrip())
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def markdown(rows: Rows) -> list[str]:
    """The lines of a table in Markdown; two spaces that indent a first cell stay."""
    head, *body = rows
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return lines + [
        "| " + " | ".join([row[0].replace("  ", "&nbsp;&nbsp;"), *row[1:]]) + " |" for row in body
    ]

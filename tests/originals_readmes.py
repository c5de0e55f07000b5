"""The command lines and flags in READMEs of the originals."""

import re

COMMANDS = ("bash", "cd", "conda", "jupyter-notebook", "pip", "python", "python3")
FENCE = re.compile(r"^(?:<!-- )?```[a-z]*\n(.*?)^```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"(`{1,3})([^`\n]+)\1")
FLAG = re.compile(r"-{1,2}[a-z]")


def one_line(text):
    """A command on one line, with single spaces."""
    return " ".join(text.replace("\\\n", " ").split())


def _is_command(text):
    return text.split(" ")[0] in COMMANDS and " " in text


def command_lines(text):
    """All command lines: first those of blocks (also in comments), then those within sentences."""
    blocks = [block.replace("\\\n", " ") for block in FENCE.findall(text)]
    lines = [one_line(line) for block in blocks for line in block.splitlines()]
    inline = [one_line(code) for _, code in INLINE.findall(FENCE.sub("", text))]
    return [line for line in (*lines, *inline) if _is_command(line)]


def flags_in(text):
    """All flags within sentences, in order, each once."""
    found = [one_line(code) for _, code in INLINE.findall(FENCE.sub("", text)) if FLAG.match(code)]
    return list(dict.fromkeys(found))


def code(text):
    """All code within sentences and tables that makes a layer, and the lines of Python blocks."""
    inline = [one_line(found).strip(", ") for _, found in INLINE.findall(FENCE.sub("", text))]
    layers = [found for found in inline if re.match(r"(nn\.)?[A-Z]\w*\(", found)]
    return list(dict.fromkeys(layers))

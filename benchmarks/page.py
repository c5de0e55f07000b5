"""Makes docs/benchmarks.md from benchmarks/results/*.json: `python -m benchmarks.page`.

What a person wrote stays: the script replaces what stands between its two markers, one section a kind
of machine.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from aliasfree_jax.commands import program, refuse
from benchmarks import input_pipeline, precision, roofline
from benchmarks.__main__ import RESULTS

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks.md"
BEGIN, END = "<!-- measured: python -m benchmarks.page -->", "<!-- end of measured -->"
Row = dict[str, Any]

TITLES = {
    "resampling": "Interpolation by 2, by matrices and by FFT, ms",
    "narrow resampling": "Low-pass filter of few channels (4 images), ms",
    "activation": "up-polynomial-down of the hidden maps, ms",
    "gate": "polynomial of 4 C maps and gate of 8/3 C pairs (alone), ms",
    "MLP": "Pointwise part of one block, ms",
    "depthwise": "7 x 7 depthwise convolution, ms",
    "stem": "Alias-free stem, ms (gradient towards the parameters)",
}


def table(rows: Sequence[Row], leave_out: Sequence[str] = ()) -> str:
    """Rows of one shape as a Markdown table."""
    columns = [column for column in rows[0] if column not in leave_out]
    lines = [columns, ["---"] * len(columns), *([str(row.get(c, "")) for c in columns] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def origin(section: Row) -> str:
    """Where a section's figures come from."""
    about = section["machine"]
    return (
        f"`{section['command']}`, {section['date']}, {about['device']}, jax {about['jax']}, "
        f"Python {about['python']}, load {about['load']} at the start.\n"
    )


def _an_image(row: Row) -> dict[str, float]:
    """Milliseconds of forward pass and gradient: batches may differ."""
    return {call: row[f"{call}_ms"] / row["batch"] for call in ("forward", "gradient")}


def network_table(rows: Sequence[Row]) -> str:
    """Times, also as ratios to the project's plain network."""
    shown, plain = [], _an_image(next(row for row in rows if row["label"] == "plain"))
    for row in rows:
        own = _an_image(row)
        shown.append(
            {
                "network": row["label"],
                "batch": row["batch"],
                "forward, ms an image": f"{own['forward']:.3g}",
                "gradient, ms an image": f"{own['gradient']:.3g}",
                "train step, images/s": row["step_images_per_s"],
                "forward : plain": round(own["forward"] / plain["forward"], 2),
                "gradient : plain": round(own["gradient"] / plain["gradient"], 2),
                "compile forward, step, s": f"{row['forward_compile_s']}, {row['step_compile_s']}"
                if "forward_compile_s" in row
                else "",
                "GFLOP forward": row.get("forward_gflop", ""),
                "temporary MiB, step": row.get("step_temporary_mib", ""),
                "peak MiB": row["peak_mib"],
            }
        )
    return table(shown)


# By section, quotients of two networks' times and what they are to reach: (numerator, denominator, forward,
# gradient).
GOALS = {
    "networks": (
        ("torch alias-free", "alias-free", "at least 3.5", "at least 3"),
        ("plain", "torch plain", "at most 1.3", "at most 1.2"),
        ("alias-free", "plain", "at most 1.6", ""),
        ("gated", "alias-free", "at most 1", "at most 1"),
    ),
    "resnets": (
        ("blur", "torch blur", "at most 1.3", "at most 1.6"),
        ("blur", "plain", "", ""),
        ("blur, without startup", "blur", "", ""),
    ),
    "cifar": (("plain", "torch plain", "", "at most 2"), ("plain, without startup", "plain", "", "")),
}
# Sections that are one table each.
TABLES = {
    "transform": "ResNet-50 transformed, beside the native one (goal: at most 1.15)",
    "memory": "Memory and recomputation",
    "compile": "Compile time: blocks one by one, or scanned",
}
NETWORKS = {"networks": "ConvNeXt-T", "resnets": "ResNet-50", "cifar": "ResNet-20"}


def goal_table(section: str, rows: Sequence[Row]) -> str:
    """How the networks of a section compare with PyTorch's and with each other."""
    times, shown = {row["label"]: _an_image(row) for row in rows}, []
    for above, below, *goals in GOALS[section]:
        if {above, below} <= set(times):
            line = {"time of / time of": f"{above} / {below}"}
            for call, goal in zip(("forward", "gradient"), goals, strict=True):
                line[call] = f"{times[above][call] / times[below][call]:.2f}"
                line[f"{call}, goal"] = goal
            shown.append(line)
    return table(shown) if shown else ""


def machine_section(name: str, stored: Row) -> str:
    """Everything measured on one kind of machine."""
    parts = [f"## {name}\n"]
    for section, network in NETWORKS.items():
        if section in stored:
            rows = stored[section]["rows"]
            shape = f"{rows[0]['side']} x {rows[0]['side']}, batch {rows[0]['batch']}, {rows[0]['precision']}"
            parts += [f"### {network}: {shape}\n", origin(stored[section]), network_table(rows) + "\n"]
            parts += [goal_table(section, rows) + "\n"]
    for section, title in TABLES.items():
        if section in stored:
            parts += [f"### {title}\n", origin(stored[section]), table(stored[section]["rows"]) + "\n"]
    if "precision" in stored:
        parts += ["### Precision\n", origin(stored["precision"])]
        parts.append(precision.markdown(stored["precision"]["rows"]) + "\n")
    if "input" in stored:
        parts += [
            "### Input\n",
            origin(stored["input"]),
            input_pipeline.markdown(stored["input"]["rows"], table),
        ]
    if "operations" in stored:
        parts += ["### Operations\n", origin(stored["operations"])]
        for key, rows in stored["operations"]["rows"].items():
            parts += [f"{TITLES[key]}:\n", table(rows, ("shape",)) + "\n"]
    return "\n".join(parts)


def roofline_section() -> str:
    """The arithmetic of `benchmarks.roofline`."""
    device, batch = roofline.H200, 256
    return "\n".join(
        [
            f"## {device.name}: lower bounds, not measured\n",
            f"`benchmarks/roofline.py`: milliseconds of the forward pass at batch {batch} in bfloat16, from "
            f"{device.tflops:.0f} TFLOP/s and {device.terabytes_per_s} TB/s.\n",
            table(roofline.measure(device, batch)) + "\n",
        ]
    )


def write_page() -> None:
    """Rewrites the generated part of the page."""
    sections = [machine_section(p.stem, json.loads(p.read_text())) for p in sorted(RESULTS.glob("*.json"))]
    text = PAGE.read_text()
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    generated = "\n".join([BEGIN, "", *sections, roofline_section(), END])
    PAGE.write_text(before + generated + after)


def define(values: flags.FlagValues) -> None:
    """There are no flags."""


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    refuse(arguments)
    write_page()


if __name__ == "__main__":
    sys.exit(program(define, main, __doc__)(sys.argv[1:]))

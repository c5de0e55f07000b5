"""Writes pages from benchmarks/results/*.json: `python -m benchmarks.page`.

All results of a backend go to docs/results/benchmarks_<backend>.md. docs/benchmarks.md is written by hand,
except for one table between two markers: the comparisons measured on a CPU.
"""

import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from absl import flags

from aliasfree_jax.commands import program, refuse
from benchmarks import input_pipeline, precision, roofline
from benchmarks.__main__ import RESULTS

DOCS = Path(__file__).parent.parent / "docs"
BEGIN, END = "<!-- measured: python -m benchmarks.page -->", "<!-- end of measured -->"
Row = dict[str, Any]

TITLES = {
    "resampling": "Interpolation by 2, by matrices and by FFT, ms",
    "narrow resampling": "Low-pass filter of few channels (4 images), ms",
    "activation": "up-polynomial-down of the hidden maps, ms",
    "gate": "Polynomial of 4 C channels and gate of 8/3 C pairs of channels, ms",
    "MLP": "Pointwise part of one block, ms",
    "depthwise": "7 x 7 depthwise convolution, ms",
    "stem": "Alias-free stem, ms (gradient for the parameters)",
}
# Headings of stored columns whose names are short.
HEADINGS = {
    "kept_mib_per_image": "MiB kept per image",
    "temporary_mib_per_image": "temporary MiB per image",
    "gradient_ms": "gradient, ms",
    "ms : native's": "ms / native ms",
    "GFLOP an image": "GFLOP per image",
}
BOUNDS = """These times are computed, not measured (`benchmarks/roofline.py`): milliseconds of the forward
pass at batch {batch} in bfloat16, from {tflops:.0f} TFLOP/s and {bandwidth} TB/s. For every block, the model
counts the bytes that must cross the memory bus and the operations of the tensor cores. It uses the larger of
the two times.

GELU's MLP reads and writes its hidden maps once. "Coarse" resamples the hidden maps, which have four times as
many channels as the maps that "fine" resamples. "Fused" keeps the fine grid on the chip. So no order of
matrix products can reach 1.7 times GELU's time on such a device. A fused kernel could.
"""
HEAD = """# Benchmark results: {backend}

Written by `python -m benchmarks.page` from `benchmarks/results`. Findings and commands are in
[benchmarks.md](../benchmarks.md). "Gradient" is the time of the forward and backward pass together.
"""


def table(rows: Sequence[Row], leave_out: Sequence[str] = ()) -> str:
    """Rows with equal keys as a Markdown table."""
    columns = [column for column in rows[0] if column not in leave_out]
    lines = [[HEADINGS.get(column, column) for column in columns], ["---"] * len(columns)]
    lines += [[str(row.get(column, "")) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def origin(section: Row) -> str:
    """The command, date and machine of a section."""
    about = section["machine"]
    return (
        f"`{section['command']}`, {section['date']}, {about['device']}, jax {about['jax']}, "
        f"Python {about['python']}, load {about['load']} at the start.\n"
    )


def _an_image(row: Row) -> dict[str, float]:
    """Milliseconds per image of forward pass and gradient. Batch sizes may differ between rows."""
    return {call: row[f"{call}_ms"] / row["batch"] for call in ("forward", "gradient")}


def network_table(rows: Sequence[Row]) -> str:
    """Times of networks, and their ratios to this package's plain network."""
    shown, plain = [], _an_image(next(row for row in rows if row["label"] == "plain"))
    for row in rows:
        own = _an_image(row)
        shown.append(
            {
                "network": row["label"],
                "batch": row["batch"],
                "forward, ms per image": f"{own['forward']:.3g}",
                "gradient, ms per image": f"{own['gradient']:.3g}",
                "training step, images/s": row["step_images_per_s"],
                "forward / plain": round(own["forward"] / plain["forward"], 2),
                "gradient / plain": round(own["gradient"] / plain["gradient"], 2),
                "compile time forward, step, s": f"{row['forward_compile_s']}, {row['step_compile_s']}"
                if "forward_compile_s" in row
                else "",
                "GFLOP forward": row.get("forward_gflop", ""),
                "temporary MiB, step": row.get("step_temporary_mib", ""),
                "peak MiB": row["peak_mib"],
            }
        )
    return table(shown)


# For each section: pairs of networks, and the goals for the ratio of their times (numerator, denominator,
# forward, gradient).
GOALS = {
    "networks": (
        ("torch alias-free", "alias-free", "at least 3.5", "at least 3"),
        ("plain", "torch plain", "at most 1.3", "at most 1.2"),
        ("alias-free", "plain", "at most 1.6", ""),
        ("gated", "alias-free", "at most 1", "at most 1"),
    ),
    "resnets": (
        ("blur", "torch blur", "at most 1.3", "at most 1.6"),
        ("blur", "plain", "at most 1.15", ""),
        ("blur, without startup", "blur", "", ""),
    ),
    "xcit-nano": (
        ("gated", "plain", "at most 2.0", "at most 2.2"),
        ("AFT", "plain", "", ""),
        ("AFT by FFT", "plain", "", ""),
    ),
    "xcit-small": (
        ("gated", "plain", "at most 1.6", "at most 1.8"),
        ("AFT", "plain", "", ""),
        ("AFT by FFT", "plain", "", ""),
    ),
    "cifar": (("plain", "torch plain", "", "at most 2"), ("plain, without startup", "plain", "", "")),
}
# Sections that consist of one table.
TABLES = {
    "transform": "ResNet-50, transformed and native (goal: at most 1.15 times the native time)",
    "memory": "Memory and recomputation",
    "compile": "Compile time: separate or scanned blocks",
}
NETWORKS = {
    "networks": "ConvNeXt-T",
    "resnets": "ResNet-50",
    "cifar": "ResNet-20",
    "xcit-nano": "XCiT-nano",
    "xcit-small": "XCiT-small",
}


def comparisons(section: str, rows: Sequence[Row]) -> list[Row]:
    """Ratios of the times of two networks, with the goals."""
    times, shown = {row["label"]: _an_image(row) for row in rows}, []
    for above, below, *goals in GOALS[section]:
        if {above, below} <= set(times):
            line = {"ratio of times": f"{above} / {below}"}
            for call, goal in zip(("forward", "gradient"), goals, strict=True):
                line[call] = f"{times[above][call] / times[below][call]:.2f}"
                line[f"{call}, goal"] = goal
            shown.append(line)
    return shown


def machine_section(name: str, stored: Row) -> str:
    """All results of one kind of machine."""
    parts = [f"## {name}\n"]
    for section, network in NETWORKS.items():
        if section in stored:
            rows = stored[section]["rows"]
            shape = f"{rows[0]['side']} x {rows[0]['side']}, batch {rows[0]['batch']}, {rows[0]['precision']}"
            parts += [f"### {network}: {shape}\n", origin(stored[section]), network_table(rows) + "\n"]
            if compared := comparisons(section, rows):
                parts += [table(compared) + "\n"]
    for section, title in TABLES.items():
        if section in stored:
            parts += [f"### {title}\n", origin(stored[section]), table(stored[section]["rows"]) + "\n"]
    if "precision" in stored:
        parts += ["### Precision\n", origin(stored["precision"])]
        parts.append(precision.markdown(stored["precision"]["rows"]) + "\n")
    if "input" in stored:
        parts += [
            "### Reading images\n",
            origin(stored["input"]),
            input_pipeline.markdown(stored["input"]["rows"], table),
        ]
    if "operations" in stored:
        parts += ["### Operations\n", origin(stored["operations"])]
        for key, rows in stored["operations"]["rows"].items():
            parts += [f"{TITLES[key]}:\n", table(rows, ("shape",)) + "\n"]
    return "\n".join(parts)


def bounds_section() -> str:
    """The lower bounds of `benchmarks.roofline`."""
    device, batch = roofline.H200, 256
    about = BOUNDS.format(batch=batch, tflops=device.tflops, bandwidth=device.terabytes_per_s)
    return f"## Lower bounds for an {device.name}\n\n{about}\n{table(roofline.measure(device, batch))}\n"


def backend_page(backend: str, sections: Sequence[str]) -> str:
    """The page of all machines of one backend."""
    head = HEAD.format(backend=backend.upper())
    return "\n".join([head, *sections, *([bounds_section()] if backend == "gpu" else [])])


def summary_table(machines: Sequence[Row]) -> str:
    """The comparisons of all sections measured on these machines."""
    return table(
        [
            {"network": network, **line}
            for stored in machines
            for section, network in NETWORKS.items()
            if section in stored
            for line in comparisons(section, stored[section]["rows"])
        ]
    )


def write_pages(docs: Path = DOCS) -> list[Path]:
    """Writes the pages of results and the table of docs/benchmarks.md, and returns the files."""
    stored = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    written = []
    for backend, names in itertools.groupby(stored, lambda name: name.partition("-")[0]):
        sections = [machine_section(name, stored[name]) for name in names]
        path = docs / "results" / f"benchmarks_{backend}.md"
        path.parent.mkdir(exist_ok=True)
        path.write_text(backend_page(backend, sections))
        written.append(path)
    page = docs / "benchmarks.md"
    before, after = page.read_text().split(BEGIN)[0], page.read_text().split(END)[1]
    generated = summary_table([found for name, found in stored.items() if name.startswith("cpu-")])
    page.write_text(f"{before}{BEGIN}\n{generated}\n{END}{after}")
    return [*written, page]


def define(values: flags.FlagValues) -> None:
    """Defines no flags."""


def main(values: flags.FlagValues, arguments: list[str]) -> None:
    """Runs the command."""
    refuse(arguments)
    print("\n".join(f"wrote {path}" for path in write_pages()))


if __name__ == "__main__":
    sys.exit(program(define, main, __doc__)(sys.argv[1:]))

"""docs/experiments.md, made from stored results alone: no number in it is written by hand."""

import statistics
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from aliasfree_jax.evaluation.report import Rows, markdown
from aliasfree_jax.evaluation.report.columns import percent
from aliasfree_jax.evaluation.report.pictures import png
from experiments.matrix import AUGMENTATIONS, EVERY_SHIFT, GATES
from experiments.measuring import GRIDS
from experiments.pictures import MARKERS, PICTURES
from experiments.protocols import PROTOCOLS, Protocol
from experiments.stored import ROOT, Store
from experiments.summary import Summary, Table, exceptions, mean, summarize

PAGE = ROOT / "docs" / "experiments.md"
INTRODUCTION = """# Experiments on CIFAR-10

Made by `python -m experiments --page` from `experiments/results`: one JSON file a run, with its whole
configuration, commit, machine, times and the command that makes it again. A run whose file is of the same
configuration is skipped, whatever the code has become since; delete the file to make it again.

```sh
python -m experiments --protocol=reduced --data=CIFAR.tar.xz --jobs=2   # trains and measures what is missing
python -m experiments --protocol=reduced --list                         # what is stored
```

All networks of a family are trained by the same recipe, with and without shifted training images: rolls by
up to {largest} pixels each way, all of the circle, since that is what is measured (LPS takes 3 pixels on
CIFAR-10; APS one roll for a whole batch on ImageNet). Nothing else shifts a training image: the recipe of the
ConvNeXts goes without its padded crops here. The last network is measured, not the best one on test images.
Protocols never share a table."""

NOTES = """- Integer, half-pixel: circular shifts, uniform over the circle, {draws} an image; crop: up to
  {largest_crop} whole pixels each way, zeros (of the normalised image) come in. Same class: as without shift.
- Worst case: images that are right under all shifts. Integer: the whole circle; 1/n: all multiples of 1/n of
  a pixel below one, both axes; real: {points} points, then {steps} steps of gradient ascent from the {starts}
  worst. All on the same {worst_images} test images, evenly spread, whose accuracy without shift stands
  before.
- Exact by construction: consistency is 100 %, and the worst case is the accuracy without shift, all seeds.
- Logits: the largest |z(shifted) - z| / max |z| of all images and shifts. Map: equivariance error of the last
  feature map, largest difference relative to the largest value, shift by (1, 1) and (0.5, 0.5) pixels,
  {mapped_images} images; the pixels of the image that adaptive samplers move it by besides are allowed for.
- Minutes: all updates, without compilation. Load: the machine's at the end; above the number of its
  cores, other work slowed the run down."""

Cell = Callable[[Summary], str]
Columns = tuple[tuple[str, Cell], ...]  # headings, and what stands below


def spread(values: Sequence[float], text: Callable[[float], str]) -> str:
    """One value, both of two seeds, or of more their mean and standard deviation."""
    texts = [text(value) for value in values]
    if len(set(texts)) == 1:
        return texts[0]
    if len(values) == 2:
        return ", ".join(texts)
    return f"{text(mean(values))} ± {100 * statistics.stdev(values):.2f}"


def share(*keys: str) -> Cell:
    """Shares in percent; 100.00 only without exception."""
    return lambda summary: spread(summary.values("results", *keys), lambda v: percent(v).rstrip("%"))


def largest(*keys: str) -> Cell:
    """The largest over seeds."""
    return lambda summary: f"{max(summary.values('results', *keys)):.1e}"


def promised(summary: Summary) -> str:
    """Whether the results are what the mathematics promises."""
    promise = summary.row.variant.promise
    if not promise:
        return ""
    found = len(list(exceptions(summary)))
    shifts = "every shift" if promise == EVERY_SHIFT else "integer shifts"
    return f"{shifts}: {f'**{found} exceptions**' if found else 'holds'}"


def _thousands(summary: Summary) -> str:
    return f"{summary.values('parameters')[0]:,}"


def _minutes(summary: Summary) -> str:
    return f"{statistics.fmean(summary.values('seconds', 'training')) / 60:.1f}"


def _load(summary: Summary) -> str:
    return f"{statistics.fmean(summary.values('machine', 'load')):.0f}"


def _worst(*keys: str) -> Cell:
    return share("worst", *keys, "worst_case_accuracy")


NAME: Columns = (
    ("network", lambda summary: f"{summary.row.family}, {summary.row.variant.name}"),
    ("trained on", lambda summary: {"none": "", "shifts": "shifts"}[summary.row.augmentation]),
)
MEASURED: Columns = (
    ("parameters", _thousands),
    ("accuracy, %", share("accuracy")),
    ("same class, %: integer", share("integer", "consistency")),
    ("half-pixel", share("half_pixel", "consistency")),
    ("crop", share("crop", "consistency")),
)
PROMISE_AND_COST: Columns = (
    ("exact by construction under", promised),
    ("minutes", _minutes),
    ("load", _load),
)
RANDOM: Columns = (*NAME, *MEASURED, *PROMISE_AND_COST)
WORST: Columns = (
    *NAME,
    ("accuracy, %", share("worst", "accuracy")),
    ("worst case, %: integer", _worst("adversarial_integer")),
    *((f"1/{n}", _worst("adversarial_fraction", "parts", f"1/{n}")) for n in GRIDS),
    ("real", _worst("adversarial_continuous")),
    ("logits: integer", largest("integer", "logit_change", "max")),
    ("half-pixel", largest("half_pixel", "logit_change", "max")),
    ("map: integer", largest("map", "integer")),
    ("half-pixel", largest("map", "half_pixel")),
)
GATED: Columns = (
    ("network", lambda summary: summary.row.variant.name),
    *MEASURED,
    ("worst case, %: integer", _worst("adversarial_integer")),
    ("real", _worst("adversarial_continuous")),
    *PROMISE_AND_COST,
)


def rows(summaries: Sequence[Summary], columns: Columns) -> Rows:
    """A table, its heading first."""
    return [[name for name, _ in columns], *([cell(summary) for _, cell in columns] for summary in summaries)]


def _findings(table: Table) -> list[str]:
    """Exceptions to the promises, missing and stale runs."""
    found = [told for summary in table.summaries for told in exceptions(summary)]
    exact = sum(bool(s.row.variant.promise) * len(s.results) for s in table.summaries)
    lines = [
        f"{len(found)} exceptions to what the mathematics promises, in {exact} networks:"
        if found
        else f"No exception to what the mathematics promises, in {exact} networks that it says something of."
    ]
    lines += [f"- {told}" for told in found]
    if table.missing:
        names = ", ".join(f"`{run.name}`" for run in table.missing)
        lines += ["", _filled(f"Missing: {names}.")]
    if table.stale:
        lines += ["", "Left out, since they were made with other settings:"]
        lines += [f"- `{run.name}`: {'; '.join(faults[:3])}" for run, faults in table.stale]
    return lines


def _origin(table: Table) -> str:
    """Code, machines, versions and time of all results."""

    def all_of(values: list[str]) -> str:
        return ", ".join(sorted(set(values)))

    machines = [stored["machine"] for stored in table.results]
    codes = [stored["code"] for stored in table.results]
    commits = [str(c["commit"])[:10] + (" (changed)" if c["dirty"] else "") for c in codes]
    times = sorted(machine["time"] for machine in machines)
    hours = sum(sum(stored["seconds"].values()) for stored in table.results) / 3600
    return (
        f"Code: {all_of(commits)}; {all_of([m['processor'] for m in machines])} a run; "
        f"jax {all_of([m['jax'] for m in machines])}, Python {all_of([m['python'] for m in machines])}; "
        f"{times[0]} to {times[-1]}; data: "
        f"{all_of([stored['settings']['config']['data']['path'] for stored in table.results])}; "
        f"{hours:.1f} hours of training and measuring, summed over runs, of which several share a machine."
    )


def _gates(table: Table) -> list[str]:
    """The table of gates, beside the ConvNeXts that they are compared with; none before one is measured."""
    gates = [summary for summary in table.summaries if summary.row.family == GATES]
    others = [s for s in table.summaries if s.row.family == "ConvNeXt" and s.row.augmentation == "none"]
    if not gates:
        return []
    head = "### Gates that were tried\n\nConvNeXts by the same recipe, trained without shifts."
    return [head, "\n".join(markdown(rows([*others, *gates], GATED)))]


def _filled(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _seeds(protocol: Protocol, table: Table) -> str:
    """How many there are of every row."""
    wanted, found = len(protocol.seeds), sorted({len(summary.results) for summary in table.summaries})
    if wanted == 1:
        return "One seed a row."
    count = " to ".join(map(str, dict.fromkeys((found[0], found[-1]))))
    if found[0] < wanted:
        count += f" of {wanted}"
    shown = "both values" if found[-1] == 2 else "the mean and the standard deviation"
    return f"{count} seeds a row: {shown}, or one number where they are equal."


def section(protocol: Protocol, table: Table, pictures: Sequence[tuple[str, Path]]) -> str:
    """A protocol's part of the page: tables, findings, pictures."""
    head = f"## The {protocol.name} protocol\n\n{_filled(protocol.about)}"
    if not table.summaries:
        return f"{head}\n\nNothing is stored yet."
    images = table.results[0]["results"]["images"]
    compared = [summary for summary in table.summaries if summary.row.family in MARKERS]
    blocks = [
        head,
        f"{_seeds(protocol, table)} {images:,} test images.",
        "\n".join(markdown(rows(compared, RANDOM))),
        "\n".join(markdown(rows(compared, WORST))),
        NOTES.format(**asdict(protocol.measuring)),
        *_gates(table),
        "\n".join(_findings(table)),
        *(f"![{title}]({path.name})\n\n{title}." for title, path in pictures),
        _filled(_origin(table)),
    ]
    return "\n\n".join(blocks)


def write_page(stores: Sequence[Store] | None = None, page: Path = PAGE) -> list[Path]:
    """Writes the page, and its pictures beside it; returns the files.

    Raises:
      ConfigError: matplotlib is not installed.
      DataError: a result that cannot be read.
    """
    blocks, written = [INTRODUCTION.format(largest=max(AUGMENTATIONS.values()))], list[Path]()
    for store in stores or [Store(protocol) for protocol in PROTOCOLS.values()]:
        table, pictures = summarize(store), list[tuple[str, Path]]()
        for name, (title, draw) in PICTURES.items() if table.summaries else ():
            path = page.parent / f"experiments_{store.protocol.name}_{name}.png"
            path.write_bytes(png(draw([s for s in table.summaries if s.row.family in MARKERS])))
            pictures.append((title, path))
        written += [path for _, path in pictures]
        blocks.append(section(store.protocol, table, pictures))
    page.write_text("\n\n".join(blocks) + "\n")
    return [page, *written]

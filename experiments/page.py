"""The pages docs/results/experiments_<protocol>.md. All their numbers come from stored results."""

import statistics
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from aliasfree_jax.evaluation.report import Rows, markdown
from aliasfree_jax.evaluation.report.columns import percent
from aliasfree_jax.evaluation.report.pictures import png
from experiments.matrix import EVERY_SHIFT, GATES, TRAINING_IMAGES
from experiments.measuring import GRIDS
from experiments.pictures import MARKERS, PICTURES
from experiments.protocols import PROTOCOLS, Protocol
from experiments.stored import ROOT, Store
from experiments.summary import Summary, Table, exceptions, mean, summarize

DOCS = ROOT / "docs"
INTRODUCTION = """# CIFAR-10 experiments: the {name} protocol

Written by `python -m experiments --page` from `experiments/results/{name}`. Findings and commands are in
[experiments.md](../experiments.md)."""

NOTES = """What the columns mean:

- Training images: "shifted" images were rolled at random over the whole circle. "Padded crops" were cut at
  random out of the image with 4 pixels of black around it, "reflected crops" with 4 pixels of its reflection.
- Consistency: share of images whose predicted class does not change under a shift. Integer and half-pixel
  shifts are circular and uniform, {draws} per image. Crop shifts move by up to {largest_crop} whole pixels
  per axis, and zeros (of the normalised image) enter at the border.
- Worst case: share of images that are classified correctly under all shifts. "Integer" tries all circular
  shifts. "1/n" tries all multiples of 1/n of a pixel below one pixel, on both axes. "Real-valued" starts
  from {points} points and runs {steps} steps of gradient ascent from the {starts} worst. The same
  {worst_images} test images, evenly spread, are used for all networks. The first accuracy is that of these
  images without shifts.
- Exact in theory: for these shifts, consistency must be 100 % and the worst case must equal the accuracy, for
  all seeds.
- Logit change: the largest |z(shifted) - z| / max |z| over all images and shifts.
- Map error: the equivariance error of the last feature map for shifts by (1, 1) and (0.5, 0.5) pixels. It is
  the largest difference relative to the largest value, over {mapped_images} images. Extra moves by the pixels
  that adaptive samplers choose are allowed.
- Minutes: time of all updates, without compilation. It contains pauses, and hours of different speed.
- Step: time of one update, relative to the first network. Both took turns (`python -m experiments.speed`)."""

Cell = Callable[[Summary], str]
Columns = tuple[tuple[str, Cell], ...]  # headings and cells


def spread(values: Sequence[float], text: Callable[[float], str]) -> str:
    """One value, both values of two seeds, or mean and standard deviation of more seeds."""
    texts = [text(value) for value in values]
    if len(set(texts)) == 1:
        return texts[0]
    if len(values) == 2:
        return ", ".join(texts)
    return f"{text(mean(values))} ± {100 * statistics.stdev(values):.2f}"


def share(*keys: str) -> Cell:
    """A share in percent. 100.00 only without any exception."""
    return lambda summary: spread(summary.values("results", *keys), lambda v: percent(v).rstrip("%"))


def largest(*keys: str) -> Cell:
    """The largest value over seeds."""
    return lambda summary: f"{max(summary.values('results', *keys)):.1e}"


def promised(summary: Summary) -> str:
    """Whether the results agree with the theory."""
    promise = summary.row.variant.promise
    if not promise:
        return ""
    found = len(list(exceptions(summary)))
    shifts = "all shifts" if promise == EVERY_SHIFT else "integer shifts"
    return f"{shifts}: {f'**{found} exceptions**' if found else 'holds'}"


def _thousands(summary: Summary) -> str:
    return f"{summary.values('parameters')[0]:,}"


def _minutes(summary: Summary) -> str:
    return f"{statistics.fmean(summary.values('seconds', 'training')) / 60:.1f}"


def step(summary: Summary) -> str:
    """The time of a training step, relative to the protocol's first network."""
    return "" if summary.step_ratio is None else f"{summary.step_ratio:.2f}"


def _worst(*keys: str) -> Cell:
    return share("worst", *keys, "worst_case_accuracy")


NAME: Columns = (
    ("network", lambda summary: f"{summary.row.family}, {summary.row.variant.name}"),
    ("training images", lambda summary: TRAINING_IMAGES[summary.row.augmentation]),
)
MEASURED: Columns = (
    ("parameters", _thousands),
    ("accuracy, %", share("accuracy")),
    ("consistency, %: integer shifts", share("integer", "consistency")),
    ("half-pixel", share("half_pixel", "consistency")),
    ("crop", share("crop", "consistency")),
)
PROMISE_AND_COST: Columns = (
    ("exact in theory", promised),
    ("minutes", _minutes),
)
RANDOM: Columns = (*NAME, *MEASURED, *PROMISE_AND_COST, ("step", step))
WORST: Columns = (
    *NAME,
    ("accuracy, %", share("worst", "accuracy")),
    ("worst case, %: integer", _worst("adversarial_integer")),
    *((f"1/{n}", _worst("adversarial_fraction", "parts", f"1/{n}")) for n in GRIDS),
    ("real-valued", _worst("adversarial_continuous")),
    ("logit change: integer", largest("integer", "logit_change", "max")),
    ("half-pixel", largest("half_pixel", "logit_change", "max")),
    ("map error: integer", largest("map", "integer")),
    ("half-pixel", largest("map", "half_pixel")),
)
GATED: Columns = (
    ("network", lambda summary: summary.row.variant.name),
    *MEASURED,
    ("worst case, %: integer", _worst("adversarial_integer")),
    ("real-valued", _worst("adversarial_continuous")),
    *PROMISE_AND_COST,
)


def rows(summaries: Sequence[Summary], columns: Columns) -> Rows:
    """A table with a heading row."""
    return [[name for name, _ in columns], *([cell(summary) for _, cell in columns] for summary in summaries)]


def _findings(table: Table) -> list[str]:
    """Contradictions to the theory, missing runs and stale runs."""
    found = [told for summary in table.summaries for told in exceptions(summary)]
    exact = sum(bool(s.row.variant.promise) * len(s.results) for s in table.summaries)
    lines = [
        f"{len(found)} results contradict the theory, in {exact} networks that are exact in theory:"
        if found
        else f"No result contradicts the theory, in {exact} networks that are exact in theory."
    ]
    lines += ["", *(f"- {told}" for told in found)] if found else []
    if table.missing:
        names = ", ".join(f"`{run.name}`" for run in table.missing)
        lines += ["", _filled(f"Missing: {names}.")]
    if table.stale:
        lines += ["", "Left out, because they were made with other settings:", ""]
        lines += [f"- `{run.name}`: {'; '.join(faults[:3])}" for run, faults in table.stale]
    return lines


def _origin(table: Table) -> str:
    """Commits, machines, versions and times of all results."""

    def all_of(values: list[str]) -> str:
        return ", ".join(sorted(set(values)))

    machines = [stored["machine"] for stored in table.results]
    processors = [stored.get("trained_on", stored["machine"]["processor"]) for stored in table.results]
    codes = [stored["code"] for stored in table.results]
    commits = [str(c["commit"])[:10] + (" (changed)" if c["dirty"] else "") for c in codes]
    times = sorted(machine["time"] for machine in machines)
    hours = sum(sum(stored["seconds"].values()) for stored in table.results) / 3600
    return (
        f"Code: {all_of(commits)}; {all_of(processors)} per run; "
        f"jax {all_of([m['jax'] for m in machines])}, Python {all_of([m['python'] for m in machines])}; "
        f"{times[0]} to {times[-1]}; data: "
        f"{all_of([stored['settings']['config']['data']['path'] for stored in table.results])}; "
        f"{hours:.1f} hours of training and measuring, summed over runs. Several runs shared a machine."
    )


def _gates(table: Table) -> list[str]:
    """The table of candidate gates and of the ConvNeXts to compare with. Empty without results of gates."""
    gates = [summary for summary in table.summaries if summary.row.family == GATES]
    others = [s for s in table.summaries if s.row.family == "ConvNeXt" and s.row.augmentation == "none"]
    if not gates:
        return []
    head = "## Candidate gates\n\nConvNeXts trained by the same recipe on unshifted images."
    return [head, "\n".join(markdown(rows([*others, *gates], GATED)))]


def _filled(text: str) -> str:
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False)


def _seeds(protocol: Protocol, table: Table) -> str:
    """The number of seeds per row, and how they are shown."""
    wanted, found = len(protocol.seeds), sorted({len(summary.results) for summary in table.summaries})
    if wanted == 1:
        return "One seed per row."
    count = " to ".join(map(str, dict.fromkeys((found[0], found[-1]))))
    if found[0] < wanted:
        count += f" of {wanted}"
    shown = "both values" if found[-1] == 2 else "mean and standard deviation"
    return f"{count} seeds per row: {shown}, or one number if they are equal."


def page(protocol: Protocol, table: Table, pictures: Sequence[tuple[str, Path]]) -> str:
    """A protocol's page: tables, contradictions to the theory, pictures."""
    images = table.results[0]["results"]["images"]
    compared = [summary for summary in table.summaries if summary.row.family in MARKERS]
    blocks = [
        INTRODUCTION.format(name=protocol.name),
        _filled(protocol.about),
        f"{_seeds(protocol, table)} {images:,} test images.",
        "\n".join(_findings(table)),
        "## Random shifts\n",
        "\n".join(markdown(rows(compared, RANDOM))),
        "## Worst cases\n",
        "\n".join(markdown(rows(compared, WORST))),
        NOTES.format(**asdict(protocol.measuring)),
        *_gates(table),
        "## Pictures\n",
        *(f"![{title}](../{path.name})\n\n{title}." for title, path in pictures),
        "## Origin\n",
        _filled(_origin(table)),
    ]
    return "\n\n".join(block.rstrip("\n") for block in blocks) + "\n"


def write_pages(stores: Sequence[Store] | None = None, docs: Path = DOCS) -> list[Path]:
    """Writes a page and pictures for every protocol with results, and returns the files.

    Raises:
      MissingPackageError: matplotlib is not installed.
      DataError: A result cannot be read.
    """
    written = list[Path]()
    for store in stores or [Store(protocol) for protocol in PROTOCOLS.values()]:
        table, pictures = summarize(store), list[tuple[str, Path]]()
        if not table.summaries:
            continue
        shown = [s for s in table.summaries if s.row.family in MARKERS]
        for name, (title, draw) in PICTURES.items():
            path = docs / f"experiments_{store.protocol.name}_{name}.png"
            if (figure := draw(shown)) is not None:
                path.write_bytes(png(figure))
                pictures.append((title, path))
        text = docs / "results" / f"experiments_{store.protocol.name}.md"
        text.parent.mkdir(exist_ok=True)
        text.write_text(page(store.protocol, table, pictures))
        written += [text, *(path for _, path in pictures)]
    return written

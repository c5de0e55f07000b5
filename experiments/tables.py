"""Writes the tables of the README, docs/dense.md and docs/results from stored results."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from aliasfree_jax.errors import DataError
from aliasfree_jax.evaluation.report import Rows, markdown
from experiments import dense, public_resnet
from experiments.matrix import Row
from experiments.page import NAME, Columns, rows, share
from experiments.protocols import LONGER, PROTOCOLS, REDUCED
from experiments.stored import ROOT, Store
from experiments.summary import summarize

README, DENSE = Path("README.md"), Path("docs/dense.md")
WEIGHTS = Path("docs/results/transformed_public_weights.md")
BEGIN = "<!-- measured: python -m experiments --page, {} -->"
END = "<!-- end of the measured table -->"


@dataclass(frozen=True)
class Excerpt:
    """The rows and columns of a protocol's results that the README shows."""

    shown: Callable[[Row], bool]
    columns: Columns


WORST_CASES: Columns = (
    ("accuracy of the searched images, %", share("worst", "accuracy")),
    ("its worst case: integer shifts", share("worst", "adversarial_integer", "worst_case_accuracy")),
    ("real-valued", share("worst", "adversarial_continuous", "worst_case_accuracy")),
)
EXCERPTS: Mapping[str, Excerpt] = {
    REDUCED.name: Excerpt(
        lambda row: row.family in ("ResNet-18", "ConvNeXt") and row.augmentation == "none",
        (
            NAME[0],
            ("accuracy, %", share("accuracy")),
            ("same class under integer shifts, %", share("integer", "consistency")),
            ("half-pixel", share("half_pixel", "consistency")),
            ("crop", share("crop", "consistency")),
            *WORST_CASES,
        ),
    ),
    LONGER.name: Excerpt(
        lambda row: True,
        (
            *NAME,
            ("accuracy, %", share("accuracy")),
            ("same class under half-pixel shifts, %", share("half_pixel", "consistency")),
            *WORST_CASES,
        ),
    ),
}


def tables() -> Iterator[tuple[Path, str, Rows]]:
    """The tables of protocols, public ResNets and U-Nets: in which page, between which marks, and what."""
    for name, excerpt in EXCERPTS.items():
        stored = summarize(Store(PROTOCOLS[name])).summaries
        shown = [summary for summary in stored if excerpt.shown(summary.row)]
        yield README, f"protocol {name}", rows(shown, excerpt.columns)
    yield README, "public ResNet-20", public_resnet.table("ResNet-20")
    for network in public_resnet.stored():
        yield WEIGHTS, f"public {network}", public_resnet.table(network)
    for task in dense.TASKS:
        yield DENSE, f"dense {task}", dense.table(task)


def write_tables(root: Path = ROOT) -> list[Path]:
    """Writes every table between its marks; returns the pages.

    Raises:
      DataError: a page has no marks, or a result cannot be read.
    """
    found = list(tables())
    for page, name, table in found:
        path, begin = root / page, BEGIN.format(name)
        before, mark, after = path.read_text().partition(begin)
        if not mark or END not in after:
            raise DataError(f"{path} has no lines {begin!r} and {END!r}, between which a table belongs.")
        lines = "\n".join(markdown(table))
        path.write_text(f"{before}{begin}\n{lines}\n{END}{after.partition(END)[2]}")
    return sorted({root / page for page, _, _ in found})

"""The README's table, from the same results as docs/experiments.md."""

from pathlib import Path

from aliasfree_jax.errors import DataError
from aliasfree_jax.evaluation.tables import markdown
from experiments.page import NAME, Columns, rows, share
from experiments.stored import ROOT, Store
from experiments.summary import summarize

README = ROOT / "README.md"
BEGIN, END = "<!-- measured: python -m experiments --page -->", "<!-- end of the measured table -->"
FAMILIES = ("ResNet-18", "ConvNeXt")
COLUMNS: Columns = (
    NAME[0],
    ("accuracy, %", share("accuracy")),
    ("same class under integer shifts, %", share("integer", "consistency")),
    ("half-pixel", share("half_pixel", "consistency")),
    ("crop", share("crop", "consistency")),
    ("accuracy of the searched images, %", share("worst", "accuracy")),
    ("its worst case: integer shifts", share("worst", "adversarial_integer", "worst_case_accuracy")),
    ("real-valued", share("worst", "adversarial_continuous", "worst_case_accuracy")),
)


def write_readme(store: Store, readme: Path = README) -> Path:
    """Writes the table of networks that were trained without shifts between the marks; returns the file.

    Raises:
      DataError: the file has no marks, or a result cannot be read.
    """
    text = readme.read_text()
    if text.find(BEGIN) > text.find(END) or BEGIN not in text:
        raise DataError(f"{readme} has no lines {BEGIN!r} and {END!r}, between which the table belongs.")
    shown = [
        summary
        for summary in summarize(store).summaries
        if summary.row.family in FAMILIES and summary.row.augmentation == "none"
    ]
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    table = "\n".join(markdown(rows(shown, COLUMNS)))
    readme.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}")
    return readme

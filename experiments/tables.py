"""Tables in pages that are otherwise written by hand, from stored results."""

import json
from collections.abc import Iterator
from pathlib import Path

from aliasfree_jax.errors import DataError
from aliasfree_jax.evaluation.report import Rows, markdown
from aliasfree_jax.evaluation.report.columns import percent
from aliasfree_jax.files import PACKAGED as PUBLISHED
from aliasfree_jax.files import packaged
from experiments import blocks, dense, public_resnet, torch_reference, tuning
from experiments.matrix import XCIT
from experiments.page import NAME, Columns, rows, share, step
from experiments.protocols import ACCURATE, LONGER, Protocol
from experiments.stored import ROOT, Store
from experiments.summary import summarize

README, DENSE, EXPERIMENTS = Path("README.md"), Path("docs/dense.md"), Path("docs/experiments.md")
PACKAGED = Path("docs/weights.md")
RESULTS = ROOT / "experiments" / "results" / "weights"
WEIGHTS = Path("docs/results/transformed_public_weights.md")
BEGIN = "<!-- measured: python -m experiments --page, {} -->"
END = "<!-- end of the measured table -->"


def short(protocol: Protocol) -> Rows:
    """The results of a protocol, as docs/experiments.md shows them."""
    columns: Columns = (
        *NAME,
        ("accuracy, %", share("accuracy")),
        ("consistency, %: integer shifts", share("integer", "consistency")),
        ("half-pixel", share("half_pixel", "consistency")),
        (f"accuracy of {protocol.measuring.worst_images} images, %", share("worst", "accuracy")),
        ("their worst case: integer shifts", share("worst", "adversarial_integer", "worst_case_accuracy")),
        ("real-valued", share("worst", "adversarial_continuous", "worst_case_accuracy")),
        ("step", step),
    )
    return rows(summarize(Store(protocol)).summaries, columns)


def packaged_weights() -> Rows:
    """The results of eval.py for the weights of the package.

    Raises:
      DataError: There are none of some weights.
    """
    found: Rows = [["name", "size, MB", "accuracy, %", "consistency, %: integer shifts", "fractional shifts"]]
    for name in packaged():
        path = RESULTS / f"{name}.eval.json"
        if not path.exists():
            raise DataError(f"there are no results {path}: run the command in {PACKAGED}.")
        results = json.loads(path.read_text())
        size = (PUBLISHED / name / "model.safetensors").stat().st_size
        shares = results["accuracy"], *(results[kind]["consistency"] for kind in ("integer", "fractional"))
        cells = [percent(share).rstrip("%") for share in shares]
        found.append([f"`{name}`", f"{size / 1e6:.1f}", *cells])
    return found


def tables() -> Iterator[tuple[Path, str, Rows]]:
    """All tables: the page, the name in the markers, and the rows."""
    for protocol in (ACCURATE, LONGER):
        yield EXPERIMENTS, f"protocol {protocol.name}", short(protocol)
    yield EXPERIMENTS, "PyTorch", torch_reference.table()
    yield EXPERIMENTS, "alias-free blocks", blocks.table("ResNet-20")
    yield EXPERIMENTS, "alias-free blocks at full depth", blocks.table("ResNet-20", blocks.SHORT)
    yield EXPERIMENTS, "alias-free blocks, longer", blocks.table("ResNet-20", blocks.MIDDLE)
    yield EXPERIMENTS, "gated XCiTs", blocks.table(XCIT)
    yield EXPERIMENTS, "gated ConvNeXts", blocks.table("ConvNeXt")
    yield README, "fine-tuning", tuning.table()
    yield PACKAGED, "weights of the package", packaged_weights()
    for network in public_resnet.stored():
        yield WEIGHTS, f"public {network}", public_resnet.table(network)
    for task in dense.TASKS:
        yield DENSE, f"dense {task}", dense.table(task)


def write_tables(root: Path = ROOT) -> list[Path]:
    """Writes every table between its markers, and returns the pages.

    Raises:
      DataError: A page has no markers, or a result cannot be read.
    """
    found = list(tables())
    for page, name, table in found:
        path, begin = root / page, BEGIN.format(name)
        before, mark, after = path.read_text().partition(begin)
        if not mark or END not in after:
            raise DataError(f"{path} needs the lines {begin!r} and {END!r}, with a table between them.")
        lines = "\n".join(markdown(table))
        path.write_text(f"{before}{begin}\n{lines}\n{END}{after.partition(END)[2]}")
    return sorted({root / page for page, _, _ in found})

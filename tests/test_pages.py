"""docs/samplers.md agrees with samplers.json, docs/limits.md with docs/results/experiments_reduced.md."""

import json
import re
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parent.parent / "docs"
PAGE = (DOCS / "samplers.md").read_text()
MEASURED = json.loads((DOCS / "samplers.json").read_text())["samplers"]
ROWS = {  # by the sampler's name
    line.split("|")[1].strip(" `").split("`")[0].replace("_", " "): line
    for line in PAGE.splitlines()
    if "|" in line
}
# Rounding of float32 in sums of some thousand terms.
EXACT = 1e-5


@pytest.mark.parametrize("name", MEASURED)
def test_the_table_has_what_was_measured(name):
    found, row = MEASURED[name], ROWS[name]
    share = 100 * found["arithmetic"]
    assert f"| {share:.0f} % |" in row or f"| {share:.1f} % |" in row or (share == 0 and "| 0 |" in row)
    if "resnet18" in found:
        size = found["resnet18"]
        assert f"{size['multiply_adds'] / 1e9:.2f}, {size['parameters'] / 1e6:.2f} M" in row


@pytest.mark.parametrize("name", MEASURED)
def test_what_the_table_promises_was_measured(name):
    cell = ROWS[name].split("|")[3]
    promised = {"whole": "whole pixels" in cell, "half": "fractions" in cell}
    for which, promise in promised.items():
        assert (MEASURED[name][which]["max"] < EXACT) == promise
        # Changes that are not exact are far above rounding.
        assert promise or MEASURED[name][which]["max"] > 100 * EXACT


def test_every_layer_of_the_table_exists():
    from aliasfree_jax import layers

    for name in MEASURED:
        for layer in re.findall(r"`([A-Z]\w+)", ROWS[name].split("|")[2]):
            assert hasattr(layers, layer)


def cells(line):
    return [cell.strip() for cell in line.strip("|\n ").split("|")]


def test_the_limits_have_the_numbers_of_the_experiments():
    """Networks trained without shifted images, by the reduced protocol: the first rows of that name."""
    results = DOCS / "results" / "experiments_reduced.md"
    experiments = [cells(line) for line in results.read_text().splitlines()]
    rows = [cells(line) for line in (DOCS / "limits.md").read_text().splitlines()]
    rows = [row for row in rows if row[0].startswith(("ResNet", "ConvNeXt")) and len(row) == 4]
    assert len(rows) == 9
    for name, *shares in rows:
        measured = next(row for row in experiments if row[:2] == [name, "unshifted"])
        assert shares == measured[4:7], name

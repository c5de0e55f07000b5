"""docs/notebooks: the stored files are complete, their claims hold, and a broken claim is noticed."""

import copy
import json
import os
import re
import time
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[1] / "docs" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SECONDS = 60  # limit of a whole notebook, with the start of its kernel
MOST_BYTES = 300_000
TEST_SETTINGS = ("JAX_DISABLE", "JAX_COMPILATION", "JAX_PERSISTENT", "XLA_FLAGS")  # of conftest.py
METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}
BY_NAME = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def source(cell):
    return "".join(cell["source"])


def code_cells(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def test_there_are_three():
    assert [path.stem for path in NOTEBOOKS] == [
        "alias_free_equivariance",
        "learned_polyphase",
        "your_own_network",
    ]


@BY_NAME
def test_a_notebook_is_stored_as_it_ran(path):
    notebook = json.loads(path.read_text())
    code = code_cells(notebook)
    assert [cell["execution_count"] for cell in code] == [*range(1, len(code) + 1)]
    for cell in code:
        outputs = cell["outputs"]
        assert all(output["output_type"] != "error" for output in outputs)
        assert all(output.get("name") != "stderr" for output in outputs)
        drawn = any("image/png" in output.get("data", {}) for output in outputs)
        assert drawn == bool(re.search(r"^(figure, |plot\()", source(cell), re.MULTILINE)), source(cell)
        if re.search(r"^ *print\(", source(cell), re.MULTILINE):
            assert any(output.get("name") == "stdout" for output in outputs), source(cell)


@BY_NAME
def test_a_notebook_is_clean(path):
    notebook = json.loads(path.read_text())
    assert (notebook["nbformat"], notebook["metadata"]) == (4, METADATA)
    assert all(cell["metadata"] == {} for cell in notebook["cells"])
    assert path.stat().st_size < MOST_BYTES
    without_pictures = re.sub(r'"image/png": "[^"]*"', "", path.read_text())
    assert not re.search(r"/(home|root|tmp|usr|Users)/|ipykernel_", without_pictures)


@BY_NAME
def test_a_notebook_asserts_a_claim_and_a_control(path):
    code = "\n".join(source(cell) for cell in code_cells(json.loads(path.read_text())))
    assert len(re.findall(r"^assert ", code, re.MULTILINE)) >= 3


def execute(notebook):
    """Runs all cells in a fresh kernel, in `SECONDS` together."""
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    end = time.monotonic() + SECONDS
    checked = nbformat.reads(json.dumps(notebook), as_version=4)
    nbformat.validate(checked)
    # 0 would mean no limit.
    remaining = lambda cell: max(1, end - time.monotonic())  # noqa: E731
    # Without the tests' settings of jax: notebooks compile as users do, without a cache.
    env = {name: value for name, value in os.environ.items() if not name.startswith(TEST_SETTINGS)}
    nbclient.NotebookClient(checked, timeout_func=remaining, kernel_name="python3").execute(env=env)


@pytest.mark.slow
@BY_NAME
def test_a_notebook_runs(path):
    execute(json.loads(path.read_text()))


@pytest.mark.slow
def test_a_broken_claim_is_noticed():
    """The alias-free layer with GELU in place of its polynomial: the first assertion fails."""
    nbclient = pytest.importorskip("nbclient")
    notebook = json.loads((FOLDER / "alias_free_equivariance.ipynb").read_text())
    last = next(i for i, cell in enumerate(notebook["cells"]) if "\nassert " in source(cell))
    short = {**notebook, "cells": copy.deepcopy(notebook["cells"][: last + 1])}
    text = json.dumps(short)
    assert text.count("activation.apply(variables, x)") == 1
    broken = json.loads(text.replace("activation.apply(variables, x)", "jax.nn.gelu(x)"))
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="AssertionError"):
        execute(broken)

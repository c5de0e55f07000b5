"""Runs the examples of README and docs pages with all packages blocked that only training needs."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from aliasfree_jax import layers

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "layers.md").read_text()
FOR_TRAINING = (
    *("grain", "orbax", "tensorflow_datasets", "ml_collections", "optax"),
    *("PIL", "sklearn", "tqdm", "matplotlib"),  # absl is not in the list, because flax imports it
)
NNX_TRAINING = ROOT / "examples" / "nnx_training.py"
MOST_LINES = 8  # without imports, class lines and decorators

RUNNER = """
import sys
from importlib.abc import MetaPathFinder

blocked, blocks = {blocked!r}, {blocks!r}

class Blocker(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in blocked:
            raise ModuleNotFoundError(f"{{name}} is blocked", name=name)

sys.meta_path.insert(0, Blocker())
one_program = {{"__name__": "example"}}  # the blocks of docs/transform.md need the first one
for place, block in blocks:
    names = one_program if "transform" in place else {{"__name__": "example"}}
    exec(compile(block, place, "exec"), names)
print(len(blocks))
"""


def blocks(text, place):
    """The Python blocks of a page with their positions."""
    found = re.finditer(r"```python\n(.*?)```", text, re.DOTALL)
    return [(f"{place}:{text[: match.start()].count(chr(10)) + 1}", match[1]) for match in found]


TRANSFORM = (ROOT / "docs" / "transform.md").read_text()
EXAMPLES = [
    *blocks(PAGE, "docs/layers.md"),
    *blocks((ROOT / "docs" / "dense.md").read_text(), "docs/dense.md"),
    *blocks(TRANSFORM, "docs/transform.md"),
    *blocks((ROOT / "docs" / "networks.md").read_text(), "docs/networks.md"),
    *blocks((ROOT / "README.md").read_text(), "README.md"),
]
NNX = [(place, block) for place, block in EXAMPLES if "nnx" in block]
LARGE = [(place, block) for place, block in EXAMPLES if "_tiny" in block]  # compiles for a minute
LINEN = [example for example in EXAMPLES if example not in NNX + LARGE]


RUNS = [
    pytest.param(LINEN, (), id="linen"),
    pytest.param(NNX, ("optax",), id="nnx"),
    pytest.param(LARGE, (), id="large", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("examples", "allowed"), RUNS)
def test_examples_run_without_what_training_needs(examples, allowed):
    blocked = [name for name in FOR_TRAINING if name not in allowed]
    code = RUNNER.format(blocked=blocked, blocks=examples)
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.split()[-1] == str(len(examples))


def test_there_are_examples_of_everything():
    assert len(LINEN) >= 5 and len(NNX) == 2


@pytest.mark.parametrize(("place", "block"), EXAMPLES, ids=[place for place, _ in EXAMPLES])
def test_examples_are_short(place, block):
    lines = [
        line
        for line in block.splitlines()
        if line.strip() and not re.match(r"(import|from|class) | *@", line)
    ]
    assert len(lines) <= MOST_LINES or "transform" in place  # whole networks
    if place.startswith("docs"):
        assert "assert" in block


def test_the_page_names_every_layer():
    table = {
        name for line in PAGE.splitlines() if line.startswith("|") for name in re.findall(r"`(\w+)", line)
    }
    assert not {*layers.__all__} - table


@pytest.mark.slow
def test_a_network_trains_with_nnx(capsys):
    """The example's own assertions: accuracy, and the same class after a shift."""
    runpy.run_path(str(NNX_TRAINING), run_name="__main__")
    assert "same class after a shift 100.0%" in capsys.readouterr().out


def test_the_page_on_nnx_shows_the_example():
    shown = blocks((ROOT / "docs" / "nnx.md").read_text(), "docs/nnx.md")
    assert len(shown) == 4
    for place, block in shown:
        assert block in NNX_TRAINING.read_text(), place

"""Runs the examples, and imports the scripts in docs/, which train for minutes."""

import importlib.util
import re
from pathlib import Path

import pytest

from aliasfree_jax.commands import program

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", sorted((ROOT / "docs").glob("*.py")), ids=lambda path: path.stem)
def test_what_a_script_imports_is_there(path):
    assert callable(loaded(path).main)


def run(name, *arguments, **fewer):
    module = loaded(EXAMPLES / f"{name}.py")
    vars(module).update(fewer)
    if not hasattr(module, "define"):
        return module.main()
    assert program(module.define, module.main, module.__doc__)([*arguments]) == 0


def test_a_function_of_numpy_arrays(capsys):
    run("any_function")
    text = capsys.readouterr().out
    assert "48 images, accuracy 100.00%" in text and "sub_shift_robust_score" in text
    row = next(line for line in text.splitlines() if line.startswith("adversarial_integer"))
    assert float(row.split()[-1].rstrip("%")) < 100  # a stride of 4


def test_a_torch_module_gives_the_same_table(capsys):
    pytest.importorskip("torch", reason="the example of a PyTorch module needs PyTorch")
    tables = []
    for arguments in ([], ["--torch"]):
        run("any_function", *arguments)
        tables.append(capsys.readouterr().out)
    # Compares all columns except changes, because their last digits depend on rounding.
    shares = [[word for word in table.split() if word.endswith("%")] for table in tables]
    assert shares[0] == shares[1] and len({*shares[0]}) > 5


@pytest.mark.slow
def test_a_flax_network(capsys):
    run("flax_network", IMAGES=12, BATCH=12)
    blocks = capsys.readouterr().out.split("Network(")[1:]
    worst = [
        float(next(x for x in b.splitlines() if x.startswith("adversarial_integer")).split()[2].rstrip("%"))
        for b in blocks
    ]
    assert worst[0] < worst[1]  # blurring helps
    assert all("feature maps after undoing" in block for block in blocks)


def test_the_guides_snippet_runs(capsys):
    guide = EXAMPLES.parent / "docs" / "evaluation.md"
    (snippet,) = re.findall(r"```python\n(.*?)```", guide.read_text(), re.DOTALL)
    exec(compile(snippet, guide.name, "exec"), {"__name__": "guide"})
    assert 0 <= float(capsys.readouterr().out) < 1

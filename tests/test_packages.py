"""Tests of imports: pyproject.toml declares them, networks need few, and missing ones give clear messages."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import yaml

import aliasfree_jax
from aliasfree_jax import errors
from aliasfree_jax.__main__ import COMMANDS
from aliasfree_jax.errors import OPTIONAL, REQUIRED, MissingPackageError, command, excepthook, needed

ROOT = Path(__file__).resolve().parent.parent
SOURCES = [ROOT / "train.py", ROOT / "eval.py"] + [
    path for folder in ("aliasfree_jax", "configs") for path in sorted((ROOT / folder).rglob("*.py"))
]
TEXT = (ROOT / "pyproject.toml").read_text()
PROJECT = tomllib.loads(TEXT)["project"]

NETWORKS = """
import alone
import importlib, pkgutil
import aliasfree_jax
from aliasfree_jax import layers, models, ops

for part in (ops, layers, models):
    for module in pkgutil.iter_modules(part.__path__, f"{part.__name__}."):
        if not module.name.endswith(".command"):  # commands need absl for their flags
            importlib.import_module(module.name)

import jax, jax.numpy as jnp

images = jnp.ones((2, 8, 8, 3))
network = aliasfree_jax.create_model("basic_blur", num_classes=5, widths=(2, 4))
logits = jax.jit(lambda x: network.apply(network.init(jax.random.key(0), x), x))(images)
assert logits.shape == (2, 5)
for name in ("convnext_afc_cifar", "resnet20_cifar_lps"):
    other = aliasfree_jax.create_model(name)
    jax.eval_shape(other.init, jax.random.key(0), jnp.ones((1, 32, 32, 3)))

for missing in ("optax", "grain", "orbax.checkpoint", "requests"):  # checks that imports are blocked
    try:
        importlib.import_module(missing)
    except ModuleNotFoundError:
        continue
    raise AssertionError(f"{missing} is not refused")

alone.allow("optax")  # Flax's NNX imports it
from flax import nnx

logits = nnx.jit(lambda x: nnx.bridge.ToNNX(network, rngs=nnx.Rngs(0)).lazy_init(x)(x))(images)
assert logits.shape == (2, 5)
"""


def test_networks_need_jax_flax_and_numpy_alone():
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    variables = {"PYTHONPATH": paths, "JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    run = subprocess.run([sys.executable, "-c", NETWORKS], env=os.environ | variables, capture_output=True)
    assert run.returncode == 0, run.stderr.decode()


def imports(tree: ast.AST, inside: bool = False) -> Iterator[tuple[str, bool]]:
    """Imported packages, and whether the import is inside a function or a `try`, or by `needed`."""
    for node in ast.iter_child_nodes(tree):
        names: list[str] = []
        match node:
            case ast.Import():
                names = [alias.name for alias in node.names]
            case ast.ImportFrom(level=0):
                names = [node.module or ""]
            case ast.Call(func=ast.Name(id="needed"), args=[ast.Constant(value=str(name)), *_]):
                names = [name]
        yield from ((name.partition(".")[0], inside) for name in names)
        yield from imports(node, inside or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Try))


def undeclared(source: str) -> set[str]:
    """Packages that `source` imports, but pyproject.toml does not declare for this place."""
    own = {*sys.stdlib_module_names, "aliasfree_jax", "configs"}
    found = {(name, inside) for name, inside in imports(ast.parse(source)) if name not in own}
    return {name for name, inside in found if name not in REQUIRED and not (inside and name in OPTIONAL)}


def names_of(requirements: list[str]) -> set[str]:
    """Names of the distributions in a list of pyproject.toml."""
    return {re.split(r"[\s\[<>=;]", text)[0] for text in requirements}


def test_every_import_is_declared():
    assert {str(path): found for path in SOURCES if (found := undeclared(path.read_text()))} == {}


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import os, numpy\nfrom scipy.io import loadmat\nfrom aliasfree_jax import cli", set()),
        ("import pandas.core as pd", {"pandas"}),
        ("def f():\n    with x:\n        from einops import rearrange", {"einops"}),
        ("import matplotlib", {"matplotlib"}),
        ("class A:\n    def f(self):\n        import matplotlib.figure", set()),
        ("try:\n    import wandb\nexcept ImportError:\n    pass", set()),
        ("def f():\n    return needed('bokeh.plotting', 'a picture')", {"bokeh"}),
        ("def f():\n    return needed('matplotlib.figure', 'a picture')", set()),
    ],
)
def test_the_checker_finds(source, expected):
    assert undeclared(source) == expected


def test_the_dependencies_are_those_of_the_table():
    assert names_of(PROJECT["dependencies"]) == set(REQUIRED.values())
    extras = {name: names_of(listed) for name, listed in PROJECT["optional-dependencies"].items()}
    installed = packages_distributions()
    for module, asked in (REQUIRED | OPTIONAL).items():
        extra = re.fullmatch(r"aliasfree_jax\[(\w+)\]", asked)
        known = {name.lower().replace("_", "-") for name in installed.get(module, [])}
        if extra:
            assert known <= extras[extra[1]], module
        else:
            assert not known or asked in known, module
        assert module in REQUIRED or extra or any(asked in listed for listed in extras.values()), module


def test_every_declared_package_is_imported_or_has_a_reason():
    used = {name for path in SOURCES for name, _ in imports(ast.parse(path.read_text()))}
    lines = {re.split(r"[<>=\[]", line.strip(' "'))[0]: line for line in TEXT.splitlines()}
    idle = [module for module in REQUIRED | OPTIONAL if module not in used]
    assert [m for m in idle if m in OPTIONAL or "#" not in lines[REQUIRED[m]]] == []
    assert idle == ["importlib_resources"]  # shows that the test finds unused packages


PROGRAMS = [["train.py"], ["eval.py"], *(["-m", "aliasfree_jax", name] for name in COMMANDS)]
PROGRAMS += [["-m", name] for name in ("experiments", "experiments.worker", "benchmarks")]


@pytest.mark.parametrize("program", PROGRAMS, ids=" ".join)
def test_commands_say_what_is_missing(program, tmp_path):
    """Uses numpy, which every command imports early, so that the test is fast."""
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError('No module named numpy', name='numpy')")
    run = start(program, tmp_path)
    typed = " ".join(["python", *program[:2]])
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr == f"error: {typed} needs numpy (No module named numpy): pip install numpy\n"


@pytest.mark.parametrize("program", [["train.py"], ["-m", "aliasfree_jax", "prepare"]], ids=" ".join)
def test_interrupted_while_python_imports(program, tmp_path):
    (tmp_path / "numpy.py").write_text("raise KeyboardInterrupt")
    run = start(program, tmp_path)
    assert (run.returncode, run.stdout, run.stderr) == (130, "", "\ninterrupted\n")


@pytest.mark.parametrize("program", [["train.py"], ["-m", "aliasfree_jax", "convert"]], ids=" ".join)
def test_other_imports_keep_their_traceback(program, tmp_path):
    (tmp_path / "numpy.py").write_text("import no_such_library_at_all")
    run = start(program, tmp_path)
    assert run.returncode == 1 and run.stderr.startswith("Traceback")
    assert "ModuleNotFoundError: No module named 'no_such_library_at_all'" in run.stderr


def start(program: list[str], first: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command; modules in the directory `first` hide installed ones."""
    variables = os.environ | {"PYTHONPATH": str(first), "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, *program], cwd=ROOT, env=variables, capture_output=True, text=True, timeout=60
    )


def importing(module: str, monkeypatch: pytest.MonkeyPatch, *typed: str) -> int:
    """Exit status of a program that imports a module that is not installed."""
    monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr(sys, "orig_argv", ["/venv/bin/python", *typed, "--flag"])
    monkeypatch.setattr(sys, "argv", ["program", "--flag"])

    @command
    def main(_: list[str]) -> None:
        __import__(module)

    return main([])


@pytest.mark.parametrize("module", REQUIRED)
def test_every_dependency_has_its_sentence(module, monkeypatch, capsys):
    assert importing(module, monkeypatch, "train.py") == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: python train.py needs {module} (")
    assert said.endswith(f"): pip install {REQUIRED[module]}\n") and said.count("\n") == 1


def test_a_module_of_a_namespace_counts_as_its_package(monkeypatch, capsys):
    assert importing("orbax.checkpoint", monkeypatch, "-u", "-m", "aliasfree_jax") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: python -u -m aliasfree_jax needs orbax (")
    assert said.endswith("): pip install orbax-checkpoint\n")


@pytest.mark.parametrize(("place", "line"), [(ROOT, f"-e {ROOT}"), (Path("/site-packages"), "aliasfree_jax")])
def test_all_that_is_missing_is_named_at_once(place, line, monkeypatch, capsys):
    """The message for a checkout, and for an installed package."""
    monkeypatch.setattr(errors, "__file__", str(place / "aliasfree_jax/errors.py"))
    for module in ("PIL", "tqdm"):
        monkeypatch.setitem(sys.modules, module, None)
    assert importing("grain", monkeypatch, "eval.py") == 2
    said = capsys.readouterr().err
    assert said.startswith("error: python eval.py needs grain, PIL, tqdm (")
    assert said.endswith(f"): pip install {line}\n")


def test_what_one_option_needs(monkeypatch):
    assert needed("numpy.linalg", "x").__name__ == "numpy.linalg"
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.setitem(sys.modules, "tqdm", None)  # not in the message: drawing does not need it
    with pytest.raises(
        MissingPackageError, match=r"^a picture needs matplotlib \(.*\): pip install 'al.*figures\]'$"
    ):
        needed("matplotlib.figure", "a picture")


def test_a_library_that_a_package_needs_is_said_of_the_package(monkeypatch, tmp_path):
    (tmp_path / "wandb.py").write_text("import no_such_library_at_all")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        MissingPackageError, match=r"log.wandb needs wandb \(No module named 'no_such_library"
    ):
        needed("wandb", "log.wandb")


def test_what_is_no_dependency_is_not_hidden(monkeypatch, capsys):
    with pytest.raises(ModuleNotFoundError, match="no_such_library_at_all"):
        importing("no_such_library_at_all", monkeypatch, "train.py")
    error = ImportError("cannot import name 'x' from 'grain'", name="grain")  # installed, but another version
    excepthook(ImportError, error, None)
    assert capsys.readouterr().err == "ImportError: cannot import name 'x' from 'grain'\n"


def test_the_citation_has_the_packages_version_and_all_papers():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= set(citation)
    assert str(citation["version"]) == aliasfree_jax.__version__
    assert citation["license"] == PROJECT["license"]
    papers = citation["references"]
    for paper in papers:
        assert {"type", "title", "authors", "year", "url"} <= set(paper), paper
        assert all({"family-names", "given-names"} == set(author) for author in paper["authors"])
    numbers = [paper["url"].removeprefix("https://arxiv.org/abs/") for paper in papers]
    assert len(set(numbers)) == len(numbers)
    # The papers of the four originals, of this package's networks and of their parts.
    originals = {"1904.11486", "2011.14214", "2105.04040", "2210.08001", "2303.08085", "2510.22673"}
    parts = {"2008.09604", "2106.12423", "2401.17992"}
    networks = {"1512.03385", "1505.04597", "1802.02611", "2201.03545"}
    assert originals | parts | networks <= set(numbers)

"""Tests of the package's layers: which part may import which other part, and which external packages.

Imports are read from the source with `ast`, so imports inside functions count too.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import aliasfree_jax
from aliasfree_jax.errors import OPTIONAL, REQUIRED

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "aliasfree_jax"

# A module may import modules of a lower rank, and modules of the same part.
RANKS = {
    "errors": 0,
    "legal_values": 1,
    "config": 2,
    "validation": 3,
    "files": 1,
    "references": 2,
    "commands": 3,
    "startup": 1,
    "pickles": 1,
    "processes": 2,
    "stored_config": 3,
    "ops": 2,
    "layers": 3,
    "models": 4,
    "data": 4,
    "transform": 5,
    "foreign": 6,
    "checkpoint": 7,
    "cli": 7,
    "training": 8,
    "evaluation": 9,
    "conversion": 10,
    "__main__": 11,
}
FACADE = "conversion"  # `aliasfree_jax` exports functions up to load_pretrained, so it has this rank
OFFERED = {name: home.split(".")[1] for name, home in aliasfree_jax._HOMES.items()}
OFFERED["__version__"] = "errors"  # has no imports

FORBIDDEN_EVERYWHERE = {"torch", "torchvision", "timm", "tensorflow"}
NOT_OF_NETWORKS = {*REQUIRED, *OPTIONAL} - {"jax", "flax", "numpy", "ml_dtypes"}
FORBIDDEN = {
    "ops": {"flax", *NOT_OF_NETWORKS},
    "layers": NOT_OF_NETWORKS,
    "models": NOT_OF_NETWORKS,
    "errors": {*REQUIRED, *OPTIONAL},
}


def imports(source: str) -> Iterator[tuple[str, int]]:
    """Modules that `source` imports, with their lines; "." marks relative imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            yield "." * node.level + (node.module or ""), node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module == "aliasfree_jax":
            yield from ((f"aliasfree_jax.{alias.name}", node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or "", node.lineno


def violations(part: str, source: str) -> list[str]:
    """Forbidden imports of a module of a part of the package ("": a script outside the package)."""
    faults = []
    for name, line in imports(source):
        top, _, rest = name.partition(".")
        if name.startswith("."):
            faults.append(f"line {line}: relative import of {name}")
        elif top == "aliasfree_jax" and part:
            other = rest.split(".")[0]
            other = other if other in RANKS else OFFERED.get(other, FACADE)
            if other != part and RANKS[other] >= RANKS[part]:
                faults.append(f"line {line}: {part} imports {other}, which is no lower layer")
        elif top in FORBIDDEN_EVERYWHERE | FORBIDDEN.get(part, set()):
            faults.append(f"line {line}: {part or 'a script'} imports {top}")
    return faults


def part_of(path: Path) -> str:
    """Part of the package that contains a file. The package's __init__ counts as conversion."""
    first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return FACADE if first == "__init__" else first


MODULES = sorted(PACKAGE.rglob("*.py"))
SCRIPTS = [
    path
    for path in (ROOT / "train.py", ROOT / "eval.py", *sorted((ROOT / "configs").rglob("*.py")))
    if path.exists()
]


def test_every_part_has_a_rank():
    assert {part_of(path) for path in MODULES} == set(RANKS)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_modules_import_lower_layers_only(path):
    found = violations(part_of(path), path.read_text())
    if path.name == "command.py":  # commands need absl for their flags; no other module imports them
        found = [fault for fault in found if not fault.endswith("imports absl")]
    assert found == []


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_scripts_import_nothing_forbidden(path):
    assert violations("", path.read_text()) == []


@pytest.mark.parametrize(
    ("part", "source", "fault"),
    [
        (
            "ops",
            "from aliasfree_jax.layers import mlp",
            "line 1: ops imports layers, which is no lower layer",
        ),
        ("ops", "from aliasfree_jax import models", "ops imports models"),
        ("layers", "import aliasfree_jax.models.registry", "layers imports models"),
        ("data", "from aliasfree_jax.models import create_model", "data imports models"),
        ("data", "from aliasfree_jax import create_model", "data imports transform"),
        ("checkpoint", "from aliasfree_jax.cli import main", "checkpoint imports cli"),
        ("training", "from aliasfree_jax.evaluation import report", "training imports evaluation"),
        ("errors", "from aliasfree_jax.config import validate", "errors imports config"),
        ("ops", "x = 1\ndef f():\n    import flax.linen as nn", "line 3: ops imports flax"),
        ("layers", "from ml_collections import ConfigDict", "layers imports ml_collections"),
        ("models", "import orbax.checkpoint as ocp", "models imports orbax"),
        ("ops", "def f():\n    from scipy import fft", "line 2: ops imports scipy"),
        ("training", "if True:\n    from torch import nn", "line 2: training imports torch"),
        ("data", "import tensorflow as tf", "data imports tensorflow"),
        ("", "import torch", "a script imports torch"),
        ("ops", "from . import spectrum", "relative import of ."),
        ("ops", "from .spectrum import exact_grid", "relative import of .spectrum"),
    ],
)
def test_the_checker_finds(part, source, fault):
    found = violations(part, source)
    assert len(found) == 1 and fault in found[0]


@pytest.mark.parametrize(
    ("part", "source"),
    [
        ("layers", "import flax.linen as nn\nfrom aliasfree_jax.ops.blurring import blur"),
        ("layers", "from aliasfree_jax.layers.layer import Layer"),
        (
            "conversion",
            "from aliasfree_jax.models import create_model\nfrom aliasfree_jax.errors import unknown",
        ),
        ("training", "import optax\nfrom aliasfree_jax import create_model"),
        ("data", "import tensorflow_datasets as tfds"),
        ("", "import aliasfree_jax.training"),
    ],
)
def test_the_checker_allows(part, source):
    assert violations(part, source) == []


def loaded_by(statement: str) -> set[str]:
    """Top-level modules that a new interpreter has loaded after `statement`."""
    code = f"import sys\n{statement}\nprint(*sorted({{name.partition('.')[0] for name in sys.modules}}))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(run.stdout.split())


def test_the_errors_need_no_framework():
    assert not loaded_by("import aliasfree_jax.errors") & {"jax", "flax", "numpy"}

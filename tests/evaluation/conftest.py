"""Fixture that runs eval.py in the process of the tests."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from absl import flags

from aliasfree_jax import cli

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def eval_program() -> Iterator[ModuleType]:
    """The module eval.py. Its flags (`own_flags`) have their defaults and are removed after the test."""
    before = set(flags.FLAGS)
    spec = importlib.util.spec_from_file_location("eval_under_test", ROOT / "eval.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.own_flags = set(flags.FLAGS) - before
    flags.FLAGS.mark_as_parsed()
    yield module
    setattr(flags.FLAGS, cli.ACCEPT_CLASS_NAMES.name, False)
    for name in [name for name in flags.FLAGS if name not in before]:
        delattr(flags.FLAGS, name)

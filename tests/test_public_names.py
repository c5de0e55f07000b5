"""What the package exports: documented, typed, and the same whatever else is imported."""

import importlib
import inspect
import pkgutil

import pytest

import aliasfree_jax
from aliasfree_jax import layers, models, ops

PACKAGES = (layers, ops, models)
EXPORTS = [(package, name) for package in PACKAGES for name in package.__all__]
IDS = [f"{package.__name__.rpartition('.')[2]}.{name}" for package, name in EXPORTS]
OBJECTS = {key: getattr(key[0], key[1]) for key in EXPORTS}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_names_are_sorted_words_of_their_own(package):
    assert len({*package.__all__}) == len(package.__all__)
    assert not [name for name in package.__all__ if name.startswith("_")]


@pytest.mark.parametrize(("package", "name"), EXPORTS, ids=IDS)
def test_documented(package, name):
    exported = getattr(package, name)
    own = vars(exported).get("__doc__") if inspect.isclass(exported) else exported.__doc__
    assert own and not own.startswith(f"{name}("), (
        "no docstring of its own (a dataclass writes its signature)"
    )
    assert own.strip().split("\n")[0].rstrip().endswith((".", ":")), "the first line is a sentence"
    if inspect.isclass(exported) and hasattr(exported, "init"):  # layers and networks
        assert exported.__call__.__doc__ or name == "Layer"


@pytest.mark.parametrize("name", ops.__all__)
def test_functions_have_types(name):
    signature = inspect.signature(getattr(ops, name))
    assert signature.return_annotation is not signature.empty
    assert not [p.name for p in signature.parameters.values() if p.annotation is p.empty]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_no_module_is_named_like_an_export(package):
    """Importing it would replace the export by the module."""
    assert not {module.name for module in pkgutil.iter_modules(package.__path__)} & {*package.__all__}


def test_importing_every_module_replaces_nothing():
    for module in pkgutil.walk_packages(aliasfree_jax.__path__, "aliasfree_jax."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert {key: getattr(key[0], key[1]) for key in EXPORTS} == OBJECTS
    assert not [name for name in aliasfree_jax.__all__ if inspect.ismodule(getattr(aliasfree_jax, name))]

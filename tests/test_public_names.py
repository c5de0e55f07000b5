"""Public names: they are documented and typed, and imports of other modules do not replace them."""

import builtins
import importlib
import inspect
import itertools
import pkgutil
import re

import pytest

import aliasfree_jax
from aliasfree_jax import errors, layers, models, ops

PACKAGES = (layers, ops, models)
EXPORTS = [(package, name) for package in PACKAGES for name in package.__all__]
IDS = [f"{package.__name__.rpartition('.')[2]}.{name}" for package, name in EXPORTS]
OBJECTS = {key: getattr(key[0], key[1]) for key in EXPORTS}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_names_are_unique_and_public(package):
    assert len({*package.__all__}) == len(package.__all__)
    assert not [name for name in package.__all__ if name.startswith("_")]


@pytest.mark.parametrize(("package", "name"), EXPORTS, ids=IDS)
def test_documented(package, name):
    exported = getattr(package, name)
    own = vars(exported).get("__doc__") if inspect.isclass(exported) else exported.__doc__
    assert own and not own.startswith(f"{name}("), (
        "no docstring (dataclasses without one get their signature)"
    )
    assert own.strip().split("\n")[0].rstrip().endswith((".", ":")), "the first line is a sentence"
    if inspect.isclass(exported) and hasattr(exported, "init"):  # layers and networks
        assert exported.__call__.__doc__ or name == "Layer"


SECTIONS = ("Args", "Attributes", "Returns", "Raises")


def entries(text, section):
    """Returns the names in a section of a docstring: the text before the colon of each entry."""
    _, _, rest = inspect.cleandoc(text).partition(f"\n{section}:\n")
    lines = itertools.takewhile(lambda line: not line or line.startswith(" "), rest.split("\n"))
    return [line.strip().partition(":")[0] for line in lines if re.match(r"  \S", line)]


def faults(documented, *, sourced=True):
    """Returns the faults of the docstring of a function or class, in words."""
    text = vars(documented).get("__doc__") if inspect.isclass(documented) else documented.__doc__
    text = inspect.cleandoc(text or "")
    found = [] if not sourced or re.search(r"^Source: \S.*[.]", text, re.M | re.S) else ["no Source: line"]
    parameters = inspect.signature(documented).parameters
    allowed = {"Args": parameters.keys(), "Attributes": parameters.keys() | class_names(documented)}
    for section, names in allowed.items():
        found += [f"{section}: {name!r} is unknown" for name in entries(text, section) if name not in names]
    for name in entries(text, "Raises"):
        error = getattr(errors, name, getattr(builtins, name, None))
        if not (inspect.isclass(error) and issubclass(error, Exception)):
            found.append(f"Raises: {name!r} is no exception")
    found += [
        f"{line} needs an empty line before it"
        for before, line in itertools.pairwise(text.split("\n"))
        if line.rstrip(":") in SECTIONS and line.endswith(":") and before
    ]
    return found


def class_names(documented):
    """Returns the annotated fields and constants and the properties of a class."""
    if not inspect.isclass(documented):
        return set()
    annotated = {name for base in documented.__mro__ for name in inspect.get_annotations(base)}
    return annotated | {name for name, _ in inspect.getmembers(documented, lambda v: isinstance(v, property))}


def parts_of_the_api(package, name):
    """Yields an exported object, and the methods that its class defines or overrides."""
    exported = getattr(package, name)
    yield name, exported, True
    for method, value in vars(exported).items() if inspect.isclass(exported) else ():
        if inspect.isfunction(value) and value.__doc__ and (method == "__call__" or method[0] != "_"):
            yield f"{name}.{method}", value, False


@pytest.mark.parametrize(("package", "name"), EXPORTS, ids=IDS)
def test_docstrings_name_what_exists(package, name):
    parts = parts_of_the_api(package, name)
    found = {part: faults(value, sourced=sourced) for part, value, sourced in parts}
    assert not {part: words for part, words in found.items() if words}


def badly_documented(x, rows, columns):
    """Does something.

    Args:
      rows, columns: two names in one entry.
      colour: not a parameter.
      x: this entry is right,
        rows: and this is its second line.
    Raises:
      ShapeError: a real exception.
      NoSuchError: not an exception.
    """


def well_documented(x, rows):
    """Does something.

    Args:
      x: a map.
      rows: positions.

    Raises:
      ShapeError: wrong shape.
      ValueError: wrong value.

    Source: this package.
    """


class BadlyDocumented:
    """A class.

    Attributes:
      size: a field.
      length: not a field.
      method: not a field either.

    Source: this package.
    """

    size: int

    def method(self):
        """Does nothing."""


def test_faults_of_docstrings_are_found():
    assert faults(BadlyDocumented) == [
        "Attributes: 'length' is unknown",
        "Attributes: 'method' is unknown",
    ]
    assert faults(badly_documented) == [
        "no Source: line",
        "Args: 'rows, columns' is unknown",
        "Args: 'colour' is unknown",
        "Raises: 'NoSuchError' is no exception",
        "Raises: needs an empty line before it",
    ]
    assert faults(well_documented) == []


@pytest.mark.parametrize("name", ops.__all__)
def test_functions_have_types(name):
    signature = inspect.signature(getattr(ops, name))
    assert signature.return_annotation is not signature.empty
    assert not [p.name for p in signature.parameters.values() if p.annotation is p.empty]


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_no_module_is_named_like_an_export(package):
    """Importing such a module would replace the exported name."""
    assert not {module.name for module in pkgutil.iter_modules(package.__path__)} & {*package.__all__}


def test_importing_every_module_replaces_nothing():
    for module in pkgutil.walk_packages(aliasfree_jax.__path__, "aliasfree_jax."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    assert {key: getattr(key[0], key[1]) for key in EXPORTS} == OBJECTS
    assert not [name for name in aliasfree_jax.__all__ if inspect.ismodule(getattr(aliasfree_jax, name))]

"""Finds users' functions by reference: my_file.py:make_network, or my_package.my_file:make_network."""

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from functools import partial
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from aliasfree_jax.errors import ConfigError, unknown
from aliasfree_jax.files import local_path


def is_reference(name: str) -> bool:
    """Whether a network's name is a reference to a function that makes it."""
    return ":" in name or name.endswith(".py")


def located(target: str) -> str:
    """Makes the path in "my_file.py:make_network" absolute, so that it is valid in every directory."""
    place, _, name = target.rpartition(":")
    return f"{local_path(place).resolve()}:{name}" if place.endswith(".py") else target


def _spec(place: str) -> ModuleSpec:
    """Finds the module of a dotted name or of a .py file without running it.

    Raises:
      ConfigError: There is no such module or file.
    """
    is_file, found, cause = place.endswith(".py"), None, None
    if is_file and not Path(place).is_file():
        raise ConfigError(f"there is no file {place}.")
    beside = str(Path(place).resolve().parent if is_file else Path.cwd())
    if beside not in sys.path:
        sys.path.append(beside)  # like Python: a program may import files from its directory
    try:
        found = None if is_file else importlib.util.find_spec(place)
    except (ImportError, ValueError) as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else place
        if missing is None or not f"{place}.".startswith(f"{missing}."):
            raise  # an import inside the package
        cause = error
    if is_file:  # a file runs once unless it changes, so that it registers its objects only once
        file = Path(place).resolve()
        state = hashlib.sha256(f"{file} {fingerprint(file)}".encode()).hexdigest()
        found = importlib.util.spec_from_file_location(f"{file.stem}_{state[:16]}", file)
    if found is None or found.loader is None or not found.has_location:
        raise ConfigError(
            f"there is no module {place!r}: write the name as in an import statement and start from the "
            "directory of the module, or pass a file: path/to/my_file.py:make_network"
        ) from cause
    return found


def fingerprint(file: Path) -> str:
    """SHA-256 of a file's content."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _parts(target: str) -> tuple[str, str]:
    """Splits a target into the module or file and the function.

    Raises:
      ConfigError: One of them is missing.
    """
    place, _, name = target.rpartition(":")
    if not place or not name:
        raise ConfigError(
            f"{target!r} is not a reference to a function: expected my_package.my_file:make_network."
        )
    return place, name


def source_file(target: str) -> Path:
    """File with the function of "my_package.my_file:make_network"; the file is not run.

    Raises:
      ConfigError: There is no such module or file.
    """
    return Path(str(_spec(_parts(target)[0]).origin))


def _imported(place: str) -> ModuleType:
    """Imports the module of a dotted name or of a .py file."""
    spec = _spec(place)
    if not place.endswith(".py"):
        return importlib.import_module(place)
    if spec.name not in sys.modules:
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # where dataclasses look up annotations
        try:
            spec.loader.exec_module(module)  # type: ignore[union-attr]  # _spec has looked
        except BaseException:
            del sys.modules[spec.name]
            raise
    return sys.modules[spec.name]


def function_of(target: str, expected: str) -> Callable[..., Any]:
    """Imports the function of a reference such as "my_package.my_file:make_network".

    Args:
      target: The reference.
      expected: Description of what the function should return, for messages.

    Raises:
      ConfigError: There is no such module, file or function.
    """
    place, name = _parts(target)
    module = _imported(place)
    if not hasattr(module, name):
        known = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise ConfigError(f"in {place}: {unknown('function', name, known)}")
    make: Callable[..., Any] = getattr(module, name)
    if not (inspect.isroutine(make) or isinstance(make, type | partial)):
        raise ConfigError(
            f"{target} is not a function but {type(make).__name__}: expected a function that returns "
            f"{expected}."
        )
    return make
